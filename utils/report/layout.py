"""The tables of a report, ready for any form of output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from utils.report.content import IMAGES, SEEDS, Comparison, GroupSummary, Report, Section
from utils.report.groups import differing_flags, format_flag, make_labels
from utils.report.results import shorten
from utils.report.tables import MISSING, SCORES
from utils.statistics import Difference, Summary


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
        title: one line.
        header: a heading for each column, the first one for the names of the rows.
        rows: cells; the first of each row is its name.
        marked: names of the rows to bring out.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    marked: frozenset[str] = frozenset()


def number(value: float | None, *, signed: bool = False) -> str:
    """Two decimals, ``n/a`` for None."""
    if value is None:
        return MISSING
    return f"{value:+.2f}" if signed else f"{value:.2f}"


def spread(summary: Summary, expected: int) -> str:
    """Mean ± deviation, with n where a score has fewer values than its group has rows."""
    if summary.mean is None:
        return MISSING
    text = f"{summary.mean:.2f}"
    if summary.std is not None:
        text += f" ± {summary.std:.2f}"
    return f"{text} (n {summary.n})" if summary.n < expected else text


def interval(found: Summary | Difference) -> str:
    """A 95 % interval in brackets, ``n/a`` where there is none."""
    if found.low is None or found.high is None:
        return MISSING
    return f"[{found.low:.2f}, {found.high:.2f}]"


def p_value(p: float | None) -> str:
    """Three decimals, ``n/a`` for None."""
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def section_labels(section: Section) -> dict[str, str]:
    """What tells a section's groups apart, by their full labels."""
    groups = [summary.group for summary in section.summaries]
    short = make_labels([group.results[0] for group in groups])
    return {group.label: label for group, label in zip(groups, short, strict=True)}


def named_scores(section: Section) -> list[tuple[str, str]]:
    """Every score of a section with the name people read, classes first."""
    return [*((name, name) for name in section.classes), *SCORES.items()]


def overview_tables(report: Report) -> list[Table]:
    """The mIoU of every group and its distance from the baseline, a table for each test.

    Members follow their whole. Empty where one section shows everything.
    """
    if len(report.sections) < 2:
        return []
    rows: dict[str, list[list[str]]] = {}
    for section in report.sections:
        gains = {
            entry.method.group.label: entry.differences["miou"].value
            for entry in section.comparisons
        }
        for summary in section.summaries:
            group = summary.group
            facts, gain = group.facts, gains.get(group.label)
            rows.setdefault(group.data, []).append(
                [
                    f"  member {shorten(facts.part)}" if facts.part else facts.model,
                    facts.method if facts.kind in ("best", "") else f"{facts.method}, {facts.kind}",
                    str(len(group.results)),
                    spread(summary.scores["miou"], len(group.results)),
                    "" if gain is None else number(gain, signed=True),
                ]
            )
    header = ["model", "method", "n", "mIoU, %", "difference"]
    return [Table(f"Overview: {data}", header, entries) for data, entries in rows.items()]


def means_table(
    section: Section, summaries: Sequence[GroupSummary], *, intervals: bool = True
) -> Table:
    """Scores by row, groups by column: mean ± deviation, interval, the paper's value."""
    labels = section_labels(section)
    header = ["%"]
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
    captions = [caption for _, caption in named_scores(section)]
    rows = [list(row) for row in zip(captions, *columns, strict=True)]
    return Table("Scores", header, rows, frozenset({SCORES["miou"]}))


def comparison_title(section: Section, entry: Comparison) -> str:
    """Which method against which baseline."""
    labels = section_labels(section)
    return f"{labels[entry.method.group.label]} against {labels[entry.baseline.group.label]}"


def comparison_table(section: Section, entry: Comparison) -> Table:
    """Scores by row: both means, the difference with its interval, the tests, the paper's."""
    header = ["%", "baseline", "method", "difference", "95 % interval"]
    tested = entry.interval == SEEDS
    paper = entry.baseline.paper.keys() & entry.method.paper.keys()
    header += ["p", "p Holm"] if tested else []
    header += ["paper"] if paper else []
    rows = []
    for name, caption in named_scores(section):
        found = entry.differences[name]
        row = [
            caption,
            number(entry.baseline.scores[name].mean),
            number(entry.method.scores[name].mean),
            number(found.value, signed=True),
            interval(found),
        ]
        if tested:
            in_family = name in entry.family
            row.append(p_value(found.p) if in_family or name == "miou" else "")
            row.append(p_value(found.p_holm) if in_family else "")
        if paper:
            known = name in paper
            row.append(
                number(entry.method.paper[name] - entry.baseline.paper[name], signed=True)
                if known
                else ""
            )
        rows.append(row)
    marked = frozenset({*entry.family, SCORES["miou"]})
    return Table(comparison_title(section, entry), header, rows, marked)


def changed_flags(entry: Comparison) -> str:
    """The flags in which a method differs from its baseline."""
    first, second = entry.baseline.group.results[0], entry.method.group.results[0]
    return "; ".join(
        f"{name}: {format_flag(first.flags.get(name))} -> {format_flag(second.flags.get(name))}"
        for name in differing_flags([first, second], facts=True)
    )


def flags_table(summaries: Sequence[GroupSummary]) -> Table:
    """The flags that differ between the groups, members left out."""
    groups = [summary.group for summary in summaries if not summary.group.facts.part]
    rows = [group.results[0] for group in groups]
    names = differing_flags(rows, facts=True)
    return Table(
        "Flags that differ between the groups",
        ["flag", *(group.label for group in groups)],
        [[name, *(format_flag(row.flags.get(name)) for row in rows)] for name in names],
    )


def runs_table(summaries: Sequence[GroupSummary]) -> Table:
    """Every result file with its seed and its checkpoint."""
    return Table(
        "Results",
        ["group", "seed", "step", "checkpoint", "commit", "file"],
        [
            [
                summary.group.label,
                result.seed or "?",
                f"{result.step:,}" if result.step is not None else "",
                " ".join(sha[:12] for sha in result.sha256.split()),
                (result.commit or "")[:7],
                str(result.path),
            ]
            for summary in summaries
            if not summary.group.facts.part
            for result in summary.group.results
        ],
    )
