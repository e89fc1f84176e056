"""How well scores find the pixels of unknown objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from metrics.base import Sums
from metrics.binned import binned_counts, published_statistics
from metrics.bootstrap import Bootstrap
from metrics.histogram import RankedScores, rank_sums
from metrics.ranking import (
    Ranking,
    auroc,
    auroc_error_bound,
    average_precision,
    average_precision_error_bound,
    bars,
    best_f1,
    f1_error_bound,
    flipped,
    fpr_at_tpr,
    fpr_error_bound,
    percent,
    percents,
    precision_recall_curve,
    ranking,
    roc_curve,
)
from utils.kept import score_map
from utils.log import logger
from utils.types import Batch, Prediction, Score


class OutOfDistribution(RankedScores):
    """How well scores tell pixels of unknown objects (positives) from those of known classes.

    Reads ``batch["ood"]``. Under ``ood`` for each score: ``auroc``; ``aupr_out`` with unknown
    pixels as positives and ``aupr_in`` with known ones, by the negated score; ``fpr95``, the
    share of known pixels that are taken for unknown where 95 % of the unknown are found, and
    ``tpr95_threshold``, the highest threshold that finds so many; ``f1``, the best over all
    thresholds ("F1*"), and ``f1_threshold``. A threshold is the least score that is taken for
    unknown. Up to 2^18 pixels everything is exact; beyond, it follows from 2^16 bins of the
    score, and ``NAME_error_bound`` says how far NAME can be from its exact value. Rates, areas and
    bounds are in percent. A part with pixels of one kind only has None, with a line in the log.

    With parity also, for scores that have a published form, the numbers of the published code
    (``metrics.binned``) and how many ``pixels_outside`` [0, 1] it leaves out.

    Args:
        class_names: names by train id.
        scores: of one forward variant.
        parity: add the published numbers.
        per_scene: also report every scene.
        bootstrap: resampling of the images.
    """

    units: ClassVar[dict[str, str]] = {
        "pixels": "pixels",
        "ood_pixels": "pixels",
        "auroc": "percent",
        "auroc_error_bound": "percent",
        "aupr_out": "percent",
        "aupr_out_error_bound": "percent",
        "aupr_in": "percent",
        "aupr_in_error_bound": "percent",
        "fpr95": "percent",
        "fpr95_error_bound": "percent",
        "tpr95_threshold": "unit of the score",
        "f1": "percent",
        "f1_error_bound": "percent",
        "f1_threshold": "unit of the score",
        "roc": "percent",
        "pr": "percent",
        "histogram": "pixels by score",
        "auroc_original": "percent",
        "fpr95_original": "percent",
        "aupr_original": "percent",
        "pixels_outside": "pixels",
    }

    def __init__(
        self,
        class_names: Sequence[str],
        scores: Sequence[Score],
        *,
        parity: bool = False,
        per_scene: bool = False,
        bootstrap: Bootstrap | None = None,
    ) -> None:
        super().__init__(class_names, scores, per_scene=per_scene, bootstrap=bootstrap)
        self.parity = parity

    def sums_of(self, batch: Batch, prediction: Prediction) -> Sums:
        """Known and unknown pixels by score.

        Raises:
            ValueError: if the data has no map of unknown objects, naming the data set.
        """
        truth = unknown_map(batch, "ood")
        sums: Sums = {}
        for score in self.scores:
            values = score_map(score, prediction)
            sums |= rank_sums(score.name, self.bins[score.name], values, truth)
            if self.parity and score.published is not None:
                sums[f"{score.name}.binned"] = binned_counts(score.published(prediction), truth)
        return sums

    def finish(self, sums: Sums) -> dict[str, Any]:
        """The numbers of the class docstring.

        Raises:
            ValueError: if scores were not finite.
        """
        results = {}
        for name, bins in self.bins.items():
            results[name] = _summary(ranking(name, bins, sums), bins.highest)
            if f"{name}.binned" in sums:
                results[name] |= published_statistics(sums[f"{name}.binned"])
        return {"ood": results}

    def compute(self) -> dict[str, Any]:
        """The results; an empty dict when there was no image.

        Raises:
            ValueError: if all pixels together are of one kind, or scores were not finite.
        """
        results = super().compute()
        if results:
            _refuse_one_kind(results["total"])
            undefined = list(_undefined_parts(results))
            if undefined:
                logger.warning(
                    "ood is undefined where all pixels are known or all are unknown: %s",
                    ", ".join(undefined),
                )
        return results


def unknown_map(batch: Batch, metric: str) -> Tensor:
    """The map of unknown objects (N, H, W), uint8: 0 known, 1 unknown, 255 neither.

    Args:
        batch: of one data set.
        metric: who needs it, for the message.

    Raises:
        ValueError: if there is none, naming the data set.
    """
    if "ood" not in batch:
        name = (batch.get("dataset") or ["this data set"])[0]
        raise ValueError(
            f"{name} says of no pixel whether its object is unknown, which the metric {metric} "
            "needs; name the ids that count as unknown with --ood_classes, or evaluate a data set "
            "that has maps of unknown objects"
        )
    return batch["ood"]


def _refuse_one_kind(total: dict[str, Any]) -> None:
    """Raise when all pixels are of one kind.

    Raises:
        ValueError: saying which kind was missing.
    """
    for found in total["ood"].values():
        if found["auroc"] is None:
            unknown, pixels = found["ood_pixels"], found["pixels"]
            kind = "in-domain" if unknown == 0 else "out-of-distribution"
            raise ValueError(
                f"only {kind} pixels given: {pixels} pixels count, {unknown} of them unknown; the "
                "metric ood needs both kinds: name ids that occur in these images with "
                "--ood_classes, or add images that hold the other kind with --eval_on"
            )


def _undefined_parts(results: dict[str, Any]) -> Iterator[str]:
    """Names of the data sets, conditions and scenes with pixels of one kind only."""
    for field, parts in results.items():
        if field != "total":
            for name, part in parts.items():
                if any(found["auroc"] is None for found in part["ood"].values()):
                    yield f"{field} {name}"


def _summary(ranked: Ranking, highest: float | None) -> dict[str, Any]:
    """All results of one score."""
    known = flipped(ranked)
    f1, threshold = best_f1(ranked)
    fractions = {
        "auroc": auroc(ranked),
        "auroc_error_bound": auroc_error_bound(ranked),
        "aupr_out": average_precision(ranked),
        "aupr_out_error_bound": average_precision_error_bound(ranked),
        "aupr_in": average_precision(known),
        "aupr_in_error_bound": average_precision_error_bound(known),
        "fpr95": fpr_at_tpr(ranked, 0.95),
        "fpr95_error_bound": fpr_error_bound(ranked, 0.95),
        "f1": f1,
        "f1_error_bound": f1_error_bound(ranked),
    }
    edges, known_bars, unknown_bars = bars(ranked, highest)
    return {
        "pixels": int(ranked.negatives.sum() + ranked.positives.sum()),
        "ood_pixels": int(ranked.positives.sum()),
        **{name: percent(value) for name, value in fractions.items()},
        "tpr95_threshold": _threshold_at_tpr(ranked, 0.95),
        "f1_threshold": threshold,
        "roc": percents(roc_curve(ranked)),
        "pr": percents(precision_recall_curve(ranked)),
        "histogram": {"edges": edges, "in": known_bars, "out": unknown_bars},
    }


def _threshold_at_tpr(ranked: Ranking, tpr: float) -> float | None:
    """The highest level at which this share of the positives is found."""
    if not ranked.defined:
        return None
    found = np.cumsum(ranked.positives[::-1])
    return float(ranked.levels[::-1][np.argmax(found / found[-1] >= tpr)])
