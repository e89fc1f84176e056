"""Weights of pixels as they are stored, one byte each, and as training multiplies by them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

LEVELS = 255  # what the weight 1 is stored as

Weighting = Literal["threshold", "linear"]


def weight_levels(uncertainty: Tensor) -> Tensor:
    """What is stored of an uncertainty in [0, 1]: floor((1 - U) 255), uint8, 255 for certain."""
    return ((1 - uncertainty) * LEVELS).floor().byte()


def pixel_weights(levels: Tensor, threshold: float, weighting: Weighting = "threshold") -> Tensor:
    """The factor of each pixel's loss, from what is stored of it (URN, arXiv 2112.07431).

    Args:
        levels: uint8, any shape, as of ``weight_levels``.
        threshold: tau in [0, 1]; with "threshold" a pixel with level / 255 <= tau has the weight
            tau and any other 1, as published (tau 0.05: levels up to 12).
        weighting: "linear" gives level / 255 and reads no threshold.

    Returns:
        float32, in [0, 1], the same shape.

    Raises:
        ValueError: if the threshold is out of range.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"weight threshold {threshold:g} is outside 0..1; published is 0.05")
    shares = levels.float() / LEVELS
    if weighting == "linear":
        return shares
    return torch.where(shares <= threshold, threshold, 1.0)
