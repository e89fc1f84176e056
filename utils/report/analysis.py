"""The numbers of a report: every group in summary, every method against its baseline."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from utils.report.content import (
    IMAGES,
    MINORITY,
    NONE,
    SEEDS,
    Comparison,
    GroupSummary,
    Report,
    Section,
)
from utils.report.facts import shorten
from utils.report.groups import (
    Group,
    group_results,
    pair_with_baselines,
    refuse_incomparable,
)
from utils.report.notes import find_warnings, make_notes
from utils.report.paper import published
from utils.report.results import Result
from utils.report.robustness import relative_errors
from utils.report.unknown import unknown_objects
from utils.statistics import (
    Floats,
    Summary,
    holm,
    mean_of_known,
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

        The mean of the tested classes follows where the result has it.

        Two runs over the same images are paired where they use the same stream.
        """
        if not self.resamples or result.images is None:
            return None
        key = (result.path.as_posix(), stream)
        if key not in self._drawn:
            drawn = resampled_iou(result.images, self.resamples, self.seed + stream)
            if result.family:
                places = [result.classes.index(name) for name in result.family]
                drawn = np.column_stack((drawn, mean_of_known(drawn[:, places])))
            self._drawn[key] = drawn
        return self._drawn[key]


def analyse(
    results: Sequence[Result],
    *,
    baseline: str | None = None,
    minority: Sequence[str] | None = None,
    usual_minority: Sequence[Sequence[str]] = (),
    bootstrap: Bootstrap | None = None,
    source: str | None = None,
) -> Report:
    """Group the rows, summarise the groups and compare the methods with their baselines.

    Args:
        results: the rows of all files.
        baseline: part of the baselines' labels, or a glob; None for cross entropy.
        minority: names of the classes to test; None for those that are usual.
        usual_minority: sets of class names to test; the first one that a test set has is used,
            and all classes where it has none of them.
        bootstrap: intervals for single runs from resampled images; None for none.
        source: the test set of the robustness whose best error is 1, see ``relative_errors``.

    Raises:
        ValueError: if rows are not comparable, a pattern matches nothing, a class is unknown, or
            the source was not tested.
    """
    bootstrap = bootstrap or Bootstrap(0, 0)
    _refuse_unknown_classes(results, minority)
    families = {
        result.classes: choose_family(result.classes, minority, usual_minority)
        for result in results
    }
    groups = group_results(
        [with_minority_mean(result, families[result.classes]) for result in results]
    )
    segmented = [group for group in groups if group.results[0].scores]
    pairs, notes = pair_with_baselines(segmented, baseline)
    sections = []
    compared = {group.experiment for pair in pairs for group in pair}
    for mine in _section_groups(segmented, compared):
        classes = mine[0].results[0].classes
        family = families[classes]
        summaries = {group.label: summarise_group(group, bootstrap) for group in mine}
        comparisons = [
            compare(summaries[first.label], summaries[second.label], family, bootstrap)
            for first, second in pairs
            if second in mine
        ]
        title = _section_title(mine)
        sections.append(Section(title, classes, family, list(summaries.values()), comparisons))
    unsegmented = [summarise_group(g, bootstrap) for g in groups if not g.results[0].scores]
    report = Report(
        data=_describe_data(groups),
        sections=sections,
        warnings=find_warnings(groups, sections),
        notes=[*make_notes(sections, unsegmented, bootstrap.resamples, bootstrap.seed), *notes],
        unsegmented=unsegmented,
    )
    return replace(
        report,
        robustness=relative_errors(report.segmented, source),
        unknown=unknown_objects(report.summaries),
    )


def _describe_data(groups: Sequence[Group]) -> list[str]:
    """What was trained and tested on what, with the number of images, and with its subsets."""
    lines: dict[str, str] = {}
    files: dict[str, set[Path]] = {}
    for group in groups:
        if not group.subset:
            images = group.results[0].test_images
            lines[group.data] = group.data + (f" ({images:,} images)" if images else "")
            files.setdefault(group.data, set()).update(row.path for row in group.results)
    for data, line in lines.items():
        subsets = [g.subset for g in groups if g.subset and g.results[0].path in files[data]]
        if subsets:
            lines[data] = f"{line}, also by {', '.join(dict.fromkeys(subsets))}"
    return list(lines.values())


def with_minority_mean(result: Result, family: Sequence[str]) -> Result:
    """The row with the mean IoU of the tested classes that occur, where these are not all."""
    if not (result.scores and 1 < len(family) < len(result.classes)):
        return result
    values = [value for value in map(result.scores.get, family) if value is not None]
    mean = sum(values) / len(values) if values else None
    scores = {**result.scores, MINORITY: mean}
    return replace(result, scores=scores, family=tuple(family))


def _section_groups(
    groups: Sequence[Group], compared: Collection[tuple[str, str, str, str]]
) -> list[list[Group]]:
    """Compared experiments each apart, then what is compared with nothing by data and classes."""
    sections: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        experiment = group.experiment
        alone = (*experiment[:2], *group.results[0].classes)
        key: tuple[str, ...] = experiment if experiment in compared else alone
        sections.setdefault(key, []).append(group)
    return sorted(sections.values(), key=lambda mine: mine[0].experiment not in compared)


def _section_title(groups: Sequence[Group]) -> str:
    """What the groups that are shown class by class have in common."""
    shown = [group for group in groups if group.detailed] or groups
    facts = shown[0].facts
    if len({group.experiment for group in shown}) > 1:
        return groups[0].data
    member = f", member {shorten(facts.part)}" if facts.part else ""
    return f"{facts.model}{member}: {groups[0].data}"


def _refuse_unknown_classes(results: Sequence[Result], minority: Sequence[str] | None) -> None:
    known = list(dict.fromkeys(name for result in results for name in result.classes))
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
        for name, (low, high) in _intervals(first, drawn).items():
            scores[name] = replace(scores[name], low=low, high=high)
    return GroupSummary(group, scores, published(group.facts), interval, _numbers(group))


def _numbers(group: Group) -> dict[str, Summary]:
    """The reliability numbers of a group; those of a single run with the intervals of its file."""
    first = group.results[0]
    paths = dict.fromkeys(path for result in group.results for path in result.numbers)
    numbers = {path: summarise(group.numbers(path)) for path in paths}
    if len(group.results) == 1:
        for path, (low, high) in first.content.get("intervals", {}).items():
            if path in numbers:
                numbers[path] = replace(numbers[path], low=low, high=high)
    return numbers


def compare(
    baseline: GroupSummary, method: GroupSummary, family: Sequence[str], bootstrap: Bootstrap
) -> Comparison:
    """Differences of all scores; p-values for the family's classes, their mean, and the mIoU.

    Raises:
        ValueError: if the two were not scored on the same pixels.
    """
    refuse_incomparable(baseline.group.results[0], method.group.results[0])
    differences = {}
    for name in method.scores.keys() & baseline.scores.keys():
        found = welch(baseline.group.values(name), method.group.values(name))
        tested = name in (*family, MINORITY, "miou")
        differences[name] = found if tested else replace(found, p=None)
    p_values = {name: p for name in family if (p := differences[name].p) is not None}
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
    return Comparison(baseline, method, differences, interval)


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
    return _intervals(first, after - before)


def _intervals(result: Result, drawn: Floats) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals by score, where the resamples have the score."""
    names = [*result.classes, "miou", *([MINORITY] if result.family else [])]
    found = zip(names, percentile_interval(drawn), strict=True)
    return {name: interval for name, interval in found if interval is not None}
