"""The plots of a report as SVG to stand inside an HTML page."""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

from utils.report.content import CAPTIONS, MINORITY, Comparison, Section
from utils.report.layout import section_labels
from utils.report.style import FAINT, GRID, HUES, INK, QUIET

WIDTH = 4.9  # inches: about what a phone is wide, so that texts stay readable there
ROW = 0.225  # inches for a class
METADATA = ("Date", "Creator", "Format", "Type")  # left out
# Names that nothing refers to and that would occur once a figure, and fonts other than the page's.
UNUSED = re.compile(r'(?<=<g) id="[^"]*"|font-family: [^;"]*;? ?|<style.*?</style>', re.DOTALL)
BETTER, WORSE = HUES[0], HUES[1]


def forest_figure(section: Section, entry: Comparison) -> Any:
    """Differences of the classes and of the mIoU with their intervals, method minus baseline."""
    means = [name for name in (MINORITY, "miou") if name in section.means]
    names = [*section.family, *section.others, *means]
    height = ROW * len(names) + 0.85
    captions = [CAPTIONS.get(name, name) for name in names]
    left = 0.3 + 0.072 * max(map(len, captions))
    figure, axes = _canvas(height, left=left, top=0.08, bottom=0.5)
    lines, dots = [], []
    for place, name in enumerate(names):
        found = entry.differences[name]
        if found.value is None:
            axes.text(0, place, "n/a", color=FAINT, fontsize=8, va="center", ha="center")
            continue
        hue = _hue(found.low, found.high)
        dots.append((found.value, place, hue))
        if found.low is not None and found.high is not None:
            lines.append((place, found.low, found.high, hue))
    # All at once: one artist a line would take most of the time of a report.
    if lines:
        places, lows, highs, hues = zip(*lines, strict=True)
        axes.hlines(places, lows, highs, colors=hues, linewidth=1.8, zorder=2)
    if dots:
        values, places, hues = zip(*dots, strict=True)
        axes.scatter(values, places, s=20, c=hues, zorder=3)
    axes.axvline(0, color=QUIET, linewidth=0.9, zorder=1)
    for place in {len(section.family), len(section.classes)} - {0}:
        axes.axhline(place - 0.5, color=FAINT, linewidth=0.6, zorder=1)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), captions)
    for name, tick in zip(names, axes.get_yticklabels(), strict=True):
        if name in (*section.family, *means):
            tick.set(fontweight="bold", color=INK)
    axes.set_xlabel("difference of the IoU, percentage points", fontsize=8.5, color=QUIET)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -0.5), max(high, 0.5))
    return figure


def _hue(low: float | None, high: float | None) -> str:
    """Of an interval that lies above zero, below it, or over it."""
    if low is None or high is None or low <= 0 <= high:
        return "#7b8794"
    return BETTER if low > 0 else WORSE


def seeds_figure(section: Section) -> Any:
    """The mIoU of every run as a dot, with the mean and its interval, one line for each group."""
    labels = section_labels(section)
    row = 0.46
    figure, axes = _canvas(row * len(section.shown) + 0.65, left=0.12, top=0.05, bottom=0.5)
    for place, summary in enumerate(section.shown):
        score, values = summary.scores["miou"], summary.group.values("miou")
        if score.low is not None and score.high is not None:
            axes.plot((score.low, score.high), (place, place), color="#c5d6e8", linewidth=5)
        axes.plot(values, [place] * len(values), "o", color=HUES[0], markersize=5, alpha=0.6)
        if score.mean is not None:
            axes.plot(score.mean, place, "|", color=INK, markersize=11, markeredgewidth=1.6)
        axes.text(
            0.01,
            place - 0.3,
            labels[summary.group.label],
            transform=axes.get_yaxis_transform(),
            fontsize=8.5,
            color=INK,
            va="center",
        )
    axes.set_ylim(len(section.shown) - 0.55, -0.65)
    axes.set_yticks([])
    axes.margins(x=0.08)
    axes.set_xlabel("mIoU, %", fontsize=8.5, color=QUIET)
    return figure


def _canvas(height: float, *, left: float, top: float, bottom: float) -> tuple[Any, Any]:
    """A figure with one pair of axes; margins in inches."""
    from matplotlib.figure import Figure  # slow to import

    figure = Figure(figsize=(WIDTH, height), facecolor="none")
    # A layout engine would take longer than the drawing.
    box = (left / WIDTH, bottom / height, 1 - (left + 0.15) / WIDTH, 1 - (top + bottom) / height)
    axes = figure.add_axes(box)
    axes.set_facecolor("none")
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=QUIET, labelsize=8.5, length=0)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=FAINT)
    return figure, axes


def as_svg(figure: Any, description: str) -> str:
    """A figure as an ``svg`` element of an HTML page, the same bytes every time."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    # The salt keeps the names of two figures on one page apart.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(METADATA))
    text = buffer.getvalue()
    text = UNUSED.sub("", text[text.index("<svg") :])
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1)
