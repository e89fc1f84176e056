"""Spread of a network's answer over stochastic passes or over the members of an ensemble."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def top_class_deviation(passes: Iterable[Tensor]) -> Tensor:
    """Standard deviation of the probability of the class whose mean probability is highest.

    The sigma of uncertainty-aware cross entropy (Landgraf et al. 2023), with n - 1 in the divisor.
    Only running sums are kept, whatever the number of passes (Welford 1962).

    Args:
        passes: at least two maps of probabilities (N, C, H, W) that sum to 1 over the classes.

    Returns:
        (N, H, W), in [0, sqrt(1/2)].
    """
    count = 0
    mean = squares = torch.empty(0)
    for probabilities in passes:
        count += 1
        if count == 1:
            mean, squares = probabilities.clone(), torch.zeros_like(probabilities)
            continue
        before = probabilities - mean
        mean += before / count
        squares += before.mul_(probabilities - mean)
    assert count > 1, "a deviation takes at least two passes"
    top = mean.max(1, keepdim=True).indices
    return (squares.gather(1, top).squeeze(1) / (count - 1)).sqrt_()
