"""Softmax and most likely class of logits, computed once for all who ask in one batch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from utils.class_map import class_map, row_blocks
from utils.kept import Kept


class TopClass(NamedTuple):
    """The most likely class of each pixel and its probability."""

    classes: Tensor  # (N, H, W), uint8, the first of equals
    confidence: Tensor  # (N, H, W), float32


def probabilities(logits: Tensor) -> Tensor:
    """Softmax of logits (N, C, H, W), float32, outside the graph; to be read only.

    The result is kept as long as the logits live, and also serves slices of their images.
    """
    return _softmax(logits)


def most_likely(logits: Tensor) -> Tensor:
    """The class of the highest logit of each pixel, (N, H, W) uint8; kept like the above."""
    return _classes(logits)


def top_class(logits: Tensor) -> TopClass:
    """Class and probability of the highest logit of each pixel; kept like ``probabilities``.

    The probability is 1 / sum_c exp(z_c - max z), in [1/C, 1].
    """
    return TopClass(_classes(logits), _confidence(logits))


@Kept
def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1, dtype=torch.float32)


@Kept
def _classes(logits: Tensor) -> Tensor:
    return class_map(logits)


@Kept
def _confidence(logits: Tensor) -> Tensor:
    likely = _softmax(logits)
    if likely.device.type != "cpu":
        return likely.amax(1)
    highest = torch.empty(likely.shape[:1] + likely.shape[2:])
    for block in row_blocks(likely):  # a fifth of the time of amax, which strides over the classes
        np.maximum.reduce(block.scores, axis=0, out=highest[block.image, block.rows].numpy())
    return highest
