"""Patch accuracy against patch uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from metrics.base import Sums
from metrics.bootstrap import Bootstrap
from metrics.histogram import RankedScores, rank_sums
from metrics.ranking import Ranking, ranking
from metrics.selective import error_map
from utils.kept import score_map
from utils.types import IGNORE_INDEX, Batch, Prediction, Score

STEPS = 20  # thresholds of the curve, from the lowest uncertainty to the highest

Array = NDArray[np.float64]


class PatchAccuracy(NamedTuple):
    """What the labels say about patches, each (N, H // patch, W // patch)."""

    pixels: Tensor  # float32, how many are labelled
    inaccurate: Tensor  # uint8: 0 accurate, 1 inaccurate, 255 without a labelled pixel


class Certainty(NamedTuple):
    """What follows from one uncertainty threshold, as fractions; None where undefined."""

    accurate_given_certain: float | None
    uncertain_given_inaccurate: float | None
    pavpu: float | None


def patch_accuracy(errors: Tensor, size: int, threshold: float) -> PatchAccuracy:
    """Which patches are accurate: more than a share of their labelled pixels are right.

    Rows and columns at the bottom and right that do not fill a patch are left out.

    Args:
        errors: (N, H, W) uint8: 0 right, 1 wrong, 255 void.
        size: rows and columns of a patch, at most H and W.
        threshold: share of right pixels, in [0, 1).
    """
    pixels = _patch_sums((errors != IGNORE_INDEX).float(), size)
    right = _patch_sums((errors == 0).float(), size)
    inaccurate = (right / pixels.clamp(min=1)).le(threshold).byte()
    return PatchAccuracy(pixels, inaccurate.masked_fill_(pixels == 0, IGNORE_INDEX))


def patch_uncertainty(scores: Tensor, errors: Tensor, pixels: Tensor, size: int) -> Tensor:
    """The mean score over the labelled pixels of each patch, 0 where there is none.

    Args:
        scores: (N, H, W) float32, whatever they are on void pixels.
        errors: (N, H, W) uint8, 255 where void.
        pixels: (N, H // size, W // size), how many are labelled.
        size: rows and columns of a patch.
    """
    known = scores.masked_fill(errors == IGNORE_INDEX, 0.0)  # a product would keep nan
    return _patch_sums(known, size) / pixels.clamp(min=1)


def _patch_sums(maps: Tensor, size: int) -> Tensor:
    """Sums over patches of (N, H, W), float32."""
    return F.avg_pool2d(maps[:, None], size, divisor_override=1)[:, 0]


def certainty(ranked: Ranking, threshold: float) -> Certainty:
    """Compare accuracy and certainty of patches at one threshold.

    A patch is uncertain where its uncertainty is above the threshold. PAvPU is the share of the
    patches that are accurate and certain or inaccurate and uncertain.

    Args:
        ranked: patches by uncertainty; positives are inaccurate.
        threshold: in the unit of the score.
    """
    below = ranked.levels <= threshold
    inaccurate, accurate = int(ranked.positives.sum()), int(ranked.negatives.sum())
    accurate_certain = int(ranked.negatives[below].sum())
    inaccurate_certain = int(ranked.positives[below].sum())
    inaccurate_uncertain = inaccurate - inaccurate_certain
    return Certainty(
        _share(accurate_certain, accurate_certain + inaccurate_certain),
        _share(inaccurate_uncertain, inaccurate),
        _share(accurate_certain + inaccurate_uncertain, accurate + inaccurate),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def upper_ends(ranked: Ranking, every_level: Array) -> Array:
    """The ends of the bins that a ranking's levels begin; the levels themselves where exact.

    Args:
        ranked: its levels are (L,) of the next.
        every_level: the lower ends of all bins, ascending; the last is as wide as that before.
    """
    if ranked.exact:
        return ranked.levels
    following = np.searchsorted(every_level, ranked.levels, side="right")
    return np.append(every_level, 2 * every_level[-1] - every_level[-2])[following]


class PatchAccuracyVsUncertainty(RankedScores):
    """Whether inaccurate patches are uncertain and certain ones accurate.

    Mukhoti and Gal 2018, "Evaluating Bayesian deep learning methods for semantic segmentation":
    images are cut into patches of ``patch`` x ``patch`` pixels (those that the bottom or right
    border cuts off are left out). A patch is accurate where its accuracy is above
    ``accuracy_threshold`` and uncertain where its mean score is above the uncertainty threshold,
    both strictly; public implementations differ at equality. Void pixels do not count, nor do
    patches of nothing else.

    Under ``pavpu`` for each score: p(accurate|certain), p(uncertain|inaccurate) and PAvPU, the
    share of patches that are accurate and certain or inaccurate and uncertain, at the mean
    uncertainty of all patches, and as ``curve`` at u_min + t (u_max - u_min), t = 0.05 .. 1.
    Up to 2^18 patches everything is exact; beyond, it follows from 2^16 bins of the uncertainty,
    and ``pavpu_error_bound`` is the share of patches that may be on the other side of the mean.
    In percent, thresholds in the unit of the score; what is undefined is None.

    Args:
        class_names: names by train id.
        scores: of one forward variant.
        patch: rows and columns of a patch.
        accuracy_threshold: in [0, 1).
        per_scene: also report every scene.
        bootstrap: resampling of the images.

    Raises:
        ValueError: for a patch or accuracy threshold out of range.
    """

    units: ClassVar[dict[str, str]] = {
        "patches": "patches",
        "threshold": "unit of the score",
        "accurate_given_certain": "percent",
        "uncertain_given_inaccurate": "percent",
        "pavpu": "percent",
        "pavpu_error_bound": "percent",
        "curve": "percent by threshold in the unit of the score",
    }

    def __init__(
        self,
        class_names: Sequence[str],
        scores: Sequence[Score],
        *,
        patch: int = 4,
        accuracy_threshold: float = 0.5,
        per_scene: bool = False,
        bootstrap: Bootstrap | None = None,
    ) -> None:
        super().__init__(class_names, scores, per_scene=per_scene, bootstrap=bootstrap)
        if patch < 1:
            raise ValueError(f"patch {patch} has no pixels; it must be at least 1 pixel wide")
        if not 0 <= accuracy_threshold < 1:
            raise ValueError(
                f"accuracy threshold {accuracy_threshold} is out of range; it must be at least 0 "
                "and below 1"
            )
        self.patch = patch
        self.accuracy_threshold = accuracy_threshold

    def sums_of(self, batch: Batch, prediction: Prediction) -> Sums:
        """Accurate and inaccurate patches by uncertainty.

        Raises:
            ValueError: if no patch fits into the images, naming the first.
        """
        labels = batch["label"]
        height, width = labels.shape[1:]
        if self.patch > min(height, width):
            raise ValueError(
                f"{batch['id'][0]}: patches of {self.patch}x{self.patch} pixels do not fit into "
                f"{height}x{width} (height x width); choose a smaller patch"
            )
        errors = error_map(prediction, labels)
        pixels, inaccurate = patch_accuracy(errors, self.patch, self.accuracy_threshold)
        sums: Sums = {}
        for score in self.scores:
            values = score_map(score, prediction)
            uncertainty = patch_uncertainty(values, errors, pixels, self.patch)
            sums |= rank_sums(score.name, self.bins[score.name], uncertainty, inaccurate)
        return sums

    def finish(self, sums: Sums) -> dict[str, Any]:
        """The numbers of the class docstring.

        Raises:
            ValueError: if scores were not finite.
        """
        results = {}
        for name, bins in self.bins.items():
            ranked = ranking(name, bins, sums)
            every_level = bins.levels(cast(Tensor, sums[f"{name}.counts"]).shape[-1])
            results[name] = _summary(ranked, upper_ends(ranked, every_level))
        return {"pavpu": results}


def _summary(ranked: Ranking, ends: Array) -> dict[str, Any]:
    """All results of one score, whose values lie between the levels and the ends."""
    counts = ranked.negatives + ranked.positives
    patches = int(counts.sum())
    if not patches:
        empty = Certainty(None, None, None)._asdict()
        curve: dict[str, list[float | None]] = {name: [] for name in ("threshold", *empty)}
        return {"patches": 0, "threshold": None, **empty, "pavpu_error_bound": None, "curve": curve}
    low, high = (float(each @ counts / patches) for each in (ranked.levels, ends))
    mean = (low + high) / 2
    undecided = counts[(ranked.levels <= high) & (ends >= low)].sum()
    thresholds = np.linspace(ranked.levels[0], ranked.levels[-1], STEPS + 1)[1:].tolist()
    points = [_percents(certainty(ranked, threshold)) for threshold in thresholds]
    return {
        "patches": patches,
        "threshold": mean,
        **_percents(certainty(ranked, mean)),
        "pavpu_error_bound": 0.0 if ranked.exact else float(100 * undecided / patches),
        "curve": {"threshold": thresholds}
        | {name: [point[name] for point in points] for name in Certainty._fields},
    }


def _percents(shares: Certainty) -> dict[str, float | None]:
    return {
        name: None if share is None else 100 * share for name, share in shares._asdict().items()
    }
