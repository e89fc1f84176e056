"""A report as plain text and as CSV."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from utils.report.content import (
    IMAGES,
    MINORITY,
    SEEDS,
    Comparison,
    GroupSummary,
    Report,
    Section,
)
from utils.report.layout import (
    Table,
    changed_flags,
    comparison_table,
    findings,
    means_table,
    named_scores,
    overview_tables,
    whole,
)
from utils.report.reliability_layout import (
    reliability_notes,
    reliability_tables,
    robustness_notes,
    robustness_table,
)
from utils.report.tables import format_table, is_mean
from utils.report.unknown_layout import (
    false_alarm_tables,
    unknown_notes,
    unknown_tables,
)
from utils.statistics import Summary

WIDTH = 100  # columns of a text report
HEADING_WIDTH = 16  # of a column
COLUMNS = (
    *("group", "class", "metric", "mean", "std", "n", "low", "high", "interval", "baseline"),
    *("difference", "difference_low", "difference_high", "p", "p_holm", "paper"),
)
TEXT_MARK = "SegDoubt report: "
CSV_MARK = ",".join(COLUMNS)


def as_text(report: Report) -> str:
    """The report in at most 100 columns, where the names of groups and files allow."""
    data = _wrapped((line[:1].upper() + line[1:] for line in report.data), "- ")
    blocks = ["\n".join((TEXT_MARK + _counted(report), *data))]
    if report.warnings:
        blocks.append("\n".join(_wrapped(report.warnings, "WARNING: ")))
    blocks += _text_tables("Overview", overview_tables(report))
    blocks += _text_reliability(report)
    blocks += _text_unknown(report)
    for section in report.sections:
        if section.shown:
            blocks += _text_section(section)
    blocks += _text_tables("Members of the ensembles", overview_tables(report, members=True))
    blocks += [_heading("How to read this"), "\n".join(_wrapped(report.notes, "- "))]
    blocks += [_heading("Results"), "\n".join(_runs(report.summaries))]
    return "\n\n".join(blocks) + "\n"


def _text_reliability(report: Report) -> Iterator[str]:
    """Robustness and reliability, as far as there are any."""
    if report.robustness is not None:
        yield _heading("Robustness")
        yield "\n".join(_wrapped(robustness_notes(report.robustness)))
        yield _text_table(robustness_table(report.robustness))
    tables = _fitting(reliability_tables(report), reliability_tables(report, intervals=False))
    yield from _text_tables("Reliability", tables, reliability_notes(report))


def _text_unknown(report: Report) -> Iterator[str]:
    """Unknown objects, in the first way to show them that fits the width."""
    if report.unknown is None:
        return
    unknown = report.unknown
    ways = [
        unknown_tables(unknown),
        unknown_tables(unknown, intervals=False),
        unknown_tables(unknown, apart=True),
        unknown_tables(unknown, apart=True, intervals=False),
        unknown_tables(unknown, apart=True, intervals=False, digits=1),
    ]
    tables = next((tables for tables in ways if all(map(_fits, tables))), ways[-1])
    tables += _fitting(false_alarm_tables(report), false_alarm_tables(report, intervals=False))
    yield from _text_tables("Unknown objects", tables, unknown_notes(report))


def _fitting(tables: Sequence[Table], narrower: Sequence[Table]) -> list[Table]:
    """The tables, but the narrower ones where they do not fit the width."""
    return [
        table if _fits(table) else narrow for table, narrow in zip(tables, narrower, strict=True)
    ]


def _text_tables(title: str, tables: Sequence[Table], notes: Sequence[str] = ()) -> Iterator[str]:
    """A heading, notes and tables, nothing without tables."""
    if not tables:
        return
    yield _heading(title)
    if notes:
        yield "\n".join(_wrapped(notes))
    yield from map(_text_table, tables)


def _counted(report: Report) -> str:
    groups = whole(report.summaries)
    results = sum(len(summary.group.results) for summary in groups)
    return (
        f"{results} result{'' if results == 1 else 's'} in"
        f" {len(groups)} group{'' if len(groups) == 1 else 's'}"
    )


def _heading(text: str) -> str:
    lines = textwrap.wrap(text, WIDTH, break_on_hyphens=False)
    return "\n".join((*lines, "=" * max(map(len, lines))))


def _text_section(section: Section) -> Iterator[str]:
    yield _heading(section.title)
    yield from map(_text_table, _means_tables(section))
    for entry in section.comparisons:
        below = [findings(section, entry)] if findings(section, entry) else []
        below.append(f"Flags that differ: {changed_flags(entry) or 'none'}")
        yield "\n".join((_text_table(comparison_table(section, entry)), "", *_wrapped(below)))


def _means_tables(section: Section) -> Iterator[Table]:
    """The scores in tables that fit the width; with intervals if one table holds them all.

    Intervals over images stay, because a single run has no deviation.
    """
    everything = means_table(section, section.shown)
    if _fits(everything):
        yield everything
        return
    images = any(summary.interval == IMAGES for summary in section.shown)
    chunk: list[GroupSummary] = []
    for summary in section.shown:
        if chunk and not _fits(means_table(section, [*chunk, summary], intervals=images)):
            yield means_table(section, chunk, intervals=images)
            chunk = []
        chunk.append(summary)
    yield means_table(section, chunk, intervals=images)


def _fits(table: Table) -> bool:
    return max(map(len, _text_table(table).splitlines())) <= WIDTH


def _text_table(table: Table) -> str:
    header = ["\n".join(fold(heading)) for heading in table.header]
    return f"{table.title}\n\n{format_table(table.rows, header, table.rules)}"


def fold(heading: str) -> list[str]:
    """Lines of a heading, broken at spaces and after underscores too where it is long."""
    lines = []
    for line in heading.split("\n"):
        lines.append("")
        for part in re.findall(r"[^ _]*_| ?[^ _]+", line):
            if lines[-1] and len(lines[-1] + part) > HEADING_WIDTH:
                lines.append("")
            lines[-1] += part if lines[-1] else part.lstrip()
    return lines


def _wrapped(texts: Iterable[str], lead: str = "") -> Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(
            lead + text,
            WIDTH,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def _runs(summaries: Sequence[GroupSummary]) -> Iterator[str]:
    for summary in whole(summaries):
        group = summary.group
        yield f"{group.label}: n = {len(group.results)}"
        for result in group.results:
            hashes = " ".join(sha[:8] for sha in result.sha256.split())
            yield f"  seed {result.seed or '?'}, checkpoint {hashes}"
            yield f"    {result.path}"


def as_csv(report: Report) -> str:
    """A row for each group and score: percent but for NLL, Brier score, thresholds, counts, ratios.

    Empty where there is no number.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for section in report.sections:
        compared = {entry.method.group.label: entry for entry in section.comparisons}
        for summary in section.summaries:
            entry = compared.get(summary.group.label)
            for name, _ in named_scores(section):
                writer.writerow(_csv_row(summary, entry, name))
    for row in _reliability_rows(report):
        writer.writerow(_rounded(row))
    return buffer.getvalue()


def _reliability_rows(report: Report) -> Iterator[dict[str, object]]:
    """Every reliability number and every relative error, of each group."""
    for summary in report.summaries:
        over = SEEDS if len(summary.group.results) > 1 else IMAGES
        for path, found in summary.numbers.items():
            metric, _, name = path.partition("class_ece.")
            yield {
                **_summary_cells(summary, found, over),
                "class": name,
                "metric": f"{metric}class_ece" if name else path,
            }
    for point in report.robustness.points if report.robustness else ():
        for metric, found in (
            ("relative_miou_error", point.miou_error),
            ("relative_ece", point.ece_error),
        ):
            if found.n:
                yield {**_summary_cells(point.summary, found, SEEDS), "metric": metric}


def _summary_cells(summary: GroupSummary, found: Summary, over: str) -> dict[str, object]:
    return {
        "group": summary.group.label,
        "mean": found.mean,
        "std": found.std,
        "n": found.n,
        "low": found.low,
        "high": found.high,
        "interval": "" if found.low is None else over,
    }


def _rounded(row: Mapping[str, object]) -> dict[str, object]:
    return {key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()}


def _csv_row(summary: GroupSummary, entry: Comparison | None, name: str) -> dict[str, object]:
    score, mean = summary.scores[name], name == MINORITY or is_mean(name)
    row: dict[str, object] = {
        **_summary_cells(summary, score, summary.interval),
        "class": "" if mean else name,
        "metric": name if mean else "iou",
        "paper": summary.paper.get(name),
    }
    if entry is not None:
        found = entry.differences[name]
        row |= {
            "baseline": entry.baseline.group.label,
            "difference": found.value,
            "difference_low": found.low,
            "difference_high": found.high,
            "p": found.p,
            "p_holm": found.p_holm,
        }
    return _rounded(row)
