"""The temperature of least expected calibration error on a grid, without trying all of it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uncertainty.calibrators.pixels import Pixels, prepare, warn_of_void

BINS = 15
EDGES = np.arange(1, BINS + 1) / BINS


class TemperatureFit(NamedTuple):
    """A fitted temperature.

    Attributes:
        temperature: the optimum; 1 without a labelled pixel.
        before: the objective at temperature 1, a fraction for the calibration error and nats for
            the likelihood; None without a labelled pixel.
        after: the objective at the optimum, likewise.
        evaluations: passes over the pixels.
    """

    temperature: float
    before: float | None
    after: float | None
    evaluations: int


@dataclass(frozen=True)
class TemperatureGrid:
    """Temperatures low, low + step, ... below high; the published grid by default.

    Raises:
        ValueError: if low or step is not above 0, or low not below high.
    """

    low: float = 0.5
    high: float = 10.0
    step: float = 0.01

    def __post_init__(self) -> None:
        if not self.low > 0:
            raise ValueError(f"the lowest temperature is {self.low:g}; it must be above 0")
        if not self.low < self.high:
            raise ValueError(
                f"the lowest temperature is {self.low:g} and the end of the grid {self.high:g}; "
                "the first must be below the second"
            )
        if not self.step > 0:
            raise ValueError(f"the step between temperatures is {self.step:g}; it must be above 0")

    @property
    def values(self) -> list[float]:
        """The temperatures, ascending, rounded to ten decimals; the upper end is excluded."""
        return np.round(np.arange(self.low, self.high, self.step), 10).tolist()


class Interval(NamedTuple):
    """Grid indices between two evaluated ones, which are excluded; ordered by the bound.

    Attributes:
        bound: least error possible inside.
        start: evaluated index, -1 for the limit of T to 0.
        end: evaluated index, the length of the grid for the limit of T to infinity.
        halve: whether to split in the middle, because the last split did not shrink it by half.
    """

    bound: float
    start: int
    end: int
    halve: bool


class Calibration(NamedTuple):
    """Calibration of all pixels at one temperature.

    The vectors have an entry for each upper edge e = 1/15, ..., 1 of the bins. A pixel's surplus
    is its confidence minus 1 where it is right and minus 0 where it is wrong.

    Attributes:
        ece: expected calibration error in equal-width bins, in [0, 1].
        below: sum of the surplus of the pixels of confidence up to e, over n.
        above: that of the other pixels, over n.
        wrong: share of all pixels that are wrong and of confidence up to e.
        right: share of all pixels that are right and of confidence up to e.
    """

    ece: float
    below: NDArray[np.float64]
    above: NDArray[np.float64]
    wrong: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def bias(self) -> float:
        """Mean confidence minus accuracy, in [-1, 1]."""
        return float(self.below[-1])


def calibration(pixels: Pixels, temperature: float) -> Calibration:
    """Expected calibration error of softmax(logits / temperature), Guo et al. 2017, Eq. 5.

    The confidence of a pixel is 1 / sum_c exp(-gap_c / T), in float32. It lies in bin j of 15 when
    it is in (j/15, (j+1)/15]. ECE = sum_j |sum_{i in j} (confidence_i - correct_i)| / n, with sums
    in float64. The pixels must not be none.
    """
    size = 2 * (BINS + 1)  # wrong pixels by bin, then right ones; no pixel lies in bin 0
    device = pixels.chunks[0].gaps.device
    sums = torch.zeros(2, size, dtype=torch.float64, device=device)
    for chunk in pixels.chunks:
        confidence = (chunk.gaps * (-1 / temperature)).exp_().sum(0).reciprocal_()
        bins = (confidence * BINS).ceil_().add_(chunk.correct, alpha=BINS + 1).int()
        surplus = confidence.double().sub_(chunk.correct)
        sums[0] += torch.bincount(bins, surplus, size)
        sums[1] += torch.bincount(bins, minlength=size)
    return summary(sums.cpu().numpy() / pixels.count)


def constant_calibration(pixels: Pixels, confidence: float) -> Calibration:
    """The calibration if all pixels had one confidence, above 0."""
    sums = np.zeros((2, 2, BINS + 1))
    shares = np.array([1 - pixels.accuracy, pixels.accuracy])
    bin_of_all = math.ceil(confidence * BINS)
    sums[0, :, bin_of_all] = shares * (confidence - np.arange(2))
    sums[1, :, bin_of_all] = shares
    return summary(sums)


def summary(sums: NDArray[np.float64]) -> Calibration:
    """From surplus and share by (wrong or right, bin), of any shape that holds these."""
    surplus, shares = sums.reshape(2, 2, BINS + 1)[:, :, 1:]
    by_bin = surplus.sum(0)
    below = by_bin.cumsum()
    above = by_bin[::-1].cumsum()[::-1] - by_bin
    return Calibration(float(np.abs(by_bin).sum()), below, above, *shares.cumsum(1))


def least_error(first: Calibration, second: Calibration) -> float:
    """What the calibration error is at least between two temperatures; see ``GridSearch``."""
    of_wrong = EDGES * (second.wrong - first.wrong)
    of_right = (1 - EDGES) * (second.right - first.right)
    below = distance(second.below - of_wrong, first.below + of_wrong)
    above = distance(second.above - of_right, first.above + of_right)
    return float((below + above).max())


def distance(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far from 0 the numbers from low to high are at least."""
    return np.maximum(np.maximum(low, -high), 0)


def search_temperature(
    logits: Tensor, labels: Tensor, grid: TemperatureGrid | None = None
) -> TemperatureFit:
    """The temperature whose calibration error is least, exactly as trying the whole grid finds it.

    The plain search starts with T = 1 and takes the grid's temperatures in ascending order, each
    that has a STRICTLY smaller error than the best so far. So the smallest of equals wins, and
    T = 1 wins over its equals. This search returns the same, see ``GridSearch`` for the proof.

    Args:
        logits: (n, C), finite.
        labels: (n,), void 255.
        grid: the temperatures; None is 0.50, 0.51, ..., 9.99.

    Returns:
        The fit, its objective the error as a fraction. T = 1, with a warning, when all is void.

    Raises:
        ValueError: for logits that are not finite and labels that are no classes.
    """
    pixels = prepare(logits, labels)
    if not pixels.count:
        warn_of_void("a temperature")
        return TemperatureFit(1.0, None, None, 0)
    return GridSearch(pixels, (grid or TemperatureGrid()).values).run()


class GridSearch:
    """Search of an ascending grid that passes over what provably holds no smaller error.

    Let f_i(T) be the confidence of pixel i and a_i = 1 where it is right, else 0. Two facts:

    1. For any edge e of the bins, n ECE(T) >= |L(T)| + |U(T)|, where L adds f_i - a_i over the
       pixels with f_i(T) <= e and U over the others: each is the sum of the sums of whole bins,
       and n ECE adds the absolute values of these (triangle inequality).
    2. f_i(T) = 1 / sum_c exp(-g_ic / T) with gaps g_ic >= 0 does not increase, since no term of
       the sum decreases; a_i does not depend on T. So the set of pixels with f_i(T) <= e grows.

    Let T1 <= T <= T2, and of the pixels that fall to e or below between T1 and T2 let w be wrong
    and r right. Then

        L(T2) - e w <= L(T) <= L(T1) + e w
        U(T2) - (1 - e) r <= U(T) <= U(T1) + (1 - e) r

    L(T) <= : pixels that were low at T1 add at most L(T1), those that have fallen since at most e
    if wrong (f_i <= e) and at most 0 if right (f_i <= 1). L(T) >= : it is at least the same sum
    of f_i(T2) - a_i, which is L(T2) without the pixels that fall after T; of these each wrong one
    adds at most e to L(T2), each right one at most 0. U(T) >= : pixels that stay high until T2 add
    at least U(T2), the others at least e - 1 if right and 0 if wrong (f_i > e). U(T) <= : it is at
    most the same sum of f_i(T1) - a_i, which is U(T1) without the pixels that have fallen; of
    these each right one adds at least e - 1 to U(T1), each wrong one at least 0.

    ``least_error`` is the greatest bound over all edges; e = 1 bounds by the bias alone. Intervals
    of the grid whose bound exceeds the best error so far are left out, the others are split by an
    evaluation, with the function that the plain search would use, until none is left. At the
    outside stand f = 1 for T to 0 and f = 1/C for T to infinity, which no confidence exceeds or
    falls below. Exceeding the best error is strict, so that temperatures of equal error stay in
    and the smallest wins; but an error of 0 cannot be undercut, which excludes all larger ones.

    Rounding: the confidences computed here in float32 do not increase with T either, because
    rounded products, sums and quotients are monotone, and so is torch's float32 exp (a test looks
    at it); so the sets grow and the inequalities hold for them as for exact ones. ``slack`` is
    added to the best error for the rounding of the edges and the sums: (C + 16) 2^-23, twice the
    error of a confidence by C additions, exp, the product and the reciprocal (k units of error in
    u = g / T change exp(-u) by k u exp(-u) <= 0.37 k units).
    """

    def __init__(self, pixels: Pixels, values: Sequence[float]) -> None:
        self.pixels = pixels
        self.values = values
        self.slack = (pixels.num_classes + 16) * 2.0**-23
        self.at_one = calibration(pixels, 1.0)
        self.evaluations = 1
        self.best: int | None = None  # T = 1 as long as nothing is better
        self.ece = self.at_one.ece
        self.known = {
            -1: constant_calibration(pixels, 1.0),
            len(values): constant_calibration(pixels, 1 / pixels.num_classes),
        }
        if 1.0 in values:
            self.known[values.index(1.0)] = self.at_one

    def run(self) -> TemperatureFit:
        """Evaluate until no temperature is left."""
        intervals: list[Interval] = []
        for ends in pairwise(sorted(self.known)):
            self.push(intervals, Interval(0.0, *ends, halve=False))
        while intervals and not self.excluded(found := heapq.heappop(intervals)):
            middle = self.split(found)
            self.evaluate(middle)
            for start, end in ((found.start, middle), (middle, found.end)):
                halve = 2 * (end - start) > found.end - found.start
                self.push(intervals, Interval(0.0, start, end, halve))
        temperature = 1.0 if self.best is None else self.values[self.best]
        return TemperatureFit(temperature, self.at_one.ece, self.ece, self.evaluations)

    def push(self, intervals: list[Interval], one: Interval) -> None:
        """Add an interval with its bound, unless nothing lies inside or may be better."""
        bound = least_error(self.known[one.start], self.known[one.end])
        one = one._replace(bound=bound)
        cannot_win = self.ece == 0 and (self.best is None or one.start >= self.best)
        if one.end - one.start > 1 and not cannot_win and not self.excluded(one):
            heapq.heappush(intervals, one)

    def excluded(self, one: Interval) -> bool:
        """Whether no temperature inside the interval has an error as small as the best."""
        return one.bound > self.ece + self.slack

    def split(self, one: Interval) -> int:
        """The index inside to evaluate: where the bias will be about 0, or just not exclude."""
        high, low = self.known[one.start].bias, self.known[one.end].bias
        left, right = high > self.ece, low < -self.ece
        level = (self.ece if left else 0.0) - (self.ece if right else 0.0)
        along_line = (left or right) and high > low and not one.halve
        share = (high - level) / (high - low) if along_line else 0.5
        middle = one.start + round(share * (one.end - one.start))
        return min(max(middle, one.start + 1), one.end - 1)

    def evaluate(self, index: int) -> None:
        """Pass over the pixels at one temperature of the grid and keep what follows from it."""
        found = calibration(self.pixels, self.values[index])
        self.known[index] = found
        self.evaluations += 1
        first_of_equals = found.ece == self.ece and self.best is not None and index < self.best
        if found.ece < self.ece or first_of_equals:
            self.best, self.ece = index, found.ece
