"""What a reader of a report has to know before believing it: warnings and notes."""

from __future__ import annotations

from collections.abc import Sequence

from utils.report.content import IMAGES, NONE, SEEDS, Comparison, Section
from utils.report.groups import Group
from utils.report.paper import SOURCE

FEW_SEEDS = 5  # p-values over fewer say little


def find_warnings(groups: Sequence[Group], comparisons: Sequence[Comparison]) -> list[str]:
    """What makes numbers less sure than they look, one sentence each."""
    warnings = []
    for group in groups:
        repeated = sorted({seed for seed in group.seeds if group.seeds.count(seed) > 1} - {"?"})
        if repeated:
            warnings.append(f"{group.label}: seed {', '.join(repeated)} occurs more than once.")
        if "?" in group.seeds and len(group.results) > 1:
            warnings.append(f"{group.label}: the seed of some results is not recorded.")
    for entry in comparisons:
        first, second = entry.baseline.group, entry.method.group
        if set(first.seeds) != set(second.seeds):
            warnings.append(
                f"Unequal seeds: {first.label} has {', '.join(first.seeds)};"
                f" {second.label} has {', '.join(second.seeds)}."
            )
    return warnings


def make_notes(sections: Sequence[Section], resamples: int, seed: int) -> list[str]:
    """What the numbers mean, in sentences.

    Args:
        sections: of the report.
        resamples: of the bootstrap over images.
        seed: of the bootstrap.
    """
    summaries = [summary for section in sections for summary in section.summaries]
    comparisons = [entry for section in sections for entry in section.comparisons]
    intervals = {summary.interval for summary in summaries}
    intervals |= {entry.interval for entry in comparisons}
    notes = ["All scores are in percent, differences in percentage points (method - baseline)."]
    if SEEDS in intervals:
        notes.append(
            "± is the sample standard deviation over seeds (divisor n - 1); intervals are 95 %:"
            " Student's t for means, Welch's for differences."
        )
    if any(d.p is not None for entry in comparisons for d in entry.differences.values()):
        notes += _test_notes(comparisons)
    if IMAGES in intervals:
        notes.append(
            f"Groups of a single run have 95 % percentile intervals over {resamples:,}"
            f" bootstrap samples of the test images (seed {seed}), paired by image for"
            " differences. They hold for this one trained network and say nothing about other"
            " seeds."
        )
    if NONE in intervals:
        notes.append(
            "Some groups have a single run without counts by image: no deviation, no interval, no"
            " test (n/a)."
        )
    if any(summary.paper for summary in summaries):
        notes.append(f"paper: the published mean over seeds, {SOURCE}, times 100.")
    results = [result for summary in summaries for result in summary.group.results]
    commits = sorted({result.commit[:7] for result in results if result.commit})
    if len(commits) > 1:
        notes.append(f"The results were made by different commits: {', '.join(commits)}.")
    return notes


def _test_notes(comparisons: Sequence[Comparison]) -> list[str]:
    families = dict.fromkeys(entry.family for entry in comparisons)
    notes = [
        "p is that of Welch's two-sided t-test; p Holm is corrected over the"
        f" {_counted(len(family))} tested: {', '.join(family)}. The test of the mIoU stands alone;"
        " other scores are not tested."
        for family in families
    ]
    smallest = min(
        len(summary.group.results)
        for entry in comparisons
        for summary in (entry.baseline, entry.method)
        if entry.interval == SEEDS
    )
    if smallest < FEW_SEEDS:
        notes.append(
            f"With n = {smallest} seeds in a group, p-values carry little: a real effect easily"
            " goes unseen, and the deviation itself is hardly known. Draw no conclusion from them."
        )
    return notes


def _counted(classes: int) -> str:
    return "1 class" if classes == 1 else f"{classes} classes"
