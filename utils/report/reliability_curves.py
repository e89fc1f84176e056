"""Curves of reliability: risk by coverage, ROC and PR.

Every figure shows named results in one pair of axes; each name stands for one run or several
(seeds), whose curves share a colour. Results are the dicts that the metrics report, in percent;
see ``utils.report.measures``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from utils.report.measures import first_of, mean_of
from utils.report.style import (
    FAINT,
    SAFE_HUES,
    label_axes,
    legend_below,
    new_figure,
    style_axes,
)
from utils.report.tables import number

MOST_LINES = 12  # in one pair of axes
MOST_IN_A_COLUMN = 4  # of a legend, where two fit beside each other
LEGEND_LETTER = 0.078  # inches
DASHES = ("-", "--", "-.")  # of every four lines: what comes later differs in more than hue

Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def risk_coverage_figure(named: Runs, title: str) -> Any:
    """The share of errors among the most certain pixels by their share.

    Args:
        named: ``misclassification`` by one score of the runs.
        title: above the figure.
    """
    shown, title = first_of(named, MOST_LINES, title)
    entries = {"AURC": "aurc", "PRR": "prr"}
    texts = [_legend_text(name, runs, entries) for name, runs in shown.items()]
    width = max(7.2, LEGEND_LETTER * max(map(len, texts)) + 0.8)
    figure = new_figure(width, 4.2 + 0.22 * len(shown), title)
    axes = figure.add_subplot()
    style_axes(axes, "")
    label_axes(
        axes,
        "coverage: share of pixels kept, the most certain first, %",
        "risk: errors among them, %",
    )
    for place, (text, runs) in enumerate(zip(texts, shown.values(), strict=True)):
        curves = [(run["curve"]["coverage"], run["curve"]["risk"]) for run in runs]
        _draw_lines(axes, place, curves, text)
    axes.set(xlim=(0, 100), ylim=(0, None))
    legend_below(figure, axes.get_legend_handles_labels()[0])
    return figure


def roc_pr_figure(named: Runs, title: str, event: str, aupr: str) -> Any:
    """How a score finds an event: true by false positives, and precision by recall.

    Args:
        named: ``misclassification`` or ``ood`` by one score of the runs.
        title: above the figure.
        event: what is to be found, as in "errors".
        aupr: the name of the area under the second curve.
    """
    shown, title = first_of(named, MOST_LINES, title)
    entries = {"AUROC": "auroc", "FPR95": "fpr95", "AUPR": aupr}
    texts = [_legend_text(name, runs, entries) for name, runs in shown.items()]
    longest = LEGEND_LETTER * max(map(len, texts)) + 0.8
    width = max(10.0, longest)
    columns = 2 if len(shown) > MOST_IN_A_COLUMN and 2 * longest <= width else 1
    figure = new_figure(width, 4.6 + 0.22 * -(-len(shown) // columns), title)
    roc, precision = figure.subplots(1, 2)
    style_axes(roc, "receiver operating characteristic")
    style_axes(precision, "precision and recall")
    label_axes(roc, "false positives, %", f"{event} found, %")
    label_axes(precision, f"{event} found (recall), %", "precision, %")
    roc.plot((0, 100), (0, 100), color=FAINT, linewidth=1, linestyle=":")
    for place, (text, runs) in enumerate(zip(texts, shown.values(), strict=True)):
        curves = [(run["roc"]["fpr"], run["roc"]["tpr"]) for run in runs]
        _draw_lines(roc, place, curves, text)
        curves = [(run["pr"]["recall"], run["pr"]["precision"]) for run in runs]
        _draw_lines(precision, place, curves, text)
    for axes in (roc, precision):
        axes.set(xlim=(0, 100), ylim=(0, 101), aspect="equal")
    legend_below(figure, roc.get_legend_handles_labels()[0], columns)
    return figure


def _legend_text(name: str, runs: Sequence[Mapping[str, Any]], entries: Mapping[str, str]) -> str:
    """A name with numbers, their means over the runs."""
    numbers = (
        f"{caption} {number(mean_of(run.get(key) for run in runs))} %"
        for caption, key in entries.items()
    )
    return f"{name}:  {', '.join(numbers)}"


def _draw_lines(
    axes: Any, place: int, curves: Sequence[tuple[Sequence[float], Sequence[float]]], text: str
) -> None:
    """One line for each run, the first with the text for the legend."""
    for index, (x, y) in enumerate(curves):
        axes.plot(
            x,
            y,
            color=SAFE_HUES[place % len(SAFE_HUES)],
            linestyle=DASHES[place // 4],
            linewidth=1.8 if len(curves) == 1 else 1.1,
            label=text if index == 0 else "_",
        )
