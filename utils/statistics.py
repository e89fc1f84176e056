"""Statistics of scores: intervals over seeds, Welch's test, Holm's correction, the bootstrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
RESAMPLES_AT_ONCE = 256  # bounds the memory of the bootstrap's weights

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Some values of one score in numbers; what the values do not determine is None.

    Attributes:
        mean: arithmetic mean.
        std: sample standard deviation, divisor n - 1.
        n: number of values.
        low: lower end of the 95 % interval of the mean.
        high: its upper end.
    """

    mean: float | None
    std: float | None
    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Difference:
    """How far one mean lies above another; what is not determined is None.

    Attributes:
        value: second mean minus first.
        low: lower end of the 95 % interval.
        high: its upper end.
        p: two-sided p-value.
        p_holm: the same after Holm's correction over a family of tests.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None


def summarise(values: Sequence[float]) -> Summary:
    """Mean, sample deviation and Student's t interval of the mean of independent values."""
    from scipy import stats  # slow to import

    n = len(values)
    if n < 2:
        return Summary(float(values[0]) if values else None, None, n)
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * std / n**0.5
    return Summary(mean, std, n, mean - reach, mean + reach)


def welch(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Mean of the second minus mean of the first, with Welch's interval and two-sided p-value.

    Welch (1947), "The generalization of Student's problem when several different population
    variances are involved". Without two values on each side there are only the means; where
    neither side varies, t is undefined, and there is no p.
    """
    from scipy import stats  # slow to import

    if not first or not second:
        return Difference(None)
    value = float(np.mean(second) - np.mean(first))
    if min(len(first), len(second)) < 2:
        return Difference(value)
    if np.ptp(first) == np.ptp(second) == 0:
        return Difference(value, value, value)
    test = stats.ttest_ind(second, first, equal_var=False)
    interval = test.confidence_interval(CONFIDENCE)
    return Difference(value, float(interval.low), float(interval.high), float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, in the order given.

    The k-th smallest of m p-values is multiplied by m - k + 1, is at least the adjusted one
    before it and at most 1. Holm (1979), "A simple sequentially rejective multiple test
    procedure".
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


class ImageCounts(NamedTuple):
    """What was counted in every image, and the classes' names."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    hits: NDArray[np.int64]  # (N, C): pixels of the class that were labelled so
    in_label: NDArray[np.int64]  # (N, C): pixels whose label is the class
    in_prediction: NDArray[np.int64]  # (N, C): labelled pixels that were taken for the class


def iou_percent(hits: Floats, in_label: Floats, in_prediction: Floats) -> Floats:
    """IoU of each class, (..., C), and the mean over the classes that occur: (..., C + 1).

    In percent; nan for a class that is in neither labels nor predictions.
    """
    union = in_label + in_prediction - hits
    iou = np.divide(100 * hits, union, out=np.full(union.shape, np.nan), where=union > 0)
    return np.concatenate((iou, mean_of_known(iou)), axis=-1)


def mean_of_known(values: Floats) -> Floats:
    """The mean over the last axis of (..., K) without the nan in it, (..., 1); nan if all are."""
    known = np.isfinite(values)
    count = known.sum(-1, keepdims=True)
    total = np.where(known, values, 0).sum(-1, keepdims=True)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


@lru_cache(maxsize=2)  # drawing takes longer than all the rest, and runs to compare share it
def draw_images(images: int, resamples: int, seed: int) -> NDArray[np.uint16]:
    """How often each image is drawn in each resample, (resamples, images); rows add to images."""
    generator = np.random.default_rng(seed)
    drawn = np.empty((resamples, images), np.uint16)
    for row in drawn:
        row[:] = np.bincount(generator.integers(0, images, images), minlength=images)
    return drawn


def resampled_iou(counts: ImageCounts, resamples: int, seed: int) -> Floats:
    """IoU of each class and mIoU over images drawn with replacement, (resamples, C + 1), percent.

    Images are drawn by their place: calls with one seed and equally many images draw the same
    ones, which pairs two runs over the same images.
    """
    images, num_classes = counts.hits.shape
    table = np.hstack((counts.hits, counts.in_label, counts.in_prediction)).astype(np.float64)
    weights = draw_images(images, resamples, seed)
    parts = []
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        sums = weights[start : start + RESAMPLES_AT_ONCE] @ table
        sums = sums.reshape(-1, 3, num_classes)
        parts.append(iou_percent(sums[:, 0], sums[:, 1], sums[:, 2]))
    return np.concatenate(parts)


def percentile_interval(values: Floats) -> list[tuple[float, float] | None]:
    """95 % percentile interval of each column of (resamples, K), None where all are nan."""
    ends = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    intervals: list[tuple[float, float] | None] = []
    for column in values.T:
        known = column[np.isfinite(column)]
        if not known.size:
            intervals.append(None)
            continue
        low, high = np.quantile(known, ends)
        intervals.append((float(low), float(high)))
    return intervals
