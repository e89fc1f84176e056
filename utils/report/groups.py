"""Rows that differ only in the seed as groups, their labels, and their baselines."""

from __future__ import annotations

import fnmatch
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from utils.report.facts import IMPLIED, SOURCE_ONLY, Facts, shorten
from utils.report.results import Result

BASELINE = "cross_entropy"
NUMBERED = re.compile(r"-\d+$")
# What the facts say already.
FACT_FLAGS = frozenset(
    {
        *("model", "member", "num_models", "backbone", "dataset", "condition", "loss_type"),
        *("method", "train_split", "val_split", "head", "temperature", "pseudo_loss"),
        *("target_dataset", "target_condition", "target_split"),
    }
)


@dataclass(frozen=True)
class Group:
    """Rows that differ only in the seed.

    Attributes:
        label: what tells it from the other groups of the report.
        facts: of all its rows.
        results: the rows, by seed.
    """

    label: str
    facts: Facts
    results: tuple[Result, ...]

    @property
    def seeds(self) -> tuple[str, ...]:
        """The seed of each row, ``?`` where it is not recorded."""
        return tuple(result.seed or "?" for result in self.results)

    @property
    def experiment(self) -> tuple[str, str, str, str]:
        """What is the same for a method and its baseline."""
        facts = self.facts
        return facts.trained_on, facts.tested_on, facts.model, facts.part

    @property
    def data(self) -> str:
        """What it was trained and tested on, in words."""
        return f"trained on {self.facts.trained_on}, tested on {self.facts.tested_on}"

    @property
    def subset(self) -> str:
        """A data set or condition of a test set that has several; empty for the whole test set."""
        return self.results[0].subset

    @property
    def of_one_dataset(self) -> bool:
        """Whether it is no member, no condition and not several data sets together."""
        first = self.results[0]
        whole = self.subset in ("", first.dataset) and not first.joined
        return whole and not self.facts.part

    @property
    def detailed(self) -> bool:
        """Whether its classes are worth a table: not of a subset, nor of one of like members.

        Members of one architecture are called ``MODEL-1``, ``MODEL-2`` ...
        """
        return not self.subset and not NUMBERED.search(self.facts.part)

    def values(self, score: str) -> list[float]:
        """The score of each row that has one, in percent."""
        found = (result.scores.get(score) for result in self.results)
        return [value for value in found if value is not None]

    def numbers(self, path: str) -> list[float]:
        """A reliability number of each row that has it."""
        found = (result.numbers.get(path) for result in self.results)
        return [value for value in found if value is not None]


def group_results(results: Iterable[Result]) -> list[Group]:
    """Groups in the order of their facts, a baseline before the other methods.

    Data sets of a joined test set and conditions are groups of their own where every file of the
    whole group has them.

    Raises:
        ValueError: naming two files, if one checkpoint counts twice in a group, or if rows of a
            group were scored on different images, pixels or classes.
    """
    by_key: dict[str, list[Result]] = {}
    parts: dict[str, int] = {}  # members keep the order of their file
    for result in results:
        parts.setdefault(result.facts.part, len(parts))
        key = json.dumps([asdict(result.facts), result.flags], sort_keys=True)
        by_key.setdefault(key, []).append(result)
    rows = sorted(_complete(by_key.values()), key=lambda members: _order(members[0], parts))
    for members in rows:
        members.sort(key=_seed_order)
        _refuse_repeated(members)
        for other in members[1:]:
            refuse_incomparable(members[0], other)
    labels = make_labels([members[0] for members in rows])
    return [
        Group(label, members[0].facts, tuple(members))
        for label, members in zip(labels, rows, strict=True)
    ]


def _complete(rows: Collection[list[Result]]) -> list[list[Result]]:
    """All but those of subsets that only some files of their group have."""

    def files(members: list[Result]) -> frozenset[Path]:
        return frozenset(member.path for member in members)

    whole = {files(members) for members in rows if not members[0].subset}
    return [members for members in rows if files(members) in whole]


def _order(result: Result, parts: Mapping[str, int]) -> tuple[object, ...]:
    facts = result.facts
    return (
        *(facts.trained_on, facts.tested_on, facts.model, parts[facts.part]),
        *(not of_baseline(facts), facts.method, facts.kind, str(result.path)),
    )


def _seed_order(result: Result) -> tuple[int, str, str]:
    seed = result.seed or ""
    return int(seed) if seed.isdecimal() else 0, seed, str(result.path)


def _refuse_repeated(members: Sequence[Result]) -> None:
    seen: dict[str, Result] = {}
    for result in members:
        first = seen.setdefault(result.sha256, result)
        if first is not result:
            raise ValueError(
                f"{first.path} and {result.path} are results of one checkpoint tested alike, which"
                " would count it twice: leave one of them out"
            )


def refuse_incomparable(first: Result, second: Result) -> None:
    """Refuse to set two rows beside each other that were not scored on the same pixels.

    Raises:
        ValueError: naming both files and what differs.
    """
    for what, advice in (
        ("fingerprint", "the files of the test set differ"),
        ("classes", "other classes were scored"),
        ("pixels", "the labels were scored at another size (--eval_size)"),
    ):
        mine, theirs = getattr(first, what), getattr(second, what)
        if mine != theirs and None not in (mine, theirs):
            shown = f" ({mine:,} and {theirs:,} labelled pixels)" if what == "pixels" else ""
            raise ValueError(
                f"{first.path} and {second.path} are not comparable: {advice}{shown};"
                " test both alike, or report them apart"
            )


def make_labels(rows: Sequence[Result]) -> list[str]:
    """A label for each row: its method and the other facts in which the rows differ.

    Where these do not tell rows apart, the flags in which they differ follow.
    """
    ensembles = {row.facts.model for row in rows if row.facts.part}
    parts = [
        ("model", [row.facts.model for row in rows]),
        ("part", [describe_part(row.facts, ensembles) for row in rows]),
        ("method", [row.facts.method for row in rows]),
        ("data", [_describe_data(row.facts) for row in rows]),
        ("kind", [row.facts.kind for row in rows]),
    ]
    shown = [values for name, values in parts if name == "method" or len(set(values)) > 1]
    labels = [", ".join(filter(None, texts)) for texts in zip(*shown, strict=True)]
    for label, count in Counter(labels).items():
        if count > 1:
            alike = [index for index, other in enumerate(labels) if other == label]
            flags = differing_flags([rows[index] for index in alike])
            for index in alike:
                own = rows[index].flags
                texts = [f"{name} {format_flag(own, name)}" for name in flags]
                labels[index] = ", ".join([label, *texts])
    return labels


def _describe_data(facts: Facts) -> str:
    if not facts.tested_on:
        return f"trained on {facts.trained_on}"
    return f"{facts.trained_on} -> {facts.tested_on}"


def describe_part(facts: Facts, ensembles: Collection[str]) -> str:
    """Which member a row is, or that it is all of them; empty for models without members."""
    if facts.part:
        return f"member {shorten(facts.part)}"
    return "whole" if facts.model in ensembles else ""


def differing_flags(rows: Sequence[Result], *, facts: bool = False) -> list[str]:
    """The flags in which rows differ, sorted; those behind the facts only if asked for."""
    names = sorted({name for row in rows for name in row.flags})
    return [
        name
        for name in names
        if (facts or name.removeprefix("test ") not in FACT_FLAGS)
        and len({json.dumps(row.flags.get(name)) for row in rows}) > 1
    ]


def format_flag(flags: Mapping[str, object], name: str) -> str:
    """A flag's value as it is typed; an unset one is its usual value or ``off``."""
    value = flags.get(name, IMPLIED.get(name.removeprefix("test ")))
    if value is None:
        return "off"
    if value is True:
        return "on"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def pair_with_baselines(
    groups: Sequence[Group], pattern: str | None
) -> tuple[list[tuple[Group, Group]], list[str]]:
    """Each method beside its baseline, and notes on those that have none or several.

    The baseline is trained with cross entropy, or on the source domain only, or its label matches
    the pattern, and has the method's model, member, training set and test set; of several the one
    with fewest other flags.

    Args:
        groups: all groups of the report.
        pattern: part of a label, or a glob over whole labels; None for cross entropy.

    Raises:
        ValueError: if no label matches the pattern, listing the labels.
    """
    baselines = [group for group in groups if is_baseline(group, pattern)]
    if pattern is not None and not baselines:
        labels = "; ".join(group.label for group in groups)
        raise ValueError(f"--baseline {pattern} matches none of the groups: {labels}")
    pairs, notes = [], []
    for group in groups:
        if group in baselines:
            continue
        alike = [entry for entry in baselines if entry.experiment == group.experiment]
        nearest = _nearest(alike, group)
        if len(nearest) == 1:
            pairs.append((nearest[0], group))
        elif nearest:
            labels = "; ".join(baseline.label for baseline in nearest)
            notes.append(
                f"{group.label} is compared with nothing, because several groups could be its"
                f" baseline ({labels}): name one with --baseline"
            )
        elif len(groups) > 1:
            notes.append(f"{group.label} has no baseline among these results.")
    return pairs, notes


def of_baseline(facts: Facts) -> bool:
    """Whether it is trained by cross entropy, or on the labels of the source domain only."""
    return facts.method == BASELINE or facts.method.startswith(SOURCE_ONLY)


def is_baseline(group: Group, pattern: str | None) -> bool:
    """Whether a group is what others are compared with."""
    if pattern is None:
        return of_baseline(group.facts)
    label, wanted = group.label.lower(), pattern.lower()
    return wanted in label or fnmatch.fnmatchcase(label, wanted)


def _nearest(baselines: Sequence[Group], group: Group) -> list[Group]:
    """Those that differ from the group in the fewest flags, and then in the kind."""

    def distance(baseline: Group) -> tuple[int, bool]:
        flags = differing_flags([baseline.results[0], group.results[0]])
        return len(flags), baseline.facts.kind != group.facts.kind

    least = min(map(distance, baselines), default=None)
    return [baseline for baseline in baselines if distance(baseline) == least]
