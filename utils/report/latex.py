"""A report as LaTeX."""

from __future__ import annotations

from utils.report.content import IMAGES, Report
from utils.report.layout import Table, comparison_table, means_table, overview_tables
from utils.report.reliability_layout import reliability_tables, robustness_table
from utils.report.text import fold
from utils.report.unknown_layout import false_alarm_tables, unknown_tables

GROUPS_IN_A_LATEX_TABLE = 4
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


def as_latex(report: Report) -> str:
    r"""Tables for ``\usepackage{booktabs}``, one for each block of the report."""
    tables = [_latex_table(table) for table in overview_tables(report)]
    if report.robustness is not None:
        tables.append(_latex_table(robustness_table(report.robustness)))
    tables += map(_latex_table, reliability_tables(report))
    if report.unknown is not None:
        tables += map(_latex_table, unknown_tables(report.unknown))
        tables += map(_latex_table, false_alarm_tables(report))
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
    lines = r" \\ ".join(escape_latex(line) for line in fold(heading))
    return rf"\shortstack[r]{{{lines}}}"


def escape_latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return text.translate(ESCAPES)
