"""Panels of reliability: calibration by bin, and how a score is spread.

Every figure shows named results side by side; each name stands for one run or several (seeds),
whose bins are added up. Results are the dicts that the metrics report, in percent; see
``utils.report.measures``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from utils.report.measures import first_of, mean_of
from utils.report.style import (
    FAINT,
    INK,
    QUIET,
    label_axes,
    legend_below,
    new_figure,
    style_axes,
)
from utils.report.tables import number

MOST_PANELS = 12
COLUMNS_OF_PANELS = 4
TITLE_WIDTH = 34  # characters of a panel's title in one line
BLUE, ORANGE, PALE = "#0072b2", "#d55e00", "#a9cbe3"  # apart with any colour vision
HATCHES = {BLUE: "\\\\\\\\", ORANGE: "////"}
# Opaque: in an SVG the hatches of a translucent face vanish.
TINTS = {BLUE: "#dcebf5", ORANGE: "#f9ddcc"}
KIND_NAMES = {"in": "known", "out": "unknown"}
THRESHOLD = "tpr95_threshold"
THRESHOLD_LOOK: dict[str, Any] = {"color": INK, "linewidth": 1.2, "linestyle": "--"}
LEAST_SHARE = 0.01  # percent, of the logarithmic axis of a histogram

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
Floats = NDArray[np.float64]


class Bins(NamedTuple):
    """Pixels by confidence; empty bins have nan for confidence and accuracy, in percent."""

    pixels: Floats
    confidence: Floats
    accuracy: Floats


def reliability_figure(named: Runs, title: str) -> Any:
    """Accuracy by confidence with the gaps between them, one panel a name, pixels below.

    Args:
        named: ``calibration`` of the runs.
        title: above the figure.
    """
    shown, title = first_of(named, MOST_PANELS, title)
    columns, rows = _grid(len(shown))
    figure = new_figure(max(3.1 * columns, 4.6), 3.9 * rows + 0.9, title)
    grid = figure.add_gridspec(2 * rows, columns, height_ratios=(3, 1) * rows)
    for place, (name, runs) in enumerate(shown.items()):
        row, column = divmod(place, columns)
        top = figure.add_subplot(grid[2 * row, column])
        bottom = figure.add_subplot(grid[2 * row + 1, column], sharex=top)
        style_axes(top, _folded(name))
        style_axes(bottom, "")
        bins = pooled_bins([run["diagram"] for run in runs])
        _draw_gaps(top, bins)
        _draw_shares(bottom, bins)
        _write_errors(top, runs)
        label_axes(bottom, "confidence, %", "pixels, %" if column == 0 else "")
        label_axes(top, "", "accuracy, %" if column == 0 else "")
    _gap_legend(figure, 2 if columns == 1 else 4)
    return figure


def _grid(count: int) -> tuple[int, int]:
    """Columns and rows of so many panels."""
    columns = min(count, COLUMNS_OF_PANELS) if count != 5 else 3
    return columns, -(-count // columns)


def pooled_bins(diagrams: Sequence[Mapping[str, Sequence[float | None]]]) -> Bins:
    """The bins over the pixels of several runs: counts added, the rest averaged by them."""
    counts = np.array([diagram["count"] for diagram in diagrams], np.float64)
    total = counts.sum(0)

    def mean(name: str) -> Floats:
        """The mean of each bin, nan without pixels."""
        values = np.array([diagram[name] for diagram in diagrams], np.float64)  # None becomes nan
        added = np.where(counts > 0, counts * values, 0).sum(0)
        return np.divide(added, total, out=np.full(total.shape, np.nan), where=total > 0)

    return Bins(total, mean("confidence"), mean("accuracy"))


def _draw_gaps(axes: Any, bins: Bins) -> None:
    """Bars up to the accuracy; where the confidence is not the same, the way there."""
    width = 100 / len(bins.pixels)
    lefts = np.arange(len(bins.pixels)) * width
    some = bins.pixels > 0
    lefts, accuracy, confidence = lefts[some], bins.accuracy[some], bins.confidence[some]
    common = {"width": width, "align": "edge", "linewidth": 0.7}
    axes.bar(lefts, accuracy, color=PALE, edgecolor="white", **common)
    for hue, chosen in ((ORANGE, confidence > accuracy), (BLUE, confidence < accuracy)):
        axes.bar(
            lefts[chosen],
            (confidence - accuracy)[chosen],
            bottom=accuracy[chosen],
            **_gap_look(hue),
            **common,
        )
    axes.plot((0, 100), (0, 100), color=QUIET, linewidth=1, linestyle="--")
    axes.set(xlim=(0, 100), ylim=(0, 100))
    axes.tick_params(labelbottom=False)


def _gap_look(hue: str) -> dict[str, Any]:
    return {"facecolor": TINTS[hue], "edgecolor": hue, "hatch": HATCHES[hue]}


def _draw_shares(axes: Any, bins: Bins) -> None:
    width = 100 / len(bins.pixels)
    shares = 100 * bins.pixels / max(bins.pixels.sum(), 1)
    lefts = np.arange(len(shares)) * width
    axes.bar(lefts, shares, width, align="edge", color=FAINT, edgecolor="white", linewidth=0.7)
    axes.set_ylim(0, max(1.0, 1.15 * shares.max()))


def _write_errors(axes: Any, runs: Sequence[Mapping[str, Any]]) -> None:
    """Three errors in the upper left corner, their means over the runs."""
    captions = {"ece": "ECE", "mce": "MCE", "ks_error": "KS"}
    lines = [
        f"{caption} {number(mean_of(run.get(name) for run in runs))} %"
        for name, caption in captions.items()
    ]
    axes.text(
        *(0.04, 0.96, "\n".join(lines)),
        transform=axes.transAxes,
        va="top",
        fontsize=9,
        color=INK,
        linespacing=1.35,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2},
    )


def _gap_legend(figure: Any, columns: int) -> None:
    from matplotlib.lines import Line2D  # slow to import
    from matplotlib.patches import Patch

    texts = {ORANGE: "too sure", BLUE: "not sure enough"}
    gaps = [Patch(**_gap_look(hue), label=text) for hue, text in texts.items()]
    line = Line2D((), (), color=QUIET, linestyle="--", label="calibrated")
    legend_below(figure, [Patch(facecolor=PALE, label="accuracy"), *gaps, line], columns)


def histogram_figure(named: Runs, title: str, kinds: tuple[str, str], axis: str) -> Any:
    """How scores are spread over two kinds of pixels, one panel a name.

    Where the runs say it (``tpr95_threshold``), a line is at the threshold that finds 95 %.

    Args:
        named: ``misclassification`` or ``ood`` by one score of the runs.
        title: above the figure.
        kinds: the two kinds as the histogram names them, the second the one to be found.
        axis: what the score is and which way it goes.
    """
    shown, title = first_of(named, MOST_PANELS, title)
    columns, rows = _grid(len(shown))
    figure = new_figure(max(3.1 * columns, 5.2), 2.5 * rows + 1, title)
    panels = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(panels.flat):
        if place >= len(shown):
            axes.set_visible(False)
            continue
        name, runs = list(shown.items())[place]
        style_axes(axes, _folded(name))
        _draw_histogram(axes, [run["histogram"] for run in runs], kinds)
        for run in runs:
            if run.get(THRESHOLD) is not None:
                axes.axvline(run[THRESHOLD], **THRESHOLD_LOOK)
        label_axes(axes, axis, "share of each kind, %" if place % columns == 0 else "")
    marked = any(run.get(THRESHOLD) is not None for runs in shown.values() for run in runs)
    _kinds_legend(figure, kinds, marked=marked)
    return figure


def _draw_histogram(
    axes: Any, histograms: Sequence[Mapping[str, Sequence[float]]], kinds: tuple[str, str]
) -> None:
    """Both kinds of pixels in percent of their own, over a logarithmic axis."""
    edges = np.linspace(
        min(one["edges"][0] for one in histograms),
        max(one["edges"][-1] for one in histograms),
        len(histograms[0]["edges"]),
    )
    for kind, hue in zip(kinds, (BLUE, ORANGE), strict=True):
        counts = sum(_on_edges(one, kind, edges) for one in histograms)
        shares = 100 * counts / max(np.sum(counts), 1)
        axes.stairs(shares, edges, fill=True, **_look(hue), linewidth=0)
        axes.stairs(shares, edges, color=hue, linewidth=1.4)
    if any(any(one[kind]) for one in histograms for kind in kinds):
        axes.set_yscale("log")  # of nothing, matplotlib warns
    axes.set(xlim=(edges[0], edges[-1]), ylim=(LEAST_SHARE, 110))
    ticks = (0.01, 0.1, 1, 10, 100)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks([], minor=True)


def _on_edges(histogram: Mapping[str, Sequence[float]], kind: str, edges: Floats) -> Floats:
    """Counts brought to other edges, as if pixels were spread evenly within each bin."""
    below = np.concatenate(((0.0,), np.cumsum(histogram[kind], dtype=np.float64)))
    return np.diff(np.interp(edges, histogram["edges"], below))


def _look(hue: str) -> dict[str, Any]:
    """A pale face for the first kind, hatches without a face for the second in front of it."""
    if hue == BLUE:
        return {"facecolor": TINTS[hue], "edgecolor": hue}
    return {"facecolor": "none", "edgecolor": hue, "hatch": HATCHES[hue]}


def _kinds_legend(figure: Any, kinds: tuple[str, str], *, marked: bool) -> None:
    from matplotlib.lines import Line2D  # slow to import
    from matplotlib.patches import Patch

    marks: list[Any] = [
        Patch(**_look(hue), label=f"{KIND_NAMES.get(kind, kind)} pixels")
        for kind, hue in zip(kinds, (BLUE, ORANGE), strict=True)
    ]
    if marked:
        marks.append(Line2D((), (), **THRESHOLD_LOOK, label="95 % of the unknown found"))
    legend_below(figure, marks, columns=len(marks))


def _folded(name: str) -> str:
    """A name in lines that fit a panel."""
    return "\n".join(textwrap.wrap(name, TITLE_WIDTH))
