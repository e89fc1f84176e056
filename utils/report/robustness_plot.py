"""The picture of errors relative to the best on a source."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

from utils.report.content import Robustness, RobustnessPoint
from utils.report.style import (
    FAINT,
    INK,
    QUIET,
    SAFE_HUES,
    label_axes,
    legend_below,
    new_figure,
    style_axes,
)
from utils.statistics import Summary

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_TESTS = 2 * len(SAFE_HUES)  # the second half is hollow
MOST_MODELS = 30
LABEL_WIDTH = 42  # characters of a model's label in one line
FROM_HERE_LOG = 5.0  # ratios above need a logarithmic axis
TICKS = (0.5, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


def robustness_figure(robustness: Robustness) -> Any:
    """Relative errors by model, a dot for each test set: those of the mIoU, those of the ECE."""
    panels: list[tuple[str, Callable[[RobustnessPoint], Summary]]] = [
        ("mIoU error (100 - mIoU)", lambda point: point.miou_error)
    ]
    if any(point.ece_error.n for point in robustness.points):
        panels.append(("calibration error (ECE)", lambda point: point.ece_error))
    models = robustness.models[:MOST_MODELS]
    tests = robustness.tests[:MOST_TESTS]
    title = f"Error relative to the best on {robustness.source}"
    labels = [textwrap.wrap(model, LABEL_WIDTH) for model in models]
    row = 0.16 * max(map(len, labels)) + 0.2
    height = 1.8 + row * len(models) + 0.24 * -(-len(tests) // 3)
    figure = new_figure(6.2 + 3.4 * (len(panels) - 1), height, title)
    for axes, (name, value) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True
    ):
        style_axes(axes, name)
        label_axes(axes, "times the best on the source")
        for place, test in enumerate(tests):
            mine = [point for point in robustness.points if point.test == test]
            _draw_test(
                axes,
                place,
                test,
                [(models.index(p.model), value(p)) for p in mine if p.model in models],
            )
        _draw_scale(axes, len(models))
    axes.set_yticks(range(len(models)), list(map("\n".join, labels)))
    figure.axes[0].tick_params(axis="y", labelcolor=INK)
    legend_below(figure, figure.axes[0].get_legend_handles_labels()[0], columns=3)
    return figure


def _draw_test(axes: Any, place: int, test: str, found: list[tuple[int, Summary]]) -> None:
    """The dots of one test set, with the deviation over seeds."""
    hue, filled = SAFE_HUES[place % len(SAFE_HUES)], place < len(SAFE_HUES)
    known = [(row, one.mean, one.std or 0) for row, one in found if one.mean is not None]
    axes.errorbar(
        [mean for _, mean, _ in known],
        [row for row, _, _ in known],
        xerr=[std for _, _, std in known],
        linestyle="none",
        marker=MARKERS[place % len(MARKERS)],
        markersize=7,
        color=hue,
        markerfacecolor=hue if filled else "white",
        markeredgecolor="white" if filled else hue,
        elinewidth=1.2,
        label=test,
    )


def _draw_scale(axes: Any, models: int) -> None:
    """The line at the best of the source, and a logarithmic axis where errors grow much."""
    axes.axvline(1, color=QUIET, linewidth=1, linestyle="--", zorder=0)
    axes.set_ylim(models - 0.4, -0.6)
    low, high = axes.dataLim.intervalx
    if high > FROM_HERE_LOG:
        axes.set_xscale("log")
        axes.set_xlim(min(0.8, 0.9 * low), 1.25 * high)
        shown = [tick for tick in TICKS if 0.8 * min(low, 1) <= tick <= 1.25 * high]
        axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
        axes.set_xticks([], minor=True)
    else:
        axes.set_xlim(min(0.9, 0.95 * low), max(1.1, 1.08 * high))
    axes.grid(axis="y", color=FAINT, linewidth=0.5, alpha=0.5)
