"""A report as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from utils.report.content import Report, Section
from utils.report.layout import (
    Table,
    changed_flags,
    comparison_table,
    findings,
    flags_table,
    means_table,
    overview_tables,
    runs_table,
)
from utils.report.maps import MapPicture, map_pictures, matrix_pictures
from utils.report.plots import as_svg, forest_figure, seeds_figure
from utils.report.reliability_layout import (
    RELIABILITY,
    ROBUSTNESS,
    Picture,
    reliability_notes,
    reliability_tables,
    robustness_notes,
    robustness_table,
)
from utils.report.unknown_layout import (
    UNKNOWN,
    false_alarm_tables,
    unknown_notes,
    unknown_tables,
)

HTML_MARK = "<!doctype html><!-- SegDoubt report -->"
MOST_PLOTS = 24  # of differences, so that a page of hundreds of results stays quick
REM_IN_AN_INCH = 5.9  # of the wider pictures, as of the narrow ones
FURTHER_DECIMALS = re.compile(r"(?<=\d\.\d\d)\d+")
LEAST_WIDTH = 40.0  # rem; on narrower screens wide pictures scroll
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
.pair { display: flex; flex-wrap: wrap; gap: 0 1.5rem; align-items: flex-start; }
.pair > * { flex: 1 1 20rem; min-width: 0; } .pair > .scroll { flex: 0 1 auto; }
img { max-width: 100%; height: auto; }
svg { width: 100%; max-width: 29rem; height: auto; display: block; }
svg * { stroke-linejoin: round; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .55rem; text-align: right; white-space: nowrap; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
  background: #fdfdfc; }
thead th { border-bottom: 1px solid #9aa5b1; font-weight: 600; white-space: pre-line;
  vertical-align: bottom; max-width: 11rem; }
td:first-child { white-space: pre; } tr.rule td { border-top: 1px solid #e4e7eb; }
tbody tr:hover td { background: #f3f6f9; } tr.marked td { font-weight: 600; }
@media (max-width: 32rem) { table { font-size: .75rem; } th, td { padding: .2rem .3rem; }
  thead th { max-width: 6.5rem; } body { padding: 1rem .75rem 3rem; } }
table.plain td, table.plain th { text-align: left; }
"""


def as_html(report: Report, pictures: Sequence[Picture] = ()) -> str:
    """The page: plots as inline SVG, style inline, no request to anywhere.

    Args:
        report: all of it.
        pictures: of robustness and reliability, see ``report_pictures``.
    """
    data = "<br>".join(escape(line[:1].upper() + line[1:]) for line in report.data)
    body = [
        "<h1>Report over results</h1>",
        f"<p>{data}</p>",
        *(f'<p class="warning">{escape(warning)}</p>' for warning in report.warnings),
    ]
    body += _tables("Overview", overview_tables(report))
    body += _robustness(report, pictures)
    body += _reliability(report, pictures)
    body += _unknown(report, pictures)
    body += _maps(map_pictures(report.summaries), "Maps of uncertainty")
    left = MOST_PLOTS
    for section in report.sections:
        if section.shown:
            body += _section(section, left)
            left -= len(section.comparisons)
    body += _tables("Members of the ensembles", overview_tables(report, members=True))
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
        f"<title>{escape('; '.join(report.data))}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{content}\n</body></html>\n"
    )


def _tables(title: str, tables: Sequence[Table], notes: Sequence[str] = ()) -> Iterator[str]:
    """A heading, notes and tables, nothing without tables."""
    if tables:
        yield f"<h2>{escape(title)}</h2>"
        yield from (f"<p>{escape(note)}</p>" for note in notes)
    for table in tables:
        yield f"<h3>{escape(table.title)}</h3>{_table(table)}"


def _robustness(report: Report, pictures: Sequence[Picture]) -> Iterator[str]:
    """Errors relative to the best on the source, if there are several test sets."""
    if report.robustness is None:
        return
    yield "<h2>Robustness</h2>"
    yield from (f"<p>{escape(note)}</p>" for note in robustness_notes(report.robustness))
    yield from (_wide_svg(picture) for picture in pictures if picture.section == ROBUSTNESS)
    yield _table(robustness_table(report.robustness))


def _reliability(report: Report, pictures: Sequence[Picture]) -> Iterator[str]:
    """Tables, then the pictures of each test set, if there are any."""
    yield from _tables("Reliability", reliability_tables(report), reliability_notes(report))
    yield from _figures(pictures, RELIABILITY)


def _unknown(report: Report, pictures: Sequence[Picture]) -> Iterator[str]:
    """What was found of unknown objects, if anything was searched for any."""
    if report.unknown is None:
        return
    tables = [*unknown_tables(report.unknown), *false_alarm_tables(report)]
    yield from _tables("Unknown objects", tables, unknown_notes(report))
    yield from _figures(pictures, UNKNOWN)
    yield from _maps(matrix_pictures(report.summaries))


def _figures(pictures: Sequence[Picture], section: str) -> Iterator[str]:
    """The pictures of a section under their headings."""
    shown = ""
    for picture in pictures:
        if picture.section != section:
            continue
        if picture.heading != shown:
            shown = picture.heading
            yield f"<h3>{escape(shown)}</h3>"
        yield _wide_svg(picture)


def _maps(pictures: Iterable[MapPicture], title: str = "") -> Iterator[str]:
    """Pictures that tests left beside their results, under their groups."""
    shown = ""
    for picture in pictures:
        if title and not shown:
            yield f"<h2>{escape(title)}</h2>"
        if picture.group != shown:
            shown = picture.group
            yield f"<h3>{escape(shown)}</h3>"
        content = base64.b64encode(picture.jpeg).decode()
        yield f'<p class="quiet">{escape(picture.image)}</p>'
        yield f'<img alt="{escape(picture.image)}" src="data:image/jpeg;base64,{content}">'


def _wide_svg(picture: Picture) -> str:
    """A picture that scrolls where the screen is narrow, so that its texts stay readable."""
    width = REM_IN_AN_INCH * picture.figure.get_figwidth()
    style = f"max-width: {width:.0f}rem; min-width: {min(width, LEAST_WIDTH):.0f}rem"
    svg = as_svg(picture.figure, picture.description).replace("<svg", f'<svg style="{style}"', 1)
    # Hundreds of curves: a hundredth of a point is more than enough.
    return f'<div class="scroll">{FURTHER_DECIMALS.sub("", svg)}</div>'


def _section(section: Section, plots: int) -> Iterator[str]:
    """One section with at most so many plots of differences."""
    yield f"<h2>{escape(section.title)}</h2>"
    if any(len(summary.group.results) > 1 for summary in section.shown) and plots > 0:
        yield "<h3>mIoU of every run</h3>"
        yield '<p class="quiet">Dots are runs, ticks means, bars their 95 % intervals.</p>'
        yield as_svg(seeds_figure(section), f"mIoU by run, {section.title}")
    yield f"<h3>Scores</h3>{_table(means_table(section, section.shown))}"
    for index, entry in enumerate(section.comparisons):
        table = comparison_table(section, entry, means=False)
        flags = changed_flags(entry)
        yield f"<h3>{escape(table.title)}</h3>"
        found = findings(section, entry)
        yield f"<p>{escape(found)}</p>" if found else ""
        yield f'<p class="quiet">Flags that differ: {escape(flags or "none")}</p>'
        plot = ""
        if index < plots:
            description = f"Differences by class, {section.title}: {table.title}"
            plot = as_svg(forest_figure(section, entry), description)
        yield f'<div class="pair">{plot}{_table(table)}</div>'


def _table(table: Table, *, plain: bool = False) -> str:
    header = "".join(f"<th>{_breakable(heading)}</th>" for heading in table.header)
    rows = "\n".join(
        f"<tr{_row_class(table, place)}>{_cells(row)}</tr>" for place, row in enumerate(table.rows)
    )
    kind = ' class="plain"' if plain else ""
    return (
        f'<div class="scroll"><table{kind}><thead><tr>{header}</tr></thead>'
        f"<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cells(row: Sequence[str]) -> str:
    if len(row) > 1 and not any(row[1:]):
        return f'<td colspan="{len(row)}">{escape(row[0])}</td>'
    return "".join(f"<td>{escape(cell)}</td>" for cell in row)


def _row_class(table: Table, place: int) -> str:
    names = [
        *(["marked"] if table.rows[place][0] in table.marked else []),
        *(["rule"] if place in table.rules else []),
    ]
    return f' class="{" ".join(names)}"' if names else ""


def _breakable(heading: str) -> str:
    """A heading that may break after underscores."""
    return escape(heading).replace("_", "_<wbr>")
