"""How well scores find the pixels of unknown objects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import Tensor

from metrics.base import Sums
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
from utils.types import Batch, Prediction


class OutOfDistribution(RankedScores):
    """How well scores tell pixels of unknown objects (positives) from those of known classes.

    Reads ``batch["ood"]``. Under ``ood`` for each score: ``auroc``; ``aupr_out`` with unknown
    pixels as positives and ``aupr_in`` with known ones, by the negated score; ``fpr95``, the
    share of known pixels that are taken for unknown where 95 % of the unknown are found; ``f1``,
    the best over all thresholds ("F1*"), and ``f1_threshold``, the least score that it takes for
    unknown. Up to 2^18 pixels everything is exact; beyond, it follows from 2^16 bins of the
    score, and ``NAME_error_bound`` says how far NAME can be from its exact value. Rates, areas and
    bounds are in percent. A part with pixels of one kind only has None, with a line in the log.
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
        "f1": "percent",
        "f1_error_bound": "percent",
        "f1_threshold": "unit of the score",
        "roc": "percent",
        "pr": "percent",
        "histogram": "pixels by score",
    }

    def sums_of(self, batch: Batch, prediction: Prediction) -> Sums:
        """Known and unknown pixels by score.

        Raises:
            ValueError: if the data has no map of unknown objects, naming the data set.
        """
        truth = _truth(batch)
        sums: Sums = {}
        for score in self.scores:
            values = score_map(score, prediction)
            sums |= rank_sums(score.name, self.bins[score.name], values, truth)
        return sums

    def finish(self, sums: Sums) -> dict[str, Any]:
        """The numbers of the class docstring.

        Raises:
            ValueError: if scores were not finite.
        """
        results = {
            name: _summary(ranking(name, bins, sums), bins.highest)
            for name, bins in self.bins.items()
        }
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


def _truth(batch: Batch) -> Tensor:
    """The map of unknown objects (N, H, W): 0 known, 1 unknown, 255 neither.

    Raises:
        ValueError: if there is none, naming the data set.
    """
    if "ood" not in batch:
        name = (batch.get("dataset") or ["this data set"])[0]
        raise ValueError(
            f"{name} says of no pixel whether its object is unknown, which the metric ood needs; "
            "name the ids that count as unknown with --ood_classes, or evaluate a data set that "
            "has maps of unknown objects"
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
        "f1_threshold": threshold,
        "roc": percents(roc_curve(ranked)),
        "pr": percents(precision_recall_curve(ranked)),
        "histogram": {"edges": edges, "in": known_bars, "out": unknown_bars},
    }
