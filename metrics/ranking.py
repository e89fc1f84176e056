"""Statistics of how well a score ranks two kinds of pixels, from counts by score.

A positive is the event (an error, an unknown object) and a high score speaks for it. All values
are fractions, and None where one of the two kinds is missing. From a histogram they are those of
scores rounded down to the ends of the bins, where a bin with at least 1/1024 of the pixels is a
tie and the pixels of a smaller one are taken to be in random order, since thousands of small ties
would add up to errors of 1e-5. How far they can be from those of the scores themselves is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from metrics.histogram import NEITHER, ExactValues, ScoreBins

CURVE_POINTS = 101
BARS = 50
TIE = 1 / 1024  # share of all pixels from which on a bin is taken to hold one score
SHOWN = 0.995  # share of the pixels within the bars of an unbounded score, each tail half the rest


class Ranking(NamedTuple):
    """How many pixels of each kind have which score.

    Attributes:
        levels: scores, ascending, float64; of a histogram the lower ends of its bins.
        negatives: pixels of the first kind at each level, int64.
        positives: pixels of the second kind at each level, int64.
        exact: whether the levels are the scores themselves.
    """

    levels: NDArray[np.float64]
    negatives: NDArray[np.int64]
    positives: NDArray[np.int64]
    exact: bool

    @property
    def defined(self) -> bool:
        """Whether there are pixels of both kinds."""
        return bool(self.negatives.any() and self.positives.any())


def ranking(name: str, bins: ScoreBins, sums: dict[str, Any]) -> Ranking:
    """The ranking by a score whose sums come from ``metrics.histogram.rank_sums``.

    From the values themselves where all are there, else from the counts (of any number of bins).

    Raises:
        ValueError: if scores were not finite, naming the score and how many.
    """
    counts = _array(sums[f"{name}.counts"])
    missing = int(_array(sums[f"{name}.pixels"]).sum() - counts.sum())
    if missing:
        raise ValueError(
            f"the score {name} is not finite (nan or infinite) at {missing} of "
            f"{missing + counts.sum()} pixels; expected finite numbers: the network's logits "
            "overflow or its weights are damaged"
        )
    exact = sums.get(f"{name}.exact")
    if isinstance(exact, ExactValues) and exact.complete:
        return ranking_of_values(*exact.values())
    occupied = counts.any(axis=0)
    negatives, positives = counts[:, occupied]
    return Ranking(bins.levels(counts.shape[1])[occupied], negatives, positives, exact=False)


def ranking_of_values(scores: NDArray[np.floating], truth: NDArray[np.integer]) -> Ranking:
    """The ranking of scores (P,) by their truth (P,), each 0 or 1."""
    assert ((truth >= 0) & (truth < NEITHER)).all(), "every value is of one kind"
    order = np.argsort(scores)
    rising, positive = scores[order], truth[order].astype(np.int64)
    if not len(rising):
        nothing = np.zeros(0, np.int64)
        return Ranking(np.zeros(0), nothing, nothing, exact=True)
    starts = np.flatnonzero(np.concatenate([[True], rising[1:] != rising[:-1]]))
    positives = np.add.reduceat(positive, starts)
    totals = np.diff(starts, append=len(rising))
    return Ranking(rising[starts].astype(np.float64), totals - positives, positives, exact=True)


def flipped(ranked: Ranking) -> Ranking:
    """The same pixels with kinds exchanged and scores negated: how well it ranks the others."""
    levels, negatives, positives, exact = ranked
    return Ranking(-levels[::-1], positives[::-1], negatives[::-1], exact)


def auroc(ranked: Ranking) -> float | None:
    """Area under the ROC curve: how often a positive outranks a negative, ties counted half."""
    if not ranked.defined:
        return None
    below = np.cumsum(ranked.negatives) - ranked.negatives / 2
    pairs = float(ranked.positives.sum()) * float(ranked.negatives.sum())
    return float(ranked.positives.astype(np.float64) @ below / pairs)


def auroc_error_bound(ranked: Ranking) -> float | None:
    """At most how far ``auroc`` is from that of the scores: half the pairs within a bin."""
    if not ranked.defined:
        return None
    if ranked.exact:
        return 0.0
    pairs = float(ranked.positives.sum()) * float(ranked.negatives.sum())
    return float(ranked.positives.astype(np.float64) @ ranked.negatives / (2 * pairs))


def average_precision(ranked: Ranking) -> float | None:
    """Area under the precision-recall curve, step by step: sum over levels of P_b dR_b.

    The definition of scikit-learn's ``average_precision_score``; ties are one step.
    """
    if not ranked.defined:
        return None
    found, _, gained = _descending(ranked)
    return float(gained @ _precision(ranked) / found[-1])


def average_precision_error_bound(ranked: Ranking) -> float | None:
    """At most how far ``average_precision`` is from that of the scores.

    In every bin the positives may come before all negatives of the bin or after them.
    """
    if not ranked.defined:
        return None
    if ranked.exact:
        return 0.0
    found, alarms, gained = _descending(ranked)
    precision = _precision(ranked)
    alarms_before = alarms - ranked.negatives[::-1]
    first = found - gained + 1  # positives found with the first of a bin
    best = gained @ (found / np.maximum(found + alarms_before, 1) - precision)
    worst = gained @ (precision - first / (first + alarms))
    return float(max(best, worst, 0.0) / found[-1])


def fpr_at_tpr(ranked: Ranking, tpr: float = 0.95) -> float | None:
    """The least false positive rate of the thresholds that find this share of the positives."""
    if not ranked.defined:
        return None
    found, alarms, gained = _descending(ranked)
    level = _reaching(ranked, tpr)
    raised = float(alarms[level])
    if _thin(ranked)[level]:
        negatives = ranked.negatives[::-1][level]
        wanted = np.ceil(tpr * found[-1]) - (found[level] - gained[level])
        # so many of p positives in random order have this share of the negatives before them
        raised -= negatives * (1 - min(max(wanted, 1), gained[level]) / (gained[level] + 1))
    return float(raised / alarms[-1])


def fpr_error_bound(ranked: Ranking, tpr: float = 0.95) -> float | None:
    """At most how far ``fpr_at_tpr`` is from that of the scores: the negatives of one bin."""
    if not ranked.defined:
        return None
    if ranked.exact:
        return 0.0
    reaching = ranked.negatives[::-1][_reaching(ranked, tpr)]
    return float(reaching / ranked.negatives.sum())


def best_f1(ranked: Ranking) -> tuple[float | None, float | None]:
    """The greatest F1 of positives with at least a score, and that score.

    F1 = 2 TP / (2 TP + FP + FN); of equal ones that with the highest threshold.
    """
    if not ranked.defined:
        return None, None
    found, alarms, _ = _descending(ranked)
    f1 = 2 * found / (found + alarms + found[-1])
    best = int(f1.argmax())
    return float(f1[best]), float(ranked.levels[::-1][best])


def f1_error_bound(ranked: Ranking) -> float | None:
    """At most how far the F1 of ``best_f1`` is from that of the scores, which is not smaller.

    A threshold within a bin may leave out all its negatives and none of its positives.
    """
    if not ranked.defined:
        return None
    if ranked.exact:
        return 0.0
    found, alarms, _ = _descending(ranked)
    alarms_before = alarms - ranked.negatives[::-1]
    at_ends = 2 * found / (found + alarms + found[-1])
    at_best = 2 * found / (found + alarms_before + found[-1])
    return float(at_best.max() - at_ends.max())


def roc_curve(ranked: Ranking) -> dict[str, list[float]]:
    """False and true positive rates from (0, 0) to (1, 1), at most 101 points.

    All corners where they are few, else points at equal steps along the curve.
    """
    if not ranked.defined:
        return {"fpr": [], "tpr": []}
    found, alarms, _ = _descending(ranked)
    tpr = np.concatenate([[0.0], found / found[-1]])
    fpr = np.concatenate([[0.0], alarms / alarms[-1]])
    if len(fpr) > CURVE_POINTS:
        way = tpr + fpr  # its length in steps to the right and upwards
        stops = np.linspace(0, way[-1], CURVE_POINTS)
        tpr, fpr = np.interp(stops, way, tpr), np.interp(stops, way, fpr)
    return {"fpr": fpr.tolist(), "tpr": tpr.tolist()}


def precision_recall_curve(ranked: Ranking) -> dict[str, list[float]]:
    """Recall, ascending, and precision of at most 100 thresholds.

    They are the first to reach each hundredth of recall; before, precision is that of a handful of
    pixels. Precision between two points is that of the right one.
    """
    if not ranked.defined:
        return {"recall": [], "precision": []}
    found, alarms, _ = _descending(ranked)
    recall = found / found[-1]
    chosen = np.unique(np.searchsorted(recall, np.linspace(0, 1, CURVE_POINTS)[1:]))
    precision = found / (found + alarms)
    return {"recall": recall[chosen].tolist(), "precision": precision[chosen].tolist()}


def bars(ranked: Ranking, highest: float | None) -> tuple[list[float], list[int], list[int]]:
    """A histogram for a picture: 51 edges, then pixels of either kind in the 50 bars.

    The edges are uniform: over [0, highest], or for an unbounded score over all but the lowest
    and highest 0.25 % of the pixels; what lies outside is in the bars at the ends.
    """
    low, high = (0.0, highest) if highest is not None else _usual_range(ranked)
    edges = np.linspace(low, high, BARS + 1)
    index = np.searchsorted(edges, ranked.levels, side="right").clip(1, BARS) - 1
    negatives, positives = np.zeros((2, BARS), np.int64)
    np.add.at(negatives, index, ranked.negatives)
    np.add.at(positives, index, ranked.positives)
    return edges.tolist(), negatives.tolist(), positives.tolist()


def percent(value: float | None) -> float | None:
    """A fraction in percent."""
    return None if value is None else 100 * value


def percents(curve: Mapping[str, Iterable[float]]) -> dict[str, list[float]]:
    """The fractions of a curve in percent."""
    return {name: [100 * value for value in values] for name, values in curve.items()}


def _usual_range(ranked: Ranking) -> tuple[float, float]:
    """Least and greatest score without the tails; one apart where there is no range."""
    share = np.cumsum(ranked.negatives + ranked.positives, dtype=np.float64)
    if not len(share):
        return 0.0, 1.0
    tails = share[-1] * np.array([(1 - SHOWN) / 2, (1 + SHOWN) / 2])
    low, high = ranked.levels[np.searchsorted(share, tails)]
    return float(low), float(high if high > low else low + 1)


def _descending(
    ranked: Ranking,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """From the highest score down: positives and negatives so far, and positives by level."""
    gained = ranked.positives[::-1]
    return np.cumsum(gained), np.cumsum(ranked.negatives[::-1]), gained


def _precision(ranked: Ranking) -> NDArray[np.float64]:
    """Mean precision at the positives of each level, from the highest down."""
    found, alarms, gained = _descending(ranked)
    # the middle one of p positives in random order has half of the bin's negatives before it
    found_half, alarms_half = found - gained / 2 + 0.5, alarms - ranked.negatives[::-1] / 2
    in_order = found_half / (found_half + alarms_half)
    return np.where(_thin(ranked), in_order, found / (found + alarms))


def _thin(ranked: Ranking) -> NDArray[np.bool_]:
    """From the highest level down: whether its pixels are few enough not to be a tie."""
    pixels = (ranked.negatives + ranked.positives)[::-1]
    return (pixels < TIE * pixels.sum()) & (not ranked.exact)


def _reaching(ranked: Ranking, tpr: float) -> int:
    """The first level, from the highest down, with which this share of positives is found."""
    found, _, _ = _descending(ranked)
    return int(np.argmax(found / found[-1] >= tpr))


def _array(values: Tensor) -> NDArray[np.int64]:
    """Counts on the CPU as int64, whatever the type that replicates keep them in."""
    return values.cpu().numpy().astype(np.int64, copy=False)
