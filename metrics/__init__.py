"""Metrics by name: consumers of the evaluation pass that keep sums of fixed size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from metrics.base import StreamingMetric
from metrics.bootstrap import Bootstrap
from metrics.calibration import Calibration
from metrics.image_ood import ImageOutOfDistribution
from metrics.ood import OutOfDistribution
from metrics.pavpu import PatchAccuracyVsUncertainty
from metrics.segmentation import NOTHING, SegmentationMetrics
from metrics.selective import Misclassification
from utils.types import Score

Metric = StreamingMetric | ImageOutOfDistribution

METRICS: dict[str, type[Metric]] = {
    "segmentation": SegmentationMetrics,
    "calibration": Calibration,
    "misclassification": Misclassification,
    "pavpu": PatchAccuracyVsUncertainty,
    "ood": OutOfDistribution,
    "image_ood": ImageOutOfDistribution,
}


@dataclass(frozen=True)
class MetricSettings:
    """What metrics can be told; each reads what concerns it.

    Attributes:
        scores: whose order of the pixels is judged.
        bins: of the calibration errors.
        calibrated: the score whose confidence is compared with accuracy; None: the top probability.
        parity: add the published variants of what is computed otherwise.
        patch: side of the patches of PAvPU, in pixels.
        unannotated: by data set, the classes that its labels never show.
        in_domain: (data set, condition) of the images that are no outliers.
        per_scene: report every scene, too.
        bootstrap: resampling of the images, for intervals.
    """

    scores: Sequence[Score] = ()
    bins: int = 15
    calibrated: Score | None = None
    parity: bool = False
    patch: int = 4
    unannotated: Mapping[str, Set[str]] = field(default_factory=lambda: NOTHING)
    in_domain: Collection[tuple[str, str]] = ()
    per_scene: bool = False
    bootstrap: Bootstrap | None = None


def build_metrics(
    names: Sequence[str], class_names: Sequence[str], settings: MetricSettings
) -> list[Metric]:
    """The metrics of these names; one that ranks by scores is made for each forward variant.

    Args:
        names: keys of ``METRICS``.
        class_names: names by train id.
        settings: what the metrics are told.
    """
    variants: dict[str | None, list[Score]] = {}
    for score in settings.scores:
        variants.setdefault(score.variant.name if score.variant else None, []).append(score)
    metrics: list[Metric] = []
    for name in names:
        if name in ("segmentation", "calibration"):
            metrics.append(_build(name, class_names, settings, ()))
        else:
            metrics += [_build(name, class_names, settings, mine) for mine in variants.values()]
    return metrics


def _build(
    name: str, class_names: Sequence[str], settings: MetricSettings, scores: Sequence[Score]
) -> Metric:
    """One metric, with the settings that concern it."""
    common: dict[str, Any] = {"per_scene": settings.per_scene, "bootstrap": settings.bootstrap}
    match name:
        case "segmentation":
            return SegmentationMetrics(class_names, unannotated=settings.unannotated, **common)
        case "calibration":
            return Calibration(
                class_names,
                bins=settings.bins,
                score=settings.calibrated,
                parity=settings.parity,
                **common,
            )
        case "misclassification":
            return Misclassification(class_names, scores, parity=settings.parity, **common)
        case "pavpu":
            return PatchAccuracyVsUncertainty(class_names, scores, patch=settings.patch, **common)
        case "ood":
            return OutOfDistribution(class_names, scores, **common)
        case _:
            return ImageOutOfDistribution(scores, settings.in_domain)
