"""Calibration errors from bins of the confidence: equal width, equal mass and KS.

In every formula x is the confidence of a pixel, a is 1 where the pixel is right and else 0, and N
is the number of pixels. The results are fractions, None over no pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

WIDE = 1 << 10  # about so many wide bins, of which all but the last are cut into FINE bins
FINE = 48  # with it all bins together stay below 2^16
ULPS = 1 << 24  # float32 resolves [1/2, 1] in steps of 1 / ULPS
COARSE_STEPS = 1 << 8
COARSE_PER_OCTAVE = 32


class Layout(NamedTuple):
    """Limits of neighbouring bins (lower, upper] over [0, 1].

    Attributes:
        lower, upper: (B,); where they are equal the bin holds this one value.
        starts: (M,), the first bin of each of the M bins of equal width.
    """

    lower: Floats
    upper: Floats
    starts: NDArray[np.int64]


@dataclass(frozen=True)
class ConfidenceBins:
    """Bins of float32 confidences in [0, 1] that resolve the end where networks are sure.

    Bin 0 holds the confidence 0 alone. Then come bins of equal width, open below and closed
    above. The last about 0.1 % below 1 have a bin for every float32 number, so that saturated
    confidences are told apart wherever float32 does. All limits are exact: the M bins of equal
    width (j / M, (j + 1) / M] are runs of these bins.

    Attributes:
        number: M, from 1 to ``WIDE``.
    """

    number: int = 15

    @property
    def wide(self) -> int:
        """Wide bins, a multiple of M."""
        return self.number * (WIDE // self.number)

    @property
    def even(self) -> int:
        """Bins of equal width below the last wide bin."""
        return (self.wide - 1) * FINE

    @property
    def size(self) -> int:
        """All bins, B."""
        return 1 + self.even + -(-ULPS // self.wide)

    def codes(self, confidence: Tensor) -> Tensor:
        """The bin of each confidence in [0, 1], float32 of any shape, as int64."""
        exact = confidence.double()  # 24 bits times 16 bits: the products are exact
        even = (exact * (self.wide * FINE)).ceil_().clamp_(max=self.even)
        near_one = exact.sub_(1).mul_(ULPS).add_(self.size - 1)  # below the others further down
        return torch.maximum(even, near_one, out=even).long()

    @cached_property
    def layout(self) -> Layout:
        """The limits of all bins."""
        steps = np.arange(self.even + 1) / (self.wide * FINE)
        values = 1 - np.arange(self.size - 1 - self.even)[::-1] / ULPS
        starts = 1 + np.arange(self.number) * (self.wide // self.number * FINE)
        return Layout(
            np.concatenate([[0], steps[:-1], values]), np.concatenate([steps, values]), starts
        )

    @cached_property
    def coarse_starts(self) -> NDArray[np.int64]:
        """The first of the bins that each of about 2^10 coarse bins joins, ascending.

        Coarse bins are short near 1, too: equally so in the logarithm of 1 - x.
        """
        octaves = np.arange(0, np.log2(ULPS), 1 / COARSE_PER_OCTAVE)
        limits = np.concatenate([np.linspace(0, 1, COARSE_STEPS + 1)[:-1], 1 - 2.0**-octaves])
        starts = 1 + self.codes(torch.from_numpy(limits).float()).numpy()
        return np.unique(np.concatenate([[0, self.size - 1], self.layout.starts, starts]))

    @cached_property
    def coarse_layout(self) -> Layout:
        """The limits of the coarse bins."""
        lower, upper, starts = self.layout
        first = self.coarse_starts
        last = np.append(first[1:], self.size) - 1
        return Layout(lower[first], upper[last], np.searchsorted(first, starts))

    def coarsen(self, values: Tensor) -> Tensor:
        """Join the bins of values (..., B) to the coarse ones."""
        joined = values.new_zeros(*values.shape[:-1], len(self.coarse_starts))
        return joined.index_add_(-1, _coarse_bins(self, values.device), values)

    def layout_of(self, size: int) -> Layout:
        """The layout that has so many bins."""
        if size == self.size:
            return self.layout
        assert size == len(self.coarse_starts), "bins are all there or coarsened"
        return self.coarse_layout


@cache  # made anew for every image it would wait for the device each time
def _coarse_bins(bins: ConfidenceBins, device: torch.device) -> Tensor:
    """The coarse bin that each bin goes into, (B,) int64."""
    starting = torch.zeros(bins.size, dtype=torch.int64)
    starting[torch.from_numpy(bins.coarse_starts[1:])] = 1
    return starting.cumsum(0).to(device)


@dataclass(frozen=True)
class Reliability:
    """Pixels and their confidence in M bins of equal width; confidence 0 is in none.

    Attributes:
        pixels: of all bins and those of confidence 0.
        count, confidence, right: (M,), pixels, sum of their confidences, right ones.
    """

    pixels: int
    count: Counts
    confidence: Floats
    right: Counts

    @cached_property
    def gaps(self) -> Floats:
        """|sum x - sum a| of each bin."""
        return np.abs(self.confidence - self.right)

    def ece(self) -> float | None:
        """Expected calibration error, the sum of the gaps over N (Guo et al. 2017, Eq. 3)."""
        return float(self.gaps.sum() / self.pixels) if self.pixels else None

    def mce(self) -> float | None:
        """Maximum calibration error, the greatest |mean x - mean a| of a bin (there, Eq. 5)."""
        seen = self.count > 0
        return float((self.gaps[seen] / self.count[seen]).max()) if seen.any() else None


def reliability(counts: Counts, sums: Floats, layout: Layout) -> Reliability:
    """The bins of equal width.

    Args:
        counts: (2, B), wrong and right pixels of each bin.
        sums: (B,), the sum of their confidences.
        layout: of the bins.
    """
    joined = np.add.reduceat(counts, layout.starts, axis=1)
    confidence = np.add.reduceat(sums, layout.starts)
    return Reliability(int(counts.sum()), joined.sum(0), confidence, joined[1])


class Estimate(NamedTuple):
    """A number from bins, and by how much the value from sorted pixels can differ at most."""

    value: float
    error_bound: float


class GapPath:
    """The sum of x - a over the pixels of ascending confidence, at the limits of the bins.

    Pixels of equal confidence enter together, so that their order plays no part. Between two
    limits the path is known within bounds: wrong pixels raise it by x each, right ones lower it
    by 1 - x.

    Args:
        counts, sums, layout: as ``reliability`` takes them; at least one pixel.
    """

    def __init__(self, counts: Counts, sums: Floats, layout: Layout) -> None:
        seen = counts.any(axis=0)
        wrong, right = counts[:, seen]
        lower, upper, confidence = layout.lower[seen], layout.upper[seen], sums[seen]
        self.count = wrong + right
        self.after = np.cumsum(confidence - right)
        self.before = np.append(0.0, self.after[:-1])
        self.together = (lower == upper) | (self.count == 1)
        rise = np.minimum(wrong * upper, confidence)
        fall = np.minimum(right * (1 - lower), self.count - confidence)
        ends = np.stack([self.before, self.after])
        highest = np.minimum(self.before + rise, self.after + fall)
        lowest = np.maximum(self.before - fall, self.after - rise)
        self.highest = np.where(self.together, ends.max(0), np.maximum(highest, ends.max(0)))
        self.lowest = np.where(self.together, ends.min(0), np.minimum(lowest, ends.min(0)))

    def ks(self) -> Estimate:
        """Kolmogorov-Smirnov error, max_k |sum_{i <= k} (x_i - a_i)| / N (Gupta et al. 2021).

        The value is the maximum over the limits of bins, which the true one never falls below.
        """
        pixels = self.count.sum()
        value = np.abs(self.after).max()
        most = max(self.highest.max(), -self.lowest.min())
        return Estimate(float(value / pixels), float((most - value) / pixels))

    def equal_mass(self, number: int, *, original: bool = False) -> Estimate:
        """Expected calibration error over bins of (nearly) equal numbers of pixels.

        The j-th limit is the sorted confidence, linearly interpolated, at position
        j (N - 1) / M of 0 .. N - 1; a bin is closed above, the first one below, too. Pixels of one
        of our bins are taken to be equal, and all equal ones go into the bin that ends with them.

        Args:
            number: of bins, M.
            original: as published: the positions are j N / M, cut at N - 1, and the first bin is
                open below, so that the pixels of the lowest confidence are in no bin.
        """
        pixels = int(self.count.sum())
        span = pixels if original else pixels - 1
        below = np.minimum(np.arange(number + 1) * span // number + 1, pixels)
        reached = np.cumsum(self.count)
        index = np.searchsorted(reached, below)
        at = self.after[index]
        off = np.maximum(self.highest[index] - at, at - self.lowest[index])
        off[self.together[index] | (below == reached[index])] = 0
        if not original:
            at[0] = off[0] = 0
        bound = off[:-1].sum() + off[1:].sum()
        return Estimate(float(np.abs(np.diff(at)).sum() / pixels), float(bound / pixels))


def classwise_ece(sums: Floats, hits: Counts, pixels: int) -> Floats:
    """Expected calibration error of each class's probability (Nixon et al. 2019, equal width).

    Args:
        sums: (C, M), sum of the class's probabilities in each bin.
        hits: (C, M), pixels of the class in each bin.
        pixels: N, at least 1.

    Returns:
        (C,), sum_j |sum p_c - hits| / N.
    """
    return np.abs(sums - hits).sum(axis=1) / pixels
