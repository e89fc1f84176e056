"""Arithmetic of class activation maps (N, C, H, W), of whose classes one may be the background.

``background`` is its channel, None where there is none and every channel is foreground.
"""

from __future__ import annotations

import torch
from torch import Tensor

OFFSET = 1e-5  # of the published normalisations, against division by zero


def foreground(maps: Tensor, background: int | None) -> Tensor:
    """All channels but the background's, (N, C - 1, H, W), or (N, C - 1) of vectors (N, C)."""
    if background is None:
        return maps
    return torch.cat([maps[:, :background], maps[:, background + 1 :]], 1)


def with_background(maps: Tensor, background: int | None) -> Tensor:
    """Maps whose background is 1 - the largest foreground value of each pixel."""
    if background is None:
        return maps
    rest = 1 - foreground(maps, background).amax(1, keepdim=True)
    return torch.cat([maps[:, :background], rest, maps[:, background + 1 :]], 1)


def largest_only(maps: Tensor, background: int | None) -> Tensor:
    """Maps with 0 for every foreground value but the pixel's largest; equal ones all stay."""
    largest = foreground(maps, background).amax(1, keepdim=True)
    kept = torch.where(maps == largest, maps, 0)
    if background is None:
        return kept
    own = maps[:, background : background + 1]
    return torch.cat([kept[:, :background], own, kept[:, background + 1 :]], 1)


def range_normalised(maps: Tensor) -> Tensor:
    """ReLU(a - min - 1e-5) / (max - min + 1e-5) of every image and channel, in [0, 1).

    A map that is the same everywhere becomes 0.
    """
    least, most = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - least - OFFSET).relu() / (most - least + OFFSET)
