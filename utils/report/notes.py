"""What a reader of a report has to know before believing it: warnings and notes."""

from __future__ import annotations

from collections.abc import Sequence

from utils.report.content import CAPTIONS, IMAGES, MINORITY, NONE, SEEDS, GroupSummary, Section
from utils.report.groups import Group
from utils.report.paper import SOURCE

FEW_SEEDS = 5  # p-values over fewer say little


def find_warnings(groups: Sequence[Group], sections: Sequence[Section]) -> list[str]:
    """What makes numbers less sure than they look, one sentence each."""
    warnings = []
    for group in groups:
        if group.facts.part or group.subset:  # in the files of the whole
            continue
        repeated = sorted({seed for seed in group.seeds if group.seeds.count(seed) > 1} - {"?"})
        if repeated:
            warnings.append(f"{group.label}: seed {', '.join(repeated)} occurs more than once.")
        if "?" in group.seeds and len(group.results) > 1:
            warnings.append(f"{group.label}: the seed of some results is not recorded.")
    for entry in (entry for section in sections for entry in section.comparisons):
        first, second = entry.baseline.group, entry.method.group
        if first.facts.part or first.subset:
            continue
        if set(first.seeds) != set(second.seeds):
            warnings.append(
                f"Unequal seeds: {first.label} has {', '.join(first.seeds)};"
                f" {second.label} has {', '.join(second.seeds)}."
            )
    return [*_few_seeds(sections), *warnings]


def _few_seeds(sections: Sequence[Section]) -> list[str]:
    """What so few runs cannot show."""
    comparisons = [entry for section in sections for entry in section.comparisons]
    counts = [
        min(len(summary.group.results) for summary in (entry.baseline, entry.method))
        for entry in comparisons
    ]
    few = sorted({count for count in counts if 1 < count < FEW_SEEDS})
    warnings = []
    if 1 in counts:
        warnings.append(
            "With n = 1 a difference may be that of two seeds as well as that of two methods:"
            " draw no conclusion from it."
        )
    if few:
        warnings.append(
            f"With n = {' or '.join(map(str, few))} seeds a p-value proves nothing either way: a"
            " real effect easily goes unseen, and the deviation itself is hardly known. Draw no"
            " conclusion from it."
        )
    return warnings


def make_notes(
    sections: Sequence[Section], unsegmented: Sequence[GroupSummary], resamples: int, seed: int
) -> list[str]:
    """What the numbers mean, in sentences.

    Args:
        sections: of the report.
        unsegmented: groups that are in none of them.
        resamples: of the bootstrap over images.
        seed: of the bootstrap.
    """
    summaries = [summary for section in sections for summary in section.summaries]
    comparisons = [entry for section in sections for entry in section.comparisons]
    intervals = {summary.interval for summary in summaries}
    intervals |= {entry.interval for entry in comparisons}
    notes = ["All scores are in percent."]
    if sections:
        notes = [
            "All scores are in percent, differences in percentage points (method - baseline);"
            " classes by their IoU. FreqW accuracy is the frequency-weighted one."
        ]
    if SEEDS in intervals | {summary.interval for summary in unsegmented}:
        notes.append(
            "± is the sample standard deviation over seeds (divisor n - 1); intervals are 95 %:"
            " Student's t for means, Welch's for differences."
        )
    notes += _test_notes(sections)
    families = dict.fromkeys(section.family for section in sections if MINORITY in section.means)
    notes += [f"The {CAPTIONS[MINORITY]} is that of {', '.join(family)}." for family in families]
    if any(entry.interval != NONE for entry in comparisons):
        notes.append(
            "An interval that leaves out zero is no finding by itself: of twenty intervals around"
            " no effect one does so by chance."
        )
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
        notes.append(
            f"paper: the published mean over seeds, {SOURCE}, times 100; beside a difference the"
            " published difference."
        )
    if any(not summary.group.detailed for summary in summaries):
        joined = any(summary.group.results[0].joined for summary in summaries)
        subsets = "data sets of a joined test set, of conditions" if joined else "conditions"
        notes.append(
            f"Of {subsets} and of members that share an architecture only the means are shown;"
            " their classes are in report.csv."
        )
    everything = (*summaries, *unsegmented)
    results = [result for summary in everything for result in summary.group.results]
    commits = sorted({result.commit[:7] for result in results if result.commit})
    if len(commits) > 1:
        notes.append(f"The results were made by different commits: {', '.join(commits)}.")
    return notes


def _test_notes(sections: Sequence[Section]) -> list[str]:
    families = dict.fromkeys(
        section.family
        for section in sections
        for entry in section.comparisons
        if any(entry.differences[name].p is not None for name in section.family)
    )
    return [
        "p is that of Welch's two-sided t-test; p Holm is corrected over the"
        f" {_counted(len(family))} tested: {', '.join(family)}. The means are tested without"
        " correction, other classes not at all, and nothing is corrected over several tables."
        for family in families
    ]


def _counted(classes: int) -> str:
    return "1 class" if classes == 1 else f"{classes} classes"
