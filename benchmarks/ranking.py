"""AUROC, AUPR and FPR at 95 % TPR of many pixels against scikit-learn and torchmetrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn import metrics as sklearn
from torch import Tensor
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from benchmarks.memory import growth, in_new_process
from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import interleave, ratio
from metrics.histogram import ScoreBins, rank_sums
from metrics.ranking import (
    auroc,
    auroc_error_bound,
    average_precision,
    average_precision_error_bound,
    fpr_at_tpr,
    fpr_error_bound,
    ranking,
)

SIZES = (2_000_000, 20_000_000)  # one and ten images of Cityscapes
QUICK_SIZES = (400_000,)  # more than are kept exactly
POSITIVES = 0.03
STEEPNESS = 5.0  # of the unbounded scores, as logits have it
FASTER_THAN_SKLEARN = 200.0
FASTER_THAN_TORCHMETRICS = 100.0
MEGABYTES = 20.0

METHOD = f"""\
{SIZES[1]:,} pixels, {100 * POSITIVES:.0f} % positives, float32 scores in [0, 1]: the logistic
function of normal numbers with means of 1 for positives and -1 for negatives. `scikit-learn` is
`roc_auc_score`, `average_precision_score` and `roc_curve`; `torchmetrics` is its exact
`BinaryAUROC` and `BinaryAveragePrecision` (`thresholds=None`, no validation), which has no exact
FPR at a TPR. `ours` counts into 2^16 bins and computes all three from them. Errors are against
scikit-learn; the bound is what ours reports beside each number, from the counts alone. The same
for unbounded scores, {STEEPNESS:.0f} times the normal numbers, whose bins are those of their
arcsinh. Memory is what the peak of a new process grows by while ours works. Always on the CPU."""


class Found(NamedTuple):
    """The three statistics, fractions."""

    auroc: float
    aupr: float
    fpr95: float


TOLERATED = Found(1e-7, 1e-5, 5e-5)  # at the larger size, in [0, 1]


def run(settings: Settings) -> Section:
    """Time and errors for bounded scores of every size, then an unbounded one and the memory."""
    section = Section("Rank statistics", METHOD)
    sizes = QUICK_SIZES if settings.quick else SIZES
    times: list[Row] = []
    errors: list[Row] = []
    for size in sizes:
        scores, truth = pixels(size, bounded=True)
        row, references = measure(scores, truth, settings)
        times.append(row)
        mine, bounds = ours(scores, truth, 1.0)
        errors += error_rows(f"{size:,} in [0, 1]", mine, references, bounds)
    add_targets(section, times[-1], mine, references)
    scores, truth = pixels(sizes[0], bounded=False)
    mine, bounds = ours(scores, truth, None)
    errors += error_rows(f"{sizes[0]:,} unbounded", mine, by_sklearn(scores, truth), bounds)
    section.tables.append(Table("CPU time for all statistics together:", times))
    section.tables.append(Table("Distance from scikit-learn, as fractions:", errors))
    grown = in_new_process(grown_memory, sizes[-1])
    section.tables.append(
        Table("Memory:", [{"pixels": f"{sizes[-1]:,}", "ours, MB beside the data": grown}])
    )
    section.targets.append(Target("MB beside the data", grown, MEGABYTES, at_most=True))
    return section


def pixels(count: int, *, bounded: bool) -> tuple[Tensor, Tensor]:
    """Scores (P,), float32, and truth (P,), uint8."""
    generator = torch.Generator().manual_seed(0)
    truth = (torch.rand(count, generator=generator) < POSITIVES).to(torch.uint8)
    scores = torch.randn(count, generator=generator).add_(truth, alpha=2).sub_(1)
    return scores.sigmoid_() if bounded else scores.mul_(STEEPNESS), truth


def by_sklearn(scores: Tensor, truth: Tensor) -> Found:
    """The statistics from sorted scores."""
    values, labels = scores.numpy(), truth.numpy()
    fpr, tpr, _ = sklearn.roc_curve(labels, values)
    return Found(
        float(sklearn.roc_auc_score(labels, values)),
        float(sklearn.average_precision_score(labels, values)),
        float(fpr[np.argmax(tpr >= 0.95)]),
    )


def by_torchmetrics(scores: Tensor, truth: Tensor) -> tuple[float, float]:
    """AUROC and average precision from sorted scores."""
    labels = truth.long()
    area = BinaryAUROC(thresholds=None, validate_args=False)(scores, labels)
    precision = BinaryAveragePrecision(thresholds=None, validate_args=False)(scores, labels)
    return float(area), float(precision)


def ours(scores: Tensor, truth: Tensor, highest: float | None) -> tuple[Found, Found]:
    """The statistics from a histogram, and their error bounds."""
    bins = ScoreBins(highest)
    ranked = ranking("score", bins, rank_sums("score", bins, scores, truth))
    values = auroc(ranked), average_precision(ranked), fpr_at_tpr(ranked)
    bounds = (
        auroc_error_bound(ranked),
        average_precision_error_bound(ranked),
        fpr_error_bound(ranked),
    )
    return Found(*map(known, values)), Found(*map(known, bounds))


def known(value: float | None) -> float:
    """A statistic of pixels of both kinds."""
    assert value is not None, "there are positives and negatives"
    return value


def measure(scores: Tensor, truth: Tensor, settings: Settings) -> tuple[Row, Found]:
    """Times of the three ways, and what scikit-learn found."""
    found: dict[str, Any] = {}

    def keeping(name: str, way: Callable[..., Any], *more: Any) -> Callable[[], None]:
        """A call whose result can be read afterwards."""

        def call() -> None:
            """Compute and keep what one way finds."""
            found[name] = way(scores, truth, *more)

        return call

    for way in (by_sklearn, by_torchmetrics):  # imports and caches, at a size that costs little
        way(scores[:10_000], truth[:10_000])
    ours(scores, truth, 1.0)
    samples = interleave(
        {
            "scikit-learn": keeping("scikit-learn", by_sklearn),
            "torchmetrics": keeping("torchmetrics", by_torchmetrics),
            "ours": keeping("ours", ours, 1.0),
        },
        repeats=settings.rounds(2),
        warmup=0,
    )
    reference: Found = found["scikit-learn"]
    assert np.allclose(reference[:2], found["torchmetrics"], atol=1e-4), "the yardsticks disagree"
    row: Row = {"pixels": f"{len(scores):,}"}
    row |= {f"{name}, s": sample.median for name, sample in samples.items()}
    for name in ("scikit-learn", "torchmetrics"):
        row[f"times faster than {name}"] = ratio(samples[name], samples["ours"])
    return row, reference


def error_rows(what: str, mine: Found, references: Found, bounds: Found) -> list[Row]:
    """A row for every statistic: its value, its error and the reported bound."""
    return [
        {
            "scores": what,
            "statistic": name,
            "value": reference,
            "error": abs(value - reference),
            "reported bound": bound,
        }
        for name, value, reference, bound in zip(
            Found._fields, mine, references, bounds, strict=True
        )
    ]


def add_targets(section: Section, times: Row, mine: Found, references: Found) -> None:
    """The targets of the largest size."""
    for name, bound in (
        ("scikit-learn", FASTER_THAN_SKLEARN),
        ("torchmetrics", FASTER_THAN_TORCHMETRICS),
    ):
        faster = times[f"times faster than {name}"].median
        section.targets.append(Target(f"times faster than {name}", faster, bound, at_most=False))
    for name, value, reference, bound in zip(
        Found._fields, mine, references, TOLERATED, strict=True
    ):
        error = abs(value - reference)
        section.targets.append(Target(f"error of {name}", error, bound, at_most=True))


def grown_memory(count: int) -> float:
    """Work on so many pixels in this process; MB by which its peak passes what it held before."""
    torch.set_num_threads(1)
    scores, truth = pixels(count, bounded=True)
    ours(scores[:1000], truth[:1000], 1.0)  # what is loaded at the first call
    return growth(lambda: ours(scores, truth, 1.0), torch.device("cpu"))
