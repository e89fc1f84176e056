"""Histograms of scores for the statistics of ranks, and the values themselves while they are few.

Every pixel has a score and a truth: 1 where the event is (an error, an unknown object), 0 where
it is not, anything else where the pixel does not count. Counts add up over batches, images and
processes in any order to the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.base import StreamingMetric, Sums
from metrics.bootstrap import Bootstrap
from utils.types import Score

BINS = 1 << 16
COARSE_BINS = 1 << 10  # what resampled images keep
EXACT_PIXELS = 1 << 18  # up to here the values themselves are kept
CHUNK = 1 << 19  # pixels; what a CPU's cache holds of scores, truth and codes
LARGEST_CODES = 1 << 24  # codes that float32 counts of histc cannot overrun
NEITHER = 2  # row of the pixels that do not count

# Unbounded scores are binned in arcsinh(SLOPE x): linear below 1 / SLOPE, logarithmic above, so
# that a bin is about 1e-3 of the score wide at every scale up to 3.9e10.
SLOPE = 1024.0
REACH = 32.0
GREATEST = math.sinh(REACH) / SLOPE


@dataclass(frozen=True)
class ScoreBins:
    """Bins of a score, whose order is that of the scores.

    Attributes:
        highest: the greatest value of a score that starts at 0, for uniform bins over
            [0, highest]; values beyond are counted in the bins at the ends. None for an unbounded
            score: uniform bins of arcsinh(1024 x) over [-32, 32].
    """

    highest: float | None

    def __post_init__(self) -> None:
        assert self.highest is None or self.highest > 0, "a bounded score has a range"

    def counts(self, scores: Tensor, truth: Tensor) -> Tensor:
        """How many pixels of each truth lie in each bin; scores that are not finite in none.

        Args:
            scores: floating point, any shape.
            truth: uint8, the same shape; only 0 and 1 count.

        Returns:
            (2, BINS), int64, row 0 for truth 0 and row 1 for truth 1, on the device of the
            scores and without waiting for it.
        """
        assert scores.shape == truth.shape, "every pixel has a score and a truth"
        flat, kinds = scores.detach().flatten(), truth.flatten()
        if flat.is_cuda:
            return self._counts_on_gpu(flat, kinds)
        counts = torch.zeros((NEITHER + 1) * BINS, dtype=torch.int64, device=flat.device)
        for part, kind in zip(flat.split(CHUNK), kinds.split(CHUNK), strict=True):
            if not math.isfinite(
                part.sum(dtype=torch.float32)
            ):  # one cheap read for the usual case
                part, kind = _without_non_finite(part, kind)
            counts += torch.bincount(self._codes(part, kind), minlength=len(counts))
        return counts.view(-1, BINS)[:NEITHER].clone()

    def _counts_on_gpu(self, scores: Tensor, truth: Tensor) -> Tensor:
        """``counts`` of flat tensors with histc: bincount would wait for the largest code."""
        rows = NEITHER + 1
        counts = torch.zeros(rows * BINS, dtype=torch.int64, device=scores.device)
        for part, kind in zip(scores.split(LARGEST_CODES), truth.split(LARGEST_CODES), strict=True):
            codes = self._codes(*_without_non_finite(part, kind)).float()
            counts += torch.histc(codes, rows * BINS, 0, rows * BINS).long()
        return counts.view(rows, BINS)[:NEITHER].clone()

    def _codes(self, scores: Tensor, truth: Tensor) -> Tensor:
        """Bin plus BINS times the row of each pixel, int32; the scores are finite."""
        if self.highest is None:
            places = scores.float().clamp(-GREATEST, GREATEST).mul_(SLOPE).asinh_()
            places = places.add_(REACH).mul_(BINS / (2 * REACH))
        else:
            places = scores.float() * (BINS / self.highest)
        rows = truth.clamp(max=NEITHER).int()
        return places.clamp_(0, BINS - 1).int().add_(rows, alpha=BINS)

    def levels(self, bins: int = BINS) -> NDArray[np.float64]:
        """The lower end of every bin, ascending: at least this score means this bin or higher."""
        steps = np.arange(bins) / bins
        if self.highest is None:
            return np.sinh((2 * steps - 1) * REACH) / SLOPE
        return steps * self.highest


@dataclass(frozen=True)
class ExactValues:
    """Scores and truth of at most EXACT_PIXELS pixels; nothing once there were more.

    All pixels are kept and counted, also those of neither truth, so that nothing has to wait for
    the device. Sums of such values hold the same pixels in whatever order they were added.

    Attributes:
        pixels: how many there were.
        parts: flat (scores float32, truth uint8), empty once there were too many.
    """

    pixels: int
    parts: tuple[tuple[Tensor, Tensor], ...]

    @classmethod
    def of(cls, scores: Tensor, truth: Tensor) -> ExactValues:
        """The values of one map of any shape, copied."""
        assert scores.shape == truth.shape, "every pixel has a score and a truth"
        if scores.numel() > EXACT_PIXELS:
            return cls(scores.numel(), ())
        values = scores.detach().float().flatten().clone(), truth.flatten().clone()
        return cls(scores.numel(), (values,))

    def __add__(self, other: ExactValues) -> ExactValues:
        pixels = self.pixels + other.pixels
        return ExactValues(pixels, self.parts + other.parts if pixels <= EXACT_PIXELS else ())

    def __getstate__(self) -> dict[str, Any]:
        """What other processes receive: their device need not be this one's."""
        parts = tuple((scores.cpu(), truth.cpu()) for scores, truth in self.parts)
        return {"pixels": self.pixels, "parts": parts}

    @property
    def complete(self) -> bool:
        """Whether every pixel is here."""
        return self.pixels <= EXACT_PIXELS

    def values(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Scores and truth of the pixels that count, in no particular order."""
        assert self.complete, "the values were dropped"
        if not self.parts:
            return np.zeros(0, np.float32), np.zeros(0, np.uint8)
        scores = torch.cat([scores.cpu() for scores, _ in self.parts]).numpy()
        truth = torch.cat([truth.cpu() for _, truth in self.parts]).numpy()
        known = truth < NEITHER
        return scores[known], truth[known]


def rank_sums(name: str, bins: ScoreBins, scores: Tensor, truth: Tensor) -> Sums:
    """What one map of scores adds for ``metrics.ranking.ranking``, without waiting for the device.

    Args:
        name: of the score, in front of the keys.
        bins: of the score.
        scores: floating point, any shape.
        truth: uint8, the same shape; only 0 and 1 count.

    Returns:
        ``NAME.counts`` (2, BINS) and ``NAME.pixels`` (1,), int64, the latter with the scores that
        are not finite, and ``NAME.exact``, an ``ExactValues``.
    """
    return {
        f"{name}.counts": bins.counts(scores, truth),
        f"{name}.pixels": _known_pixels(truth),
        f"{name}.exact": ExactValues.of(scores, truth),
    }


def resampled_rank_sums(sums: Sums) -> Sums:
    """The tensors of ``rank_sums`` with coarser counts, for replicates of resampled images."""
    kept = {key: value for key, value in sums.items() if isinstance(value, Tensor)}
    return {
        key: coarsen(value) if key.endswith(".counts") else value for key, value in kept.items()
    }


class RankedScores(StreamingMetric):
    """A metric that follows from the sums of ``rank_sums`` for scores of one forward variant.

    Args:
        class_names: names by train id.
        scores: of one forward variant.
        per_scene: also report every scene.
        bootstrap: resampling of the images.

    Attributes:
        scores: as given.
        bins: the bins of each score by its name.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        scores: Sequence[Score],
        *,
        per_scene: bool = False,
        bootstrap: Bootstrap | None = None,
    ) -> None:
        super().__init__(per_scene=per_scene, bootstrap=bootstrap)
        assert len({score.variant for score in scores}) == 1, "one metric for each variant"
        self.scores = tuple(scores)
        self.needs = frozenset[str]().union(*(score.needs for score in scores))
        self.variant = scores[0].variant
        self.bins = {
            score.name: ScoreBins(score.highest(len(class_names)) if score.highest else None)
            for score in scores
        }

    def resampled(self, sums: Sums) -> Sums:
        """Coarser counts; the values themselves are not kept for every resample."""
        return resampled_rank_sums(sums)


def coarsen(counts: Tensor, bins: int = COARSE_BINS) -> Tensor:
    """Counts (..., BINS) added up to (..., bins); ``bins`` divides BINS."""
    assert counts.shape[-1] % bins == 0, "neighbouring bins are joined"
    return counts.unflatten(-1, (bins, -1)).sum(-1)


def _known_pixels(truth: Tensor) -> Tensor:
    """How many pixels count, (1,) int64, on the device and without much memory."""
    parts = truth.flatten().split(LARGEST_CODES if truth.is_cuda else CHUNK)
    return torch.stack([(part < NEITHER).count_nonzero() for part in parts]).sum(0, keepdim=True)


def _without_non_finite(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """The same pixels with those left out of the count whose score is not finite."""
    finite = scores.isfinite()
    return torch.where(finite, scores, 0), torch.where(finite, truth, NEITHER)
