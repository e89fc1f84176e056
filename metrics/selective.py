"""How well scores tell wrong pixels from right ones: rejection, risk and coverage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import digamma
from torch import Tensor

from metrics import ranking
from metrics.base import Sums
from metrics.bootstrap import Bootstrap
from metrics.histogram import RankedScores, rank_sums
from metrics.ranking import Ranking
from utils.kept import score_map
from utils.softmax import most_likely
from utils.types import IGNORE_INDEX, Batch, Prediction, Score

Array = NDArray[np.float64]

COVERAGES = (50, 80, 90, 95)  # percent
VOID_AS_ERRORS = " with void as errors"


class Acceptance(NamedTuple):
    """Groups of tied pixels in the order in which they are accepted; each (G,) float64."""

    pixels: Array
    errors: Array
    accepted: Array  # pixels before the group
    mistakes: Array  # errors before the group


class RiskCoverage(NamedTuple):
    """Points of the risk-coverage curve, in [0, 1]."""

    coverage: list[float]  # share of the pixels, the most certain first
    risk: list[float]  # share of errors among them
    bound: list[float]  # how far the risk can be from that by the scores themselves


def acceptance(ranked: Ranking) -> Acceptance:
    """The tie groups that hold pixels, by rising score; positives are errors."""
    pixels = (ranked.negatives + ranked.positives).astype(np.float64)
    errors = ranked.positives.astype(np.float64)
    some = pixels > 0
    pixels, errors = pixels[some], errors[some]
    return Acceptance(pixels, errors, pixels.cumsum() - pixels, errors.cumsum() - errors)


def prr(ranked: Ranking) -> float | None:
    """Prediction rejection ratio, 2 AUROC - 1 in [-1, 1]; None without errors or without hits.

    The area between random rejection and rejection by score, divided by that between random
    rejection and an oracle (Malinin et al. 2020), in the limit of many pixels and exactly with
    tie-averaged ranks. 1: all errors have the highest scores; 0: chance.
    """
    area = ranking.auroc(ranked)
    return None if area is None else 2 * area - 1


def prr_error_bound(ranked: Ranking) -> float | None:
    """At most how far ``prr`` is from that of the scores themselves."""
    bound = ranking.auroc_error_bound(ranked)
    return None if bound is None else 2 * bound


def prr_original(ranked: Ranking) -> float | None:
    """The prediction rejection ratio as the reliability study published it.

    With E_k the errors among the k most certain of N pixels divided by N, and e = E_N: areas by
    the trapezoid rule over x_i = i / N of U_i = E_(N+1-i), of the random line
    R_i = e (1 - (i-1) / N) and of the oracle O_i = e (1 - (i-1) / (e N / 100)), 0 from
    i - 1 = floor(e N / 100) on; the ratio is (A_R - A_U) / (A_R - A_O). The 100 is a mistake of
    the publication, by which a perfect ranking reaches only (1 - e) / (1 - e / 100).

    Args:
        ranked: its positives are errors and, as published, all void pixels.

    Returns:
        The ratio, ties averaged (published: in any order); None for no error or a single pixel.
    """
    groups = acceptance(ranked)
    total, errors = groups.pixels.sum(), groups.errors.sum()
    if errors == 0 or total < 2:
        return None
    rate = errors / total
    within = groups.pixels * groups.mistakes + groups.errors * (groups.pixels + 1) / 2
    first = groups.errors[0] / groups.pixels[0]
    by_score = (within.sum() - (first + errors) / 2) / total**2
    by_chance = rate * (total**2 - 1) / (2 * total**2)
    length = errors / 100
    steps = np.floor(length)
    oracle = max(steps - steps * (steps - 1) / (2 * length) - 0.5, 0) * rate / total
    return float((by_chance - by_score) / (by_chance - oracle))


def aurc(ranked: Ranking) -> float | None:
    """Area under the risk-coverage curve, in [0, 1]; lower is better, None without pixels.

    (1/N) sum_k (errors among the k most certain) / k (Geifman and El-Yaniv 2017, "Selective
    classification for deep neural networks"), where within a tie group the errors are the
    expectation over all orders: with M pixels and E errors before a group of n pixels and e
    errors, and harmonic numbers H, the group adds e + (E - e M / n) (H(M + n) - H(M)).
    """
    pixels, errors, accepted, mistakes = acceptance(ranked)
    if not pixels.size:
        return None
    return float(_risks(accepted, mistakes, pixels, errors / pixels).sum() / pixels.sum())


def aurc_error_bound(ranked: Ranking) -> float | None:
    """How far ``aurc`` can be from the area over the scores themselves, 0 where it is exact.

    The order within a bin is unknown: the bound is reached where every bin has its errors first,
    or every bin has them last.
    """
    if ranked.exact:
        return 0.0
    pixels, errors, accepted, mistakes = acceptance(ranked)
    if not pixels.size:
        return None
    hits = pixels - errors
    averaged = _risks(accepted, mistakes, pixels, errors / pixels)
    errors_first = _risks(accepted, mistakes, errors, 1.0)
    errors_first += _risks(accepted + errors, mistakes + errors, hits, 0.0)
    errors_last = _risks(accepted, mistakes, hits, 0.0)
    errors_last += _risks(accepted + hits, mistakes, errors, 1.0)
    most = max((errors_first - averaged).sum(), (averaged - errors_last).sum(), 0.0)
    return float(most / pixels.sum())


def _risks(accepted: Array, mistakes: Array, pixels: Array, rate: Array | float) -> Array:
    """Sum of the risks while pixels of one error rate are accepted after the others."""
    harmonic = digamma(accepted + pixels + 1) - digamma(accepted + 1)
    return rate * pixels + (mistakes - rate * accepted) * harmonic


def augrc(ranked: Ranking) -> float | None:
    """Area under the generalized risk-coverage curve, in [0, 1/2]; None without pixels.

    The generalized risk is (errors among the accepted) / N; its curve over the coverage from 0
    to 1 is straight within a tie group (Traub et al. 2024, "Overcoming common flaws in the
    evaluation of selective classification systems"). Equal to
    (1 - AUROC) a (1 - a) + (1 - a)^2 / 2 with the accuracy a.
    """
    groups = acceptance(ranked)
    if not groups.pixels.size:
        return None
    total = groups.pixels.sum()
    return float((groups.pixels * (groups.mistakes + groups.errors / 2)).sum() / total**2)


def augrc_error_bound(ranked: Ranking) -> float | None:
    """At most how far ``augrc`` is from that of the scores: half the pairs within bins / N^2."""
    groups = acceptance(ranked)
    if not groups.pixels.size:
        return None
    pairs = groups.errors * (groups.pixels - groups.errors)
    return 0.0 if ranked.exact else float(pairs.sum() / (2 * groups.pixels.sum() ** 2))


def risk_coverage_curve(ranked: Ranking, coverages: Sequence[int] = range(1, 101)) -> RiskCoverage:
    """The share of errors among the most certain pixels, ties averaged.

    Args:
        ranked: its positives are errors.
        coverages: percent of the pixels to accept: the fewest pixels that are as many.

    Returns:
        One point for each coverage, none without pixels.
    """
    pixels, errors, accepted, mistakes = acceptance(ranked)
    if not pixels.size:
        return RiskCoverage([], [], [])
    total = int(pixels.sum())
    wanted = np.array([-(-total * percent // 100) for percent in coverages], np.float64)
    last = np.searchsorted(accepted + pixels, wanted)  # the group that is accepted in part
    rate = errors[last] / pixels[last]
    risk = (mistakes[last] + (wanted - accepted[last]) * rate) / wanted
    # a part of a group has most errors beyond its share when it holds all of them or all hits
    bound = (0.0 if ranked.exact else 1.0) * errors[last] * (1 - rate) / wanted
    return RiskCoverage((wanted / total).tolist(), risk.tolist(), bound.tolist())


def error_map(prediction: Prediction, labels: Tensor) -> Tensor:
    """0 where the most likely class is right, 1 where wrong, 255 where void: (N, H, W) uint8."""
    wrong = most_likely(prediction.logits).ne(labels).byte()
    return wrong.masked_fill_(labels == IGNORE_INDEX, IGNORE_INDEX)


STATISTICS = {
    "prr": (prr, prr_error_bound),
    "auroc": (ranking.auroc, ranking.auroc_error_bound),
    "aupr_error": (ranking.average_precision, ranking.average_precision_error_bound),
    "aupr_success": (ranking.average_precision, ranking.average_precision_error_bound),
    "fpr95": (ranking.fpr_at_tpr, ranking.fpr_error_bound),
    "aurc": (aurc, aurc_error_bound),
    "augrc": (augrc, augrc_error_bound),
}


class Misclassification(RankedScores):
    """How well scores find the pixels whose most likely class is wrong.

    Under ``misclassification`` for each score: errors are the positives of ``auroc``,
    ``aupr_error``, ``fpr95`` and the curves, hits those of ``aupr_success``; ``prr``, ``aurc``,
    ``augrc`` and the risks are those of the functions of this module; void pixels do not count.
    ``histogram`` counts right and wrong pixels by score. Up to 2^18 pixels everything is exact;
    beyond, it follows from 2^16 bins of the score, and ``NAME_error_bound`` says how far NAME can
    be from its exact value (for ``risk``: any of ``risk_at_coverage``). Rates, areas and bounds
    are in percent, undefined ones None: a ranking needs errors and hits.

    Args:
        class_names: names by train id.
        scores: of one forward variant.
        parity: also report ``prr_original``, in which void pixels are errors.
        per_scene: also report every scene.
        bootstrap: resampling of the images.
    """

    units: ClassVar[dict[str, str]] = {
        "pixels": "pixels",
        **dict.fromkeys(("error_rate", *STATISTICS), "percent"),
        **{f"{name}_error_bound": "percent" for name in (*STATISTICS, "risk")},
        **dict.fromkeys(("prr_original", "risk_at_coverage", "curve", "roc", "pr"), "percent"),
        "histogram": "pixels by score",
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
        """Right and wrong pixels by score; with parity also void ones taken as wrong."""
        errors = error_map(prediction, batch["label"])
        published = errors.clamp(max=1)  # void is 255
        sums: Sums = {}
        for score in self.scores:
            values, bins = score_map(score, prediction), self.bins[score.name]
            sums |= rank_sums(score.name, bins, values, errors)
            if self.parity:
                sums |= rank_sums(score.name + VOID_AS_ERRORS, bins, values, published)
        return sums

    def finish(self, sums: Sums) -> dict[str, Any]:
        """The numbers of the class docstring.

        Raises:
            ValueError: if scores were not finite.
        """
        results = {}
        for name, bins in self.bins.items():
            found = _summary(ranking.ranking(name, bins, sums), bins.highest)
            if self.parity:
                published = ranking.ranking(name + VOID_AS_ERRORS, bins, sums)
                found["prr_original"] = ranking.percent(prr_original(published))
            results[name] = found
        return {"misclassification": results}


def _summary(ranked: Ranking, highest: float | None) -> dict[str, Any]:
    """All results of one score but the published one."""
    errors, pixels = int(ranked.positives.sum()), int((ranked.negatives + ranked.positives).sum())
    curve, chosen = risk_coverage_curve(ranked), risk_coverage_curve(ranked, COVERAGES)
    risks: list[Any] = list(chosen.risk) or [None] * len(COVERAGES)
    statistics = {}
    for name, (value, bound) in STATISTICS.items():
        events = ranking.flipped(ranked) if name == "aupr_success" else ranked
        statistics[name] = ranking.percent(value(events))
        statistics[f"{name}_error_bound"] = ranking.percent(bound(events))
    edges, right, wrong = ranking.bars(ranked, highest)
    return {
        "pixels": pixels,
        "error_rate": ranking.percent(errors / pixels if pixels else None),
        **statistics,
        "risk_at_coverage": dict(
            zip(map(str, COVERAGES), map(ranking.percent, risks), strict=True)
        ),
        "risk_error_bound": ranking.percent(max(chosen.bound, default=None)),
        "curve": ranking.percents({"coverage": curve.coverage, "risk": curve.risk}),
        "roc": ranking.percents(ranking.roc_curve(ranked)),
        "pr": ranking.percents(ranking.precision_recall_curve(ranked)),
        "histogram": {"edges": edges, "right": right, "wrong": wrong},
    }
