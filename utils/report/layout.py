"""The tables of a report, ready for any form of output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from utils.report.content import (
    CAPTIONS,
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
from utils.report.groups import Group, differing_flags, format_flag, make_labels
from utils.report.tables import MISSING, SUBSET, bracketed, caption_of_subset, number
from utils.statistics import Difference, Summary


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        title: one line.
        header: a heading for each column, the first one for the names of the rows.
        rows: cells; the first of each row is its name. A row without others is a heading.
        marked: names of the rows to bring out.
        rules: places of rows that have a line above them.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    marked: frozenset[str] = frozenset()
    rules: frozenset[int] = frozenset()


def spread(summary: Summary, expected: int, *, digits: int = 2) -> str:
    """Mean ± deviation, with n where a score has fewer values than its group has rows."""
    if summary.mean is None:
        return MISSING
    text = number(summary.mean, digits=digits)
    if summary.std is not None:
        text += f" ± {number(summary.std, digits=digits)}"
    return f"{text} (n {summary.n})" if summary.n < expected else text


def interval(found: Summary | Difference, *, digits: int = 2) -> str:
    """A 95 % interval in brackets, ``n/a`` where there is none."""
    return bracketed(found.low, found.high, digits=digits)


def p_value(p: float | None) -> str:
    """Three decimals, ``n/a`` for None."""
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def section_labels(section: Section) -> dict[str, str]:
    """What tells a section's groups apart, by their full labels."""
    return short_labels([summary.group for summary in section.shown])


def short_labels(groups: Sequence[Group]) -> dict[str, str]:
    """What tells some of a report's groups apart, by their full labels."""
    short = make_labels([group.results[0] for group in groups])
    return {group.label: label for group, label in zip(groups, short, strict=True)}


def named_scores(section: Section) -> list[tuple[str, str]]:
    """Every score of a section with the name people read: tested classes, others, means."""
    classes = (*section.family, *section.others)
    return [*((name, name) for name in classes), *section.means.items()]


def overview_tables(report: Report, *, members: bool = False) -> list[Table]:
    """The means of all groups and their distance from the baseline, a table for each test.

    Args:
        report: all of it.
        members: of the members of ensembles instead of everything else.
    """
    summaries: dict[str, list[GroupSummary]] = {}
    for summary in report.segmented:
        if bool(summary.group.facts.part) == members:
            summaries.setdefault(summary.group.data, []).append(summary)
    compared = {
        entry.method.group.label: entry
        for section in report.sections
        for entry in section.comparisons
    }
    return [_overview_table(data, mine, compared) for data, mine in summaries.items()]


def _overview_table(
    data: str, summaries: Sequence[GroupSummary], compared: Mapping[str, Comparison]
) -> Table:
    """The model in a row of its own where it changes, each method under its model."""
    alike: dict[tuple[str, ...], list[GroupSummary]] = {}
    for summary in summaries:
        facts = summary.group.facts
        member = (f"  {shorten(facts.part)}",) if facts.part else ()
        alike.setdefault((facts.model, *member), []).append(summary)
    means = {name: CAPTIONS[name] for name in ("miou", MINORITY) if name in summaries[0].scores}
    means |= {
        name: caption_of_subset(name)
        for name in summaries[0].scores
        if name.startswith(SUBSET) and all(name in summary.scores for summary in summaries)
    }
    entries = [compared[s.group.label] for s in summaries if s.group.label in compared]
    known = any(entry.interval != NONE for entry in entries)
    differences = ["difference\n95 % interval" if known else "difference"] if entries else []
    header = ["", "n"]
    for caption in means.values():
        header += [f"{caption}, %", *differences]
    rows: list[list[str]] = []
    above: tuple[str, ...] = ()
    for heading, mine in alike.items():
        rows += [
            [text, *[""] * (len(header) - 1)]
            for level, text in enumerate(heading)
            if heading[: level + 1] != above[: level + 1]
        ]
        above = heading
        labels = short_labels([summary.group for summary in mine])
        for summary in mine:
            count, entry = len(summary.group.results), compared.get(summary.group.label)
            row = ["  " * len(heading) + labels[summary.group.label], str(count)]
            for name in means:
                row.append(spread(summary.scores[name], count, digits=1))
                if entries:
                    row.append(_short_difference(entry, name))
            rows.append(row)
    return Table(data[:1].upper() + data[1:], header, rows)


def _short_difference(entry: Comparison | None, name: str) -> str:
    """A difference with its interval, empty for what is compared with nothing."""
    if entry is None:
        return ""
    found = entry.differences[name]
    if found.low is None:
        return number(found.value, signed=True, digits=1)
    return f"{number(found.value, signed=True, digits=1)} {interval(found, digits=1)}"


def means_table(
    section: Section, summaries: Sequence[GroupSummary], *, intervals: bool = True
) -> Table:
    """Scores by row, groups by column: mean ± deviation, interval, the paper's value."""
    labels = section_labels(section)
    header = ["IoU, %"]
    columns: list[list[str]] = []
    for summary in summaries:
        names = [name for name, _ in named_scores(section)]
        count = len(summary.group.results)
        header.append(f"{labels[summary.group.label]}, n={count}")
        columns.append([spread(summary.scores[name], count) for name in names])
        if intervals and summary.interval in (SEEDS, IMAGES):
            header.append("95 % interval" + (" (images)" if summary.interval == IMAGES else ""))
            columns.append([interval(summary.scores[name]) for name in names])
        if summary.paper:
            header.append("paper")
            columns.append([number(summary.paper[n]) if n in summary.paper else "" for n in names])
    return _score_table("Scores", section, header, columns)


def _score_table(
    title: str, section: Section, header: list[str], columns: Sequence[Sequence[str]]
) -> Table:
    """Scores by row in three blocks: tested classes, others, means."""
    captions = [caption for _, caption in named_scores(section)]
    return Table(
        title,
        header,
        [list(row) for row in zip(captions, *columns, strict=True)],
        marked=frozenset({*section.family, CAPTIONS[MINORITY], CAPTIONS["miou"]}),
        rules=frozenset({len(section.family), len(section.classes)} - {0}),
    )


def comparison_title(section: Section, entry: Comparison) -> str:
    """Which method against which baseline, and how many runs of each."""
    labels = section_labels(section)
    first, second = entry.baseline.group, entry.method.group
    return (
        f"{labels[second.label]} (n={len(second.results)}) against {labels[first.label]}"
        f" (n={len(first.results)})"
    )


def comparison_table(section: Section, entry: Comparison, *, means: bool = True) -> Table:
    """Scores by row: the difference with its interval, the tests, the paper's difference.

    Args:
        section: that holds the comparison.
        entry: the comparison.
        means: with the means of both.
    """
    names = [name for name, _ in named_scores(section)]
    found = [entry.differences[name] for name in names]
    columns = {
        "difference": [number(one.value, signed=True) for one in found],
        **({"95 % interval": list(map(interval, found))} if entry.interval != NONE else {}),
    }
    if means:
        before, after = entry.baseline.scores, entry.method.scores
        both = {
            "baseline": [number(before[name].mean) for name in names],
            "method": [number(after[name].mean) for name in names],
        }
        columns = both | columns
    if any(one.p is not None for one in found):
        tested = {*section.family, MINORITY, "miou"}
        columns["p"] = [p_value(entry.differences[n].p) if n in tested else "" for n in names]
        columns["p Holm"] = [
            p_value(entry.differences[n].p_holm) if n in section.family else "" for n in names
        ]
    old, new = entry.baseline.paper, entry.method.paper
    if old.keys() & new.keys():
        columns["paper"] = [
            number(new[n] - old[n], signed=True) if n in old and n in new else "" for n in names
        ]
    title = comparison_title(section, entry)
    return _score_table(title, section, ["IoU, %", *columns], list(columns.values()))


def findings(section: Section, entry: Comparison) -> str:
    """Which classes' differences have intervals above zero, below it, around it; maybe empty."""
    above: list[str] = []
    below: list[str] = []
    around: list[str] = []
    for name in (*section.family, *section.others):
        low, high = entry.differences[name].low, entry.differences[name].high
        if low is not None and high is not None:
            (above if low > 0 else below if high < 0 else around).append(name)
    if not above + below + around:
        return ""
    return (
        f"Interval above zero: {', '.join(above) or 'no class'};"
        f" below zero: {', '.join(below) or 'no class'}; around zero: {len(around)} of"
        f" {len(section.classes)} classes."
    )


def changed_flags(entry: Comparison) -> str:
    """The flags in which a method differs from its baseline."""
    first, second = entry.baseline.group.results[0], entry.method.group.results[0]
    return "; ".join(
        f"{name}: {format_flag(first.flags, name)} -> {format_flag(second.flags, name)}"
        for name in differing_flags([first, second], facts=True)
    )


def flags_table(summaries: Sequence[GroupSummary]) -> Table:
    """The flags that differ between the groups and are not in their labels' facts."""
    groups = [summary.group for summary in whole(summaries)]
    rows = [group.results[0] for group in groups]
    names = differing_flags(rows)
    return Table(
        "Flags that differ between the groups",
        ["", *names],
        [
            [group.label, *(format_flag(row.flags, name) for name in names)]
            for group, row in zip(groups, rows, strict=True)
            if names
        ],
    )


def runs_table(summaries: Sequence[GroupSummary]) -> Table:
    """Every result file with its seed and its checkpoint, under its group."""
    header = ["seed", "step", "checkpoint", "commit", "file"]
    rows = []
    for group in (summary.group for summary in whole(summaries)):
        rows.append([group.label, *[""] * (len(header) - 1)])
        rows += [
            [
                f"  {result.seed or '?'}",
                f"{result.step:,}" if result.step is not None else "",
                " ".join(sha[:8] for sha in result.sha256.split()),
                (result.commit or "")[:7],
                str(result.path),
            ]
            for result in group.results
        ]
    return Table("Results", header, rows)


def whole(summaries: Sequence[GroupSummary]) -> list[GroupSummary]:
    """Those that have files of their own: neither members nor subsets."""
    groups = [(summary, summary.group) for summary in summaries]
    return [summary for summary, group in groups if not group.facts.part and not group.subset]
