"""Spread of a network's answer over stochastic passes or over the members of an ensemble."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class RunningMoments(NamedTuple):
    """Mean and squared deviations of maps of one size."""

    maps: int  # how many
    mean: Tensor
    squares: Tensor  # sum of the squared differences from the mean


def running_moments(maps: Iterable[Tensor]) -> RunningMoments:
    """Mean and squared deviations over maps, of which one at a time is held (Welford 1962).

    Equal maps have exactly their own mean and no deviation.

    Args:
        maps: at least one, floating point, of one size; they are not changed.
    """
    count = 0
    mean = squares = torch.empty(0)
    for values in maps:
        count += 1
        if count == 1:
            mean, squares = values.clone(), torch.zeros_like(values)
            continue
        before = values - mean
        mean += before / count
        squares += before.mul_(values - mean)
    assert count, "moments are of at least one map"
    return RunningMoments(count, mean, squares)


def top_class_deviation(passes: Iterable[Tensor]) -> Tensor:
    """Standard deviation of the probability of the class whose mean probability is highest.

    The sigma of uncertainty-aware cross entropy (Landgraf et al. 2023), with n - 1 in the divisor.
    Only running sums are kept, whatever the number of passes.

    Args:
        passes: at least two maps of probabilities (N, C, H, W) that sum to 1 over the classes.

    Returns:
        (N, H, W), in [0, sqrt(1/2)].
    """
    count, mean, squares = running_moments(passes)
    assert count > 1, "a deviation takes at least two passes"
    top = mean.max(1, keepdim=True).indices
    return (squares.gather(1, top).squeeze(1) / (count - 1)).sqrt_()
