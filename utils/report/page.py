"""A report as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from utils.report.content import Report, Section
from utils.report.layout import (
    Table,
    changed_flags,
    comparison_table,
    flags_table,
    means_table,
    overview_tables,
    runs_table,
)
from utils.report.plots import as_svg, forest_figure, seeds_figure

HTML_MARK = "<!doctype html><!-- SegDoubt report -->"
MOST_PLOTS = 40  # of differences, so that a page of hundreds of results stays quick
PLOT_NOTE = (
    "In the plots of differences an interval is blue where it lies above zero, orange below, grey"
    " where it holds zero; bold classes are those tested."
)
STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; color: #1f2933;
  background: #fdfdfc; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; line-height: 1.25; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .5rem; padding-top: 1rem;
  border-top: 1px solid #e4e7eb; }
h3 { font-size: 1rem; margin: 2rem 0 .25rem; overflow-wrap: anywhere; }
p { margin: .25rem 0 .75rem; }
.quiet { color: #52606d; font-size: .9rem; overflow-wrap: anywhere; }
.warning { border-left: 3px solid #c2571a; background: #fdf3ec; padding: .5rem .75rem; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
.pair { display: flex; flex-wrap: wrap; gap: 0 2rem; align-items: flex-start; }
.pair > * { flex: 1 1 22rem; min-width: 0; }
svg { width: 100%; max-width: 30rem; height: auto; display: block; }
svg * { stroke-linejoin: round; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .55rem; text-align: right; white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
  background: #fdfdfc; }
thead th { border-bottom: 1px solid #9aa5b1; font-weight: 600; white-space: normal;
  vertical-align: bottom; max-width: 11rem; overflow-wrap: anywhere; }
tbody tr:hover td { background: #f3f6f9; } tr.marked td { font-weight: 600; }
table.plain td, table.plain th { text-align: left; white-space: normal; overflow-wrap: anywhere;
  min-width: 3.5rem; }
"""


def as_html(report: Report) -> str:
    """The page: plots as inline SVG, style inline, no request to anywhere."""
    body = [
        "<h1>Report over results</h1>",
        f'<p class="quiet">{escape(report.title)}</p>',
        *(f'<p class="warning">{escape(warning)}</p>' for warning in report.warnings),
    ]
    for overview in overview_tables(report):
        body.append(f"<h2>{escape(overview.title)}</h2>{_table(overview)}")
    left = MOST_PLOTS
    for section in report.sections:
        body += _section(section, left)
        left -= len(section.comparisons)
    if left < 0:
        body.append(f'<p class="quiet">Plots are drawn for {MOST_PLOTS} comparisons only.</p>')
    body.append(f"<h2>How to read this</h2><p>{PLOT_NOTE}</p>")
    body += [f"<p>{escape(note)}</p>" for note in report.notes]
    for table in (flags_table(report.summaries), runs_table(report.summaries)):
        if table.rows:
            body.append(f"<h2>{escape(table.title)}</h2>{_table(table, plain=True)}")
    content = "\n".join(body)
    return (
        f'{HTML_MARK}\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{content}\n</body></html>\n"
    )


def _section(section: Section, plots: int) -> Iterator[str]:
    """One section with at most so many plots of differences."""
    title = section.title[:1].upper() + section.title[1:]
    yield f"<h2>{escape(title)}</h2>"
    if any(len(summary.group.results) > 1 for summary in section.summaries) and plots > 0:
        yield "<h3>mIoU of every run</h3>"
        yield '<p class="quiet">Dots are runs, ticks means, bars their 95 % intervals.</p>'
        yield as_svg(seeds_figure(section), f"mIoU by run, {section.title}")
    yield f"<h3>Scores</h3>{_table(means_table(section, section.summaries))}"
    for index, entry in enumerate(section.comparisons):
        table = comparison_table(section, entry)
        flags = changed_flags(entry)
        yield f"<h3>{escape(table.title)}</h3>"
        yield f'<p class="quiet">Flags that differ: {escape(flags or "none")}</p>'
        plot = ""
        if index < plots:
            description = f"Differences by class, {section.title}: {table.title}"
            plot = f"<div>{as_svg(forest_figure(section, entry), description)}</div>"
        yield f'<div class="pair">{plot}{_table(table)}</div>'


def _table(table: Table, *, plain: bool = False) -> str:
    header = "".join(f"<th>{escape(heading)}</th>" for heading in table.header)
    rows = "\n".join(
        f"<tr{' class=marked' if row[0] in table.marked else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in table.rows
    )
    kind = ' class="plain"' if plain else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{header}</tr></thead>'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )
