"""The curves of a run as one PNG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

from utils.files import write_atomically
from utils.log import read_metrics
from utils.report.style import FAINT, HUES, INK, QUIET, as_png, new_figure, style_axes

RAW_POINTS_PER_SIGMA = 40  # a smoothed curve averages over about 1/40 of its points either side


def save_curves(metrics_path: str | Path, png_path: str | Path, title: str) -> None:
    """Draw the loss, the learning rate and the mIoU of a run over its steps into one PNG.

    Args:
        metrics_path: the run's ``metrics.jsonl``: of kind ``train`` the loss and ``lr`` or
            ``lr_*``, of kind ``val`` the ``miou`` and ``GROUP/miou``, in percent.
        png_path: where the picture goes.
        title: written above it.

    Raises:
        ValueError: if there is no such file or it is damaged.
        WriteError: if the picture cannot be written.
    """
    records = read_metrics(metrics_path)
    train = [record for record in records if record["kind"] == "train"]
    validation = [record for record in records if record["kind"] == "val"]
    figure = new_figure(11, 5.2, title)
    grid = figure.add_gridspec(2, 2, height_ratios=(2.4, 1))
    loss = figure.add_subplot(grid[0, 0])
    rate = figure.add_subplot(grid[1, 0], sharex=loss)
    score = figure.add_subplot(grid[:, 1])
    _draw_loss(loss, train)
    _draw_rate(rate, train)
    _draw_score(score, validation)
    loss.tick_params(labelbottom=False)
    write_atomically(png_path, as_png(figure))


def _series(records: Iterable[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name, where it has a value."""
    points = [(r["step"], r[name]) for r in records if r.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _names(records: Iterable[Mapping[str, Any]], prefix: str, suffix: str = "") -> list[str]:
    """The names with a prefix and a suffix, in the order of their first use."""
    names = dict.fromkeys(name for record in records for name in record)
    return [name for name in names if name.startswith(prefix) and name.endswith(suffix)]


def _draw_loss(axes: Any, records: Sequence[Mapping[str, Any]]) -> None:
    """The raw loss, faint, and a smoothed one above it; one pair per loss of the method."""
    style_axes(axes, "training loss")
    names = _names(records, "loss_") or _names(records, "loss")
    for name, hue in zip(names, HUES, strict=False):
        steps, values = _series(records, name)
        smooth = gaussian_filter1d(values, max(1.0, len(values) / RAW_POINTS_PER_SIGMA))
        axes.plot(steps, values, color=hue, alpha=0.28, linewidth=0.9)
        axes.plot(steps, smooth, color=hue, linewidth=1.8, label=name.removeprefix("loss_"))
    _legend(axes, names)


def _draw_rate(axes: Any, records: Sequence[Mapping[str, Any]]) -> None:
    style_axes(axes, "learning rate")
    names = _names(records, "lr")
    for name, hue in zip(names, HUES, strict=False):
        axes.plot(*_series(records, name), color=hue, linewidth=1.5, label=name)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.yaxis.get_offset_text().set(fontsize=8.5, color=QUIET)
    axes.set_xlabel("step", fontsize=9, color=QUIET)
    _legend(axes, names)


def _draw_score(axes: Any, records: Sequence[Mapping[str, Any]]) -> None:
    """The score that selects with its best point, and that of every group, thinner."""
    name, title, best_of = _selecting(records)
    style_axes(axes, f"validation {title}")
    axes.set_xlabel("step", fontsize=9, color=QUIET)
    steps, values = _series(records, name)
    if not values:
        axes.set(xticks=(), yticks=())
        axes.text(0.5, 0.5, "no validation yet", ha="center", color=FAINT, transform=axes.transAxes)
        return
    axes.plot(steps, values, color=HUES[0], linewidth=2, marker="o", markersize=3, label="all")
    groups = _names(records, "", f"/{name}")
    for group, hue in zip(groups, HUES[1:], strict=False):
        label = group.removesuffix(f"/{name}")
        axes.plot(*_series(records, group), color=hue, linewidth=1.1, alpha=0.75, label=label)
    best = int(best_of(values))
    axes.plot(steps[best], values[best], "o", color=HUES[0], markersize=7, markerfacecolor="white")
    axes.annotate(
        f"best {values[best]:.2f} at {steps[best]:,}",
        (steps[best], values[best]),
        xytext=(0, 9),
        textcoords="offset points",
        ha="right" if steps[best] > (steps[0] + steps[-1]) / 2 else "left",
        fontsize=9,
        color=INK,
    )
    axes.set_ylim(0, 1.1 * max(*axes.get_ylim()))
    _legend(axes, [name, *groups])


def _selecting(records: Sequence[Mapping[str, Any]]) -> tuple[str, str, Callable[..., Any]]:
    """Which score of the validations selects the best, its title, and where the best is."""
    if any("nll" in record for record in records) and not _names(records, "miou"):
        return "nll", "NLL, nats", np.argmin
    return "miou", "mIoU, %", np.argmax


def _legend(axes: Any, names: Sequence[str]) -> None:
    if len(names) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
