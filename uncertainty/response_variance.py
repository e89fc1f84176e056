"""How often pixels change sides when the response of a class is scaled, for the most likely class.

The part of response scaling (``uncertainty.response_scaling``) that needs no decoder: what the
scales do to the most likely class in closed form, and the uncertainty that follows from counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from utils.class_map import BLOCK_PIXELS

# The powers of the published experiments, by data set.
PRESETS: dict[str, tuple[float, ...]] = {
    "voc": (0.15, 0.2, 0.25, 4.0, 5.0, 6.0),
    "coco": (0.4, 0.5, 0.6, 2.0, 3.0, 4.0),
}
GREATEST_VARIANCE = 0.25  # of numbers that are 0 or 1
LEAST_RANGE = 1e-6  # added to what divides: of an image without any change 0 / 0

Reduce = Literal["max", "mean"]
Normalize = Literal["image", "absolute"]


def argmax_wins(probabilities: Tensor, scales: Sequence[float]) -> Tensor:
    """For how many scales each class alone is the most likely of all.

    Class k at scale n has a pixel where n a_k < min over j != k of a_j, with a = -log P: then
    P_k^n is above the unchanged probabilities of the others. On the CPU it works on some rows at
    a time, which then stay in the cache; it never waits for a GPU.

    Args:
        probabilities: (L, H, W), floating point, in [0, 1].
        scales: at most 255 powers above 0.

    Returns:
        (L, H, W), uint8.
    """
    height, width = probabilities.shape[1:]
    wins = torch.zeros(probabilities.shape, dtype=torch.uint8, device=probabilities.device)
    rows = height if probabilities.is_cuda else max(1, BLOCK_PIXELS // width)
    for part, counts in zip(probabilities.split(rows, 1), wins.split(rows, 1), strict=True):
        # a mean of softmaxes may exceed 1 by rounding
        _count_wins(part.float().log().clamp_(max=0), scales, counts)
    return wins


def _count_wins(logs: Tensor, scales: Sequence[float], wins: Tensor) -> None:
    """Add to ``wins`` (L, h, W) how often each class wins, of log-probabilities (L, h, W)."""
    for own, rival, count in zip(logs, highest_others(logs), wins, strict=True):
        for scale in scales:
            count += own.mul(scale) > rival


def highest_others(values: Tensor) -> Iterator[Tensor]:
    """For each of the classes of values (L, h, W) in turn the highest of the others, (h, W)."""
    first, second = values[0], torch.full_like(values[0], -math.inf)
    for other in values[1:]:
        second = torch.maximum(second, torch.minimum(first, other))
        first = torch.maximum(first, other)
    for own in values:
        yield torch.where(own == first, second, first)


def response_uncertainty(
    wins: Tensor, scales: int, *, reduce: Reduce = "max", normalize: Normalize = "image"
) -> Tensor:
    """How much the scales change what a pixel belongs to.

    The variance over the scales of whether class k has the pixel is V_k = m (S - m) / S^2 where m
    of S scales give it to k; U is the greatest V_k (or their mean), then normalised.

    Args:
        wins: (L, H, W) uint8, how many scales give the pixel to each class.
        scales: how many there are.
        reduce: over the classes; "max" as published.
        normalize: "image" as published, (U - min U) / (max U - min U + 1e-6), which gives every
            image with any change pixels of value 1; "absolute" divides by 1/4, the greatest
            variance there is.

    Returns:
        (H, W), float32, in [0, 1].
    """
    spread = torch.zeros(wins.shape[1:], device=wins.device)
    for count in wins:
        inside = count.float()
        own = inside * (scales - inside)  # an exact integer
        spread = torch.maximum(spread, own) if reduce == "max" else spread.add_(own)
    variance = spread / (scales**2 * (1 if reduce == "max" else len(wins)))
    if normalize == "absolute":
        return variance / GREATEST_VARIANCE
    low, high = variance.aminmax()
    return (variance - low) / (high - low + LEAST_RANGE)


def argmax_uncertainty(
    probabilities: Tensor, labels: Tensor, scales: Sequence[float] = PRESETS["voc"]
) -> Tensor:
    """``response_uncertainty`` of one image, for the most likely class; max, by image.

    On a GPU nothing waits for which classes there are: absent ones get probability 0 and so win
    nowhere, which leaves the result as it is.

    Args:
        probabilities: (C, H, W), floating point, in [0, 1].
        labels: (H, W), uint8, the most likely class.
        scales: at most 255 powers above 0.

    Returns:
        (H, W), float32, in [0, 1].
    """
    if labels.is_cuda:
        present = torch.zeros(len(probabilities), device=labels.device)
        kept = probabilities * present.index_fill_(0, labels.flatten().long(), 1)[:, None, None]
    else:
        kept = probabilities[labels.unique().long()]
    return response_uncertainty(argmax_wins(kept, scales), len(scales))
