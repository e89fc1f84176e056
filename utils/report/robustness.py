"""How errors grow from one test set to another, as in figure 1 of the reliability study.

An error is 100 - mIoU, or the expected calibration error; it is divided by the smallest that any
model has on the source, so that 1 is the best on the source (arXiv 2303.11298).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from utils.report.content import GroupSummary, Robustness, RobustnessPoint
from utils.report.groups import Group, make_labels
from utils.statistics import Summary, summarise

ECE = "calibration.ece"
OF_A_TEST = "test "  # begins the flags of a test


def relative_errors(summaries: Sequence[GroupSummary], source: str | None) -> Robustness | None:
    """The errors of all models on all test sets, data sets and conditions.

    Members of ensembles are left out, and several data sets together, of which each counts.

    Args:
        summaries: of all groups.
        source: a test set in words or the name of its data set; None for the data set that a
            model was trained on or, if it was not tested on that, for the first test set.

    Returns:
        None if no model has more than one test set and no source is asked for.

    Raises:
        ValueError: if the source is none of the tests.
    """
    chosen = [s for s in summaries if not s.group.facts.part and not s.group.results[0].joined]
    models = groups_by_model([summary.group for summary in chosen])
    by_group = {summary.group.label: summary for summary in chosen}
    if source is None and all(len(tested) < 2 for tested in models.values()):
        return None
    tests = _tests(chosen)
    source, reason = _choose_source(tests, chosen, source)
    on_source = [by_group[m[source].label].group for m in models.values() if source in m]
    best_miou = _smallest(map(_miou_errors, on_source))
    best_ece = _smallest(group.numbers(ECE) for group in on_source)
    parts = {s.group.facts.tested_on for s in chosen if _is_condition(s.group)}
    others = sorted((test for test in tests if test != source), key=parts.__contains__)
    ordered = (source, *others)
    points = []
    for model, tested in models.items():
        for test in ordered:
            if test not in tested:
                continue
            group = tested[test]
            points.append(
                RobustnessPoint(
                    model,
                    test,
                    by_group[group.label],
                    summarise(group.values("miou")),
                    summarise(group.numbers(ECE)),
                    _relative(_miou_errors(group), best_miou),
                    _relative(group.numbers(ECE), best_ece),
                )
            )
    return Robustness(source, reason, ordered, points, _warnings(points))


def _is_condition(group: Group) -> bool:
    return bool(group.subset) and group.subset != group.results[0].dataset


def _miou_errors(group: Group) -> list[float]:
    return [100 - value for value in group.values("miou")]


def _smallest(errors: Iterable[Sequence[float]]) -> float | None:
    """The smallest mean, None of none."""
    means = [sum(values) / len(values) for values in errors if values]
    return min(means, default=None)


def _relative(errors: Sequence[float], best: float | None) -> Summary:
    """Errors divided by the best one; nothing is known where that is missing or zero."""
    return summarise([error / best for error in errors] if best else [])


def groups_by_model(groups: Sequence[Group]) -> dict[str, dict[str, Group]]:
    """Each model's groups by test set, under a label that tells the models apart.

    A flag of the test tells models apart only where they were tested with both its values on one
    test set; otherwise it comes with the test set, as a size does.
    """
    trained: dict[str, list[Group]] = {}
    for group in groups:
        trained.setdefault(_training(group), []).append(group)
    found: dict[str, dict[str, Group]] = {}
    stand_ins = {}
    for training, mine in trained.items():
        telling = _telling_flags(mine)
        for group in mine:
            own = group.results[0]
            tested = {name: own.flags.get(name) for name in telling}
            key = training + json.dumps(tested, sort_keys=True)
            found.setdefault(key, {})[group.facts.tested_on] = group
            facts = replace(own.facts, tested_on="")
            stand_ins[key] = replace(own, facts=facts, flags={**_trained_flags(group), **tested})
    labels = make_labels(list(stand_ins.values()))
    return {label: found[key] for key, label in zip(stand_ins, labels, strict=True)}


def _training(group: Group) -> str:
    """What is the same for a model on all its tests."""
    facts = group.facts
    told = (facts.trained_on, facts.model, facts.method, facts.kind, _trained_flags(group))
    return json.dumps(told, sort_keys=True)


def _trained_flags(group: Group) -> dict[str, Any]:
    flags: Mapping[str, Any] = group.results[0].flags
    return {name: value for name, value in flags.items() if not name.startswith(OF_A_TEST)}


def _telling_flags(groups: Sequence[Group]) -> list[str]:
    """The flags of the test that differ between groups of one test set, sorted."""
    flags = [group.results[0].flags for group in groups]
    names = {name for own in flags for name in own if name.startswith(OF_A_TEST)}
    values: dict[tuple[str, str], set[str]] = {}
    for group, own in zip(groups, flags, strict=True):
        for name in names:
            seen = values.setdefault((name, group.facts.tested_on), set())
            seen.add(json.dumps(own.get(name)))
    return sorted({name for (name, _), seen in values.items() if len(seen) > 1})


def _tests(summaries: Iterable[GroupSummary]) -> dict[str, str]:
    """The data set of each test set."""
    return {s.group.facts.tested_on: s.group.results[0].dataset for s in summaries}


def _choose_source(
    tests: Mapping[str, str], summaries: Sequence[GroupSummary], wanted: str | None
) -> tuple[str, str]:
    """The source and the reason for it; of a data set the test with the fewest words."""
    if wanted is not None:
        if wanted in tests:
            return wanted, "It was asked for."
        mine = [test for test, dataset in tests.items() if dataset == wanted]
        if mine:
            return min(mine, key=_words), f"{wanted} was asked for."
        raise ValueError(
            f"--robustness_source {wanted} is none of the test sets: {'; '.join(tests)}"
        )
    for summary in summaries:
        trained = summary.group.facts.trained_on.partition(" ")[0]
        mine = [test for test, dataset in tests.items() if dataset == trained]
        if mine:
            return min(mine, key=_words), f"Networks were trained on {trained}."
    return next(
        iter(tests)
    ), "No network was trained on a data set that was tested: it is the first."


def _words(test: str) -> int:
    return len(test.split())


def _warnings(points: Sequence[RobustnessPoint]) -> list[str]:
    """The test sets on which not all models were scored on the same pixels."""
    pixels: dict[str, set[int | None]] = {}
    for point in points:
        pixels.setdefault(point.test, set()).add(point.summary.group.results[0].pixels)
    return [
        f"Not all models were scored on the same pixels of {test}."
        for test, counts in pixels.items()
        if len(counts) > 1
    ]
