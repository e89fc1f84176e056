"""Metrics by name: consumers of the evaluation pass that keep sums of fixed size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from metrics.base import StreamingMetric
from metrics.bootstrap import Bootstrap
from metrics.calibration import Calibration
from metrics.components import Components
from metrics.flagged import FlaggedPixels
from metrics.image_ood import ImageOutOfDistribution
from metrics.meta_classification import MetaClassification
from metrics.ood import OutOfDistribution
from metrics.pavpu import PatchAccuracyVsUncertainty
from metrics.segmentation import NO_SUBSETS, NOTHING, SegmentationMetrics
from metrics.selective import Misclassification
from utils.types import Score
from utils.variants import by_variant

Metric = StreamingMetric | ImageOutOfDistribution | MetaClassification

METRICS: dict[str, type[Metric]] = {
    "segmentation": SegmentationMetrics,
    "calibration": Calibration,
    "misclassification": Misclassification,
    "pavpu": PatchAccuracyVsUncertainty,
    "flagged": FlaggedPixels,
    "ood": OutOfDistribution,
    "components": Components,
    "meta_classification": MetaClassification,
    "image_ood": ImageOutOfDistribution,
}

WITHOUT_SCORES = ("segmentation", "calibration", "meta_classification")
OF_UNKNOWN = ("ood", "components", "image_ood")  # judge the scores of --ood_score
OF_BOUNDED = ("flagged",)  # judge scores that have a greatest value, and leave the others out


@dataclass(frozen=True)
class MetricSettings:
    """What metrics can be told; each reads what concerns it.

    Attributes:
        scores: whose order of right and wrong pixels is judged.
        ood_scores: whose order of known and unknown pixels is judged.
        thresholds: by the name of such a score, above which components are looked for.
        component_sizes: fewest pixels of a predicted and of a true component.
        meta_threshold: of normalised entropy, from which on a pixel is in a segment.
        bins: of the calibration errors.
        calibrated: the score whose confidence is compared with accuracy; None: the top probability.
        parity: add the published variants of what is computed otherwise.
        patch: side of the patches of PAvPU, in pixels.
        flag_threshold: how far from its greatest value a score flags a pixel, as a share of it.
        unannotated: by data set, the classes that its labels never show.
        subsets: train ids of the classes of further mIoUs, by name.
        in_domain: (data set, condition) of the images that are no outliers.
        per_scene: report every scene, too.
        bootstrap: resampling of the images, for intervals.
    """

    scores: Sequence[Score] = ()
    ood_scores: Sequence[Score] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    component_sizes: tuple[int, int] = (0, 0)
    meta_threshold: float = 0.7
    bins: int = 15
    calibrated: Score | None = None
    parity: bool = False
    patch: int = 4
    flag_threshold: float = 0.05
    unannotated: Mapping[str, Set[str]] = field(default_factory=lambda: NOTHING)
    subsets: Mapping[str, Sequence[int]] = field(default_factory=lambda: NO_SUBSETS)
    in_domain: Collection[tuple[str, str]] = ()
    per_scene: bool = False
    bootstrap: Bootstrap | None = None

    def with_thresholds(self, thresholds: Mapping[str, float]) -> MetricSettings:
        """The same with thresholds."""
        return replace(self, thresholds=thresholds)


def build_metrics(
    names: Sequence[str], class_names: Sequence[str], settings: MetricSettings
) -> list[Metric]:
    """The metrics of these names; one that ranks by scores is made for each forward variant.

    Args:
        names: keys of ``METRICS``.
        class_names: names by train id.
        settings: what the metrics are told.
    """
    metrics: list[Metric] = []
    for name in names:
        if name in WITHOUT_SCORES:
            metrics.append(_build(name, class_names, settings, ()))
            continue
        scores = settings.ood_scores if name in OF_UNKNOWN else settings.scores
        if name in OF_BOUNDED:
            scores = [score for score in scores if score.highest]
        metrics += [_build(name, class_names, settings, mine) for mine in by_variant(scores)]
    return metrics


def _build(
    name: str, class_names: Sequence[str], settings: MetricSettings, scores: Sequence[Score]
) -> Metric:
    """One metric, with the settings that concern it."""
    predicted, true = settings.component_sizes
    own: dict[str, dict[str, Any]] = {
        "segmentation": {"unannotated": settings.unannotated, "subsets": settings.subsets},
        "calibration": {
            "bins": settings.bins,
            "score": settings.calibrated,
            "parity": settings.parity,
        },
        "misclassification": {"scores": scores, "parity": settings.parity},
        "pavpu": {"scores": scores, "patch": settings.patch},
        "flagged": {"scores": scores, "threshold": settings.flag_threshold},
        "ood": {"scores": scores, "parity": settings.parity},
        "components": {
            "scores": scores,
            "thresholds": settings.thresholds,
            "smallest_prediction": predicted,
            "smallest_truth": true,
        },
    }
    if name == "image_ood":
        return ImageOutOfDistribution(scores, settings.in_domain)
    if name == "meta_classification":
        return MetaClassification(class_names, threshold=settings.meta_threshold)
    kind: Any = METRICS[name]
    metric: Metric = kind(
        class_names, **own[name], per_scene=settings.per_scene, bootstrap=settings.bootstrap
    )
    return metric
