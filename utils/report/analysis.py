"""The numbers of a report: every group in summary, every method against its baseline."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from utils.report.content import IMAGES, NONE, SEEDS, Comparison, GroupSummary, Report, Section
from utils.report.groups import (
    Group,
    group_results,
    pair_with_baselines,
    refuse_incomparable,
)
from utils.report.notes import find_warnings, make_notes
from utils.report.paper import published
from utils.report.results import Result, shorten
from utils.statistics import (
    Floats,
    holm,
    percentile_interval,
    resampled_iou,
    summarise,
    welch,
)


@dataclass
class Bootstrap:
    """Resampled scores of single runs, each drawn once.

    Attributes:
        resamples: how many times images are drawn; 0 for none.
        seed: of the draws.
    """

    resamples: int
    seed: int
    _drawn: dict[tuple[str, int], Floats] = field(default_factory=dict)

    def scores(self, result: Result, stream: int = 0) -> Floats | None:
        """IoU of the classes and mIoU, (resamples, C + 1); None without counts of the images.

        Two runs over the same images are paired where they use the same stream.
        """
        if not self.resamples or result.images is None:
            return None
        key = (result.path.as_posix(), stream)
        if key not in self._drawn:
            self._drawn[key] = resampled_iou(result.images, self.resamples, self.seed + stream)
        return self._drawn[key]


def analyse(
    results: Sequence[Result],
    *,
    baseline: str | None = None,
    minority: Sequence[str] | None = None,
    usual_minority: Sequence[Sequence[str]] = (),
    bootstrap: Bootstrap | None = None,
) -> Report:
    """Group the rows, summarise the groups and compare the methods with their baselines.

    Args:
        results: the rows of all files.
        baseline: part of the baselines' labels, or a glob; None for cross entropy.
        minority: names of the classes to test; None for those that are usual.
        usual_minority: sets of class names to test; the first one that a test set has is used,
            and all classes where it has none of them.
        bootstrap: intervals for single runs from resampled images; None for none.

    Raises:
        ValueError: if rows are not comparable, a pattern matches nothing, or a class is unknown.
    """
    bootstrap = bootstrap or Bootstrap(0, 0)
    groups = group_results(results)
    _refuse_unknown_classes(groups, minority)
    pairs, notes = pair_with_baselines(groups, baseline)
    sections = []
    compared = {group.experiment for pair in pairs for group in pair}
    for mine in _section_groups(groups, compared):
        classes = mine[0].results[0].classes
        summaries = {group.label: summarise_group(group, bootstrap) for group in mine}
        family = choose_family(classes, minority, usual_minority)
        sections.append(
            Section(
                _section_title(mine),
                classes,
                list(summaries.values()),
                [
                    compare(summaries[first.label], summaries[second.label], family, bootstrap)
                    for first, second in pairs
                    if second in mine
                ],
            )
        )
    comparisons = [entry for section in sections for entry in section.comparisons]
    return Report(
        title="; ".join(dict.fromkeys(group.data for group in groups)),
        sections=sections,
        warnings=find_warnings(groups, comparisons),
        notes=[*make_notes(sections, bootstrap.resamples, bootstrap.seed), *notes],
    )


def _section_groups(
    groups: Sequence[Group], compared: Collection[tuple[str, str, str, str]]
) -> list[list[Group]]:
    """Compared experiments each apart, what is compared with nothing by data and classes."""
    sections: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        experiment = group.experiment
        alone = (*experiment[:2], *group.results[0].classes)
        key: tuple[str, ...] = experiment if experiment in compared else alone
        sections.setdefault(key, []).append(group)
    return list(sections.values())


def _section_title(groups: Sequence[Group]) -> str:
    """What the groups have in common."""
    facts = groups[0].facts
    if len({group.experiment for group in groups}) > 1:
        return groups[0].data
    member = f", member {shorten(facts.part)}" if facts.part else ""
    return f"{facts.model}{member}: {groups[0].data}"


def _refuse_unknown_classes(groups: Sequence[Group], minority: Sequence[str] | None) -> None:
    known = list(dict.fromkeys(name for group in groups for name in group.results[0].classes))
    for name in minority or ():
        if name not in known:
            raise ValueError(f"--minority {name!r} is no class here; there are {', '.join(known)}")


def choose_family(
    classes: Sequence[str], minority: Sequence[str] | None, usual: Sequence[Sequence[str]]
) -> tuple[str, ...]:
    """The classes to test, in the order of the classes."""
    if minority is not None:
        return tuple(name for name in classes if name in minority)
    chosen = next((names for names in usual if set(names) <= set(classes)), classes)
    return tuple(name for name in classes if name in chosen)


def summarise_group(group: Group, bootstrap: Bootstrap) -> GroupSummary:
    """All scores of a group; of a single run with intervals over its images, where they are."""
    first = group.results[0]
    scores = {name: summarise(group.values(name)) for name in first.scores}
    interval = SEEDS if len(group.results) > 1 else NONE
    drawn = bootstrap.scores(first) if interval == NONE else None
    if drawn is not None:
        interval = IMAGES
        for name, ends in zip((*first.classes, "miou"), percentile_interval(drawn), strict=True):
            if ends is not None:
                scores[name] = replace(scores[name], low=ends[0], high=ends[1])
    return GroupSummary(group, scores, published(group.facts), interval)


def compare(
    baseline: GroupSummary, method: GroupSummary, family: Sequence[str], bootstrap: Bootstrap
) -> Comparison:
    """Differences of all scores; p-values for the family's classes and for the mIoU alone.

    Raises:
        ValueError: if the two were not scored on the same pixels.
    """
    refuse_incomparable(baseline.group.results[0], method.group.results[0])
    differences = {}
    for name in method.scores:
        found = welch(baseline.group.values(name), method.group.values(name))
        differences[name] = found if name in (*family, "miou") else replace(found, p=None)
    tested = {name: differences[name].p for name in family}
    p_values = {name: p for name, p in tested.items() if p is not None}
    for name, adjusted in zip(p_values, holm(list(p_values.values())), strict=True):
        differences[name] = replace(differences[name], p_holm=adjusted)
    single = len(baseline.group.results) == len(method.group.results) == 1
    intervals = bootstrap_difference(baseline, method, bootstrap) if single else {}
    for name, (low, high) in intervals.items():
        differences[name] = replace(differences[name], low=low, high=high)
    if intervals:
        interval = IMAGES
    else:
        known = any(found.low is not None for found in differences.values())
        interval = SEEDS if known else NONE
    return Comparison(baseline, method, differences, tuple(family), interval)


def bootstrap_difference(
    baseline: GroupSummary, method: GroupSummary, bootstrap: Bootstrap
) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals of the differences of two single runs, paired by image."""
    first, second = baseline.group.results[0], method.group.results[0]
    if first.images is None or second.images is None:
        return {}
    # Files of other images under one fingerprint do not occur, but two halves of one might.
    paired = first.images.ids == second.images.ids
    before, after = bootstrap.scores(first), bootstrap.scores(second, stream=int(not paired))
    if before is None or after is None:
        return {}
    ends = percentile_interval(after - before)
    found = zip((*first.classes, "miou"), ends, strict=True)
    return {name: interval for name, interval in found if interval is not None}
