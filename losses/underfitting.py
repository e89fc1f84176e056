"""Pretended under-fitting: once the loss is low, pixels whose loss is high are label noise.

As released with PMM (arXiv 2108.12995) and URN (arXiv 2112.07431) for training on pseudo masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Kind = Literal["clamp", "pow", "ignore"]

_SMALL = 1e-9  # keeps the power differentiable at a loss of 0, as published


class Underfitting(NamedTuple):
    """Settings of ``pretended_underfitting``, by the names of its arguments."""

    kind: Kind
    beta: float = 0.5
    k: float = 0.5


def pretended_underfitting(
    losses: Tensor,
    *,
    kind: Kind,
    beta: float,
    k: float,
    divisor: Tensor,
    labelled: Tensor | None = None,
) -> Tensor:
    """The mean loss m where m >= beta, else the mean of the transformed losses.

    ``clamp`` is min(l, k), so that pixels above k have no gradient, ``pow`` (l + 1e-9)^k, and
    ``ignore`` l up to k and 0 above. The test is on the losses that are given: those of one head
    for the images on one device, each weighted already. With several devices each decides for
    itself, as published. The host does not wait for it.

    Args:
        losses: (N, H, W), at least 0, 0 where there is no label.
        kind: the transform.
        beta: mean loss below which the network is taken to fit.
        k: limit or exponent.
        divisor: scalar above 0 by which sums over pixels are divided, such as their number.
        labelled: (N, H, W) bool, the pixels that are added up; None for all of them, as published,
            where void and padding lower the mean.

    Returns:
        Scalar; 0 if no pixel counts.
    """
    transformed = _TRANSFORMS[kind](losses, k)
    if labelled is not None:
        losses, transformed = (each.masked_fill(~labelled, 0) for each in (losses, transformed))
    mean = losses.sum() / divisor
    return torch.where(mean < beta, transformed.sum() / divisor, mean)


_TRANSFORMS: dict[Kind, Callable[[Tensor, float], Tensor]] = {
    "clamp": lambda losses, k: losses.masked_fill(losses > k, k),
    "pow": lambda losses, k: (losses + _SMALL) ** k,
    "ignore": lambda losses, k: losses.masked_fill(losses > k, 0),
}
