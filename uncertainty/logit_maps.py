"""Maps of one number a pixel from logits: the highest of them, its class, and their logsumexp.

On one CPU core they take a third of the time of torch's reductions over the strided axis of the
classes, and no second map of all classes.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.class_map import class_map, fill_classes, row_blocks
from utils.kept import Kept

# exp of less would be denormal, and slow; it also keeps 0 * -inf out. What it adds to an entropy
# is at most 1e-33 a class, and less to a logsumexp.
LOWEST = np.float32(-80)


class TopLogit(NamedTuple):
    """The most likely class of each pixel and its logit."""

    classes: Tensor  # (N, H, W), uint8, the first of equals
    highest: Tensor  # (N, H, W), float32


def top_logit(logits: Tensor) -> TopLogit:
    """Class and value of the highest logit of each pixel.

    Args:
        logits: (N, C, H, W), any floating type, at most 256 classes.

    Returns:
        Maps on the device of the logits and outside the graph, to be read only.
    """
    logits = logits.detach()
    if logits.device.type != "cpu":
        return TopLogit(class_map(logits), logits.amax(1).float())
    size = logits.shape[:1] + logits.shape[2:]
    found = TopLogit(torch.empty(size, dtype=torch.uint8), torch.empty(size))
    for block in row_blocks(logits):
        place = block.image, block.rows
        highest = fill_classes(block.scores, found.classes[place].numpy())
        found.highest[place] = torch.from_numpy(highest)
    return found


def log_sum_exp(logits: Tensor) -> Tensor:
    """Logsumexp of the logits of each pixel, stable; kept as long as the logits live.

    log sum_c exp(z_c) = m + log sum_c exp(z_c - m) with m = max z, in float32.

    Args:
        logits: (N, C, H, W), any floating type; -inf is a class that adds nothing.

    Returns:
        (N, H, W), float32, on the device of the logits and outside the graph, to be read only.
    """
    return _log_sum_exp(logits)


@Kept
def _log_sum_exp(logits: Tensor) -> Tensor:
    if logits.device.type != "cpu":
        return logits.float().logsumexp(1)
    found = torch.empty(logits.shape[:1] + logits.shape[2:])
    for block in row_blocks(logits):
        found[block.image, block.rows] = torch.from_numpy(block_log_sum_exp(block.scores))
    return found


def block_log_sum_exp(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logsumexp (h, W) over the classes of logits (C, h, W)."""
    highest = np.maximum.reduce(logits, axis=0)
    total, power = np.zeros_like(highest), np.empty_like(highest)
    for class_logits in logits:
        np.subtract(class_logits, highest, out=power)
        np.maximum(power, LOWEST, out=power)
        np.add(total, cv2.exp(power, dst=power), out=total)
    return np.add(np.log(total, out=total), highest, out=total)
