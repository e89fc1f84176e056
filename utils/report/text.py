"""A report as plain text, as CSV and as LaTeX."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from utils.report.content import CAPTIONS, IMAGES, Comparison, GroupSummary, Report, Section
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
from utils.report.tables import format_table

WIDTH = 100  # columns of a text report
HEADING_WIDTH = 16  # of a column
GROUPS_IN_A_LATEX_TABLE = 4
COLUMNS = (
    *("group", "class", "metric", "mean", "std", "n", "low", "high", "interval", "baseline"),
    *("difference", "difference_low", "difference_high", "p", "p_holm", "paper"),
)
TEXT_MARK = "SegDoubt report: "
CSV_MARK = ",".join(COLUMNS)
LATEX_MARK = "% SegDoubt report"
ESCAPES = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
    }
)


def as_text(report: Report) -> str:
    """The report in at most 100 columns, where the names of groups and files allow."""
    data = _wrapped((line[:1].upper() + line[1:] for line in report.data), "- ")
    blocks = ["\n".join((TEXT_MARK + _counted(report), *data))]
    if report.warnings:
        blocks.append("\n".join(_wrapped(report.warnings, "WARNING: ")))
    blocks += [_heading("Overview"), *map(_text_table, overview_tables(report))]
    for section in report.sections:
        if section.shown:
            blocks += _text_section(section)
    members = overview_tables(report, members=True)
    if members:
        blocks += [_heading("Members of the ensembles"), *map(_text_table, members)]
    blocks += [_heading("How to read this"), "\n".join(_wrapped(report.notes, "- "))]
    blocks += [_heading("Results"), "\n".join(_runs(report.summaries))]
    return "\n\n".join(blocks) + "\n"


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
    header = ["\n".join(_fold(heading)) for heading in table.header]
    return f"{table.title}\n\n{format_table(table.rows, header, table.rules)}"


def _fold(heading: str) -> list[str]:
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
    """One row for each group and score, in percent; empty where there is no number."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for section in report.sections:
        compared = {entry.method.group.label: entry for entry in section.comparisons}
        for summary in section.summaries:
            entry = compared.get(summary.group.label)
            for name, _ in named_scores(section):
                writer.writerow(_csv_row(summary, entry, name))
    return buffer.getvalue()


def _csv_row(summary: GroupSummary, entry: Comparison | None, name: str) -> dict[str, object]:
    score = summary.scores[name]
    row: dict[str, object] = {
        "group": summary.group.label,
        "class": "" if name in CAPTIONS else name,
        "metric": name if name in CAPTIONS else "iou",
        "mean": score.mean,
        "std": score.std,
        "n": score.n,
        "low": score.low,
        "high": score.high,
        "interval": "" if score.low is None else summary.interval,
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
    return {key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()}


def as_latex(report: Report) -> str:
    r"""Tables for ``\usepackage{booktabs}``, one for each block of the report."""
    tables = [_latex_table(table) for table in overview_tables(report)]
    for section in report.sections:
        if not section.shown:
            continue
        for start in range(0, len(section.shown), GROUPS_IN_A_LATEX_TABLE):
            part = section.shown[start : start + GROUPS_IN_A_LATEX_TABLE]
            images = any(summary.interval == IMAGES for summary in part)
            tables.append(_latex_table(means_table(section, part, intervals=images), section.title))
        for entry in section.comparisons:
            tables.append(_latex_table(comparison_table(section, entry), section.title))
    notes = "\n".join(f"% {line}" for line in (*report.warnings, *report.notes))
    return "\n\n".join((f"{LATEX_MARK}; needs \\usepackage{{booktabs}}", notes, *tables)) + "\n"


def _latex_table(table: Table, context: str = "") -> str:
    caption = f"{table.title} ({context})" if context else table.title
    header = " & ".join(_latex_heading(heading) for heading in table.header)
    rows = []
    for place, row in enumerate(table.rows):
        if place in table.rules:
            rows.append(r"\midrule")
        cells = [escape_latex(cell.lstrip()) for cell in row]
        indent = r"\quad " * ((len(row[0]) - len(row[0].lstrip())) // 2)
        rows.append(indent + " & ".join(cells) + r" \\")
    lines = (
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        header + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    )
    return "\n".join(lines)


def _latex_heading(heading: str) -> str:
    lines = r" \\ ".join(escape_latex(line) for line in _fold(heading))
    return rf"\shortstack[r]{{{lines}}}"


def escape_latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return text.translate(ESCAPES)
