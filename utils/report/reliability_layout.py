"""The tables of reliability and robustness in a report, and which pictures go with them.

Those of unknown objects are in ``utils.report.unknown_layout``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from utils.report.content import GroupSummary, Report, Robustness
from utils.report.layout import Table, short_labels, spread
from utils.report.measures import Block, blocks_of, of_unknown
from utils.report.reliability import reliability_figures
from utils.report.tables import bracketed
from utils.statistics import Summary

MOST_TESTS = 3  # with pictures, so that a page of many conditions stays quick
ROBUSTNESS, RELIABILITY = "robustness", "reliability"  # sections of a page
UNMEASURED = Summary(None, None, 0)


class Picture(NamedTuple):
    """A figure of a report.

    Attributes:
        name: of its PNG, without the ending.
        heading: what it stands under.
        description: in words, for those who cannot see it.
        figure: of Matplotlib.
        section: of the page.
    """

    name: str
    heading: str
    description: str
    figure: Any
    section: str


def reliability_tables(report: Report, *, intervals: bool = True) -> list[Table]:
    """A table for calibration and one for each score, every group a row under its test and model.

    None of unknown objects.

    Args:
        report: all of it.
        intervals: of single runs, in brackets beside the values.
    """
    summaries = [summary for summary in report.summaries if summary.numbers]
    return [
        block_table(block, summaries, intervals=intervals)
        for block in blocks_of(summary.numbers for summary in summaries)
        if not of_unknown(block.prefix)
    ]


def block_table(block: Block, summaries: Sequence[GroupSummary], *, intervals: bool) -> Table:
    """The numbers of a block, every group that has some a row under its test and model.

    Args:
        block: which numbers.
        summaries: of the groups.
        intervals: of single runs, in brackets beside the values.
    """
    paths = [(f"{block.prefix}.{column.key}", column.digits) for column in block.columns]
    header = ["", "n", *(column.heading for column in block.columns)]
    mine = [s for s in summaries if any(path in s.numbers for path, _ in paths)]
    rows: list[list[str]] = []
    headings = []
    for data, tested in _by(mine, "data").items():
        headings.append(data[:1].upper() + data[1:])
        rows.append([headings[-1], *[""] * (len(header) - 1)])
        for model, alike in _by(tested, "model").items():
            rows.append([f"  {model}", *[""] * (len(header) - 1)])
            labels = short_labels([summary.group for summary in alike])
            for summary in alike:
                count = len(summary.group.results)
                cells = (
                    cell(summary.numbers.get(path, UNMEASURED), count, digits, intervals=intervals)
                    for path, digits in paths
                )
                rows.append([f"    {labels[summary.group.label]}", str(count), *cells])
    return Table(block.title, header, rows, marked=frozenset(headings))


def _by(summaries: Sequence[GroupSummary], what: str) -> dict[str, list[GroupSummary]]:
    """Summaries by their data or their model, in the order of their first."""
    found: dict[str, list[GroupSummary]] = {}
    for summary in summaries:
        group = summary.group
        found.setdefault(group.data if what == "data" else group.facts.model, []).append(summary)
    return found


def cell(found: Summary, count: int, digits: int, *, intervals: bool) -> str:
    """Mean ± deviation; of a single run the value with its interval."""
    text = spread(found, count, digits=digits)
    if not intervals or count > 1 or found.low is None:
        return text
    return f"{text} {bracketed(found.low, found.high, digits=digits)}"


def robustness_table(robustness: Robustness) -> Table:
    """Every test set a row under its model: errors and how many times the best of the source."""
    calibrated = any(point.ece.n for point in robustness.points)
    header = ["", "n", "mIoU\n%", "mIoU error\n/ best"]
    header += ["ECE\n%", "ECE\n/ best"] if calibrated else []
    rows = []
    for model in robustness.models:
        rows.append([model, *[""] * (len(header) - 1)])
        for point in robustness.points:
            if point.model != model:
                continue
            count = len(point.summary.group.results)
            found = [point.miou, point.miou_error, *([point.ece, point.ece_error] * calibrated)]
            rows.append(["  " + point.test, str(count), *(spread(one, count) for one in found)])
    title = f"Error relative to the best on {robustness.source}"
    return Table(title, header, rows, marked=frozenset(robustness.models))


def robustness_notes(robustness: Robustness) -> list[str]:
    """How to read the relative errors."""
    calibrated = any(point.ece.n for point in robustness.points)
    errors = "100 - mIoU, or the ECE," if calibrated else "100 - mIoU"
    return [
        f"An error is {errors} divided by the smallest that a model has on {robustness.source}:"
        " 1 is the best there, 2 twice as much error.",
        f"The source is {robustness.source}. {robustness.reason} Choose another with"
        " --robustness_source.",
        *robustness.warnings,
    ]


def reliability_notes(report: Report) -> list[str]:
    """How to read the tables of reliability; none without any."""
    if not any(map(_reliable, report.summaries)):
        return []
    notes = [
        "ECE, KS, NLL, Brier, AURC and FPR95 are better the lower, PRR, AUROC and AUPR the higher."
        " ± is the deviation over seeds, brackets are 95 % intervals over the images of a single"
        " run."
    ]
    tests = _by(list(filter(_shown_in_pictures, report.summaries)), "data")
    if len(tests) > MOST_TESTS:
        notes.append(f"Pictures are drawn of the first {MOST_TESTS} of {len(tests)} test sets.")
    return notes


def report_pictures(report: Report) -> list[Picture]:
    """Robustness and, for the first test sets, the reliability of their groups."""
    pictures = list(_robustness_picture(report.robustness)) if report.robustness else []
    tests = _by([s for s in report.summaries if _shown_in_pictures(s)], "data")
    for place, (data, summaries) in enumerate(tests.items()):
        if place == MOST_TESTS:
            break
        groups = [summary.group for summary in summaries]
        labels = short_labels(groups)
        named: Mapping[str, Any] = {
            labels[group.label]: [result.content for result in group.results] for group in groups
        }
        ending = f"_{file_name(data)}" if len(tests) > 1 else ""
        heading = data[:1].upper() + data[1:]
        for name, figure in reliability_figures(named, groups[0].facts.tested_on):
            description = f"{name.replace('_', ' ')}, {data}"
            pictures.append(Picture(name + ending, heading, description, figure, RELIABILITY))
    return pictures


def _shown_in_pictures(summary: GroupSummary) -> bool:
    """Whether a group has numbers and is no member, no condition and not several data sets."""
    return _reliable(summary) and summary.group.of_one_dataset


def _reliable(summary: GroupSummary) -> bool:
    """Whether there are numbers, not only of unknown objects."""
    return not all(map(of_unknown, summary.numbers))


def file_name(text: str) -> str:
    """The words of a report as part of a file's name."""
    return re.sub(r"[^\w\-.]+", "_", text.replace("trained on ", "").replace("tested ", ""))


def _robustness_picture(robustness: Robustness) -> Iterator[Picture]:
    from utils.report.robustness_plot import robustness_figure  # Matplotlib is slow to import

    heading = f"Error relative to the best on {robustness.source}"
    figure = robustness_figure(robustness)
    yield Picture(ROBUSTNESS, heading, heading, figure, ROBUSTNESS)
