"""What a run leaves for people: tables in plain text, curves and contact sheets as PNG."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter1d

from utils.files import write_atomically
from utils.log import read_metrics

MISSING = "n/a"
CLASS_SCORES = {"class_iou": "IoU", "class_accuracy": "accuracy", "class_dice": "dice"}
SCORES = {
    "miou": "mIoU",
    "overall_accuracy": "overall accuracy",
    "mean_accuracy": "mean accuracy",
    "frequency_weighted_accuracy": "frequency-weighted accuracy",
    "mean_dice": "mean dice",
}
INK, FAINT = "#1f2933", "#9aa5b1"
HUES = ("#2563a8", "#c2571a", "#2f855a", "#7b4fa3", "#b83255", "#5a6672", "#8a6d1b", "#167d8d")
RAW_POINTS_PER_SIGMA = 40  # a smoothed curve averages over about 1/40 of its points either side
MARGIN, GAP = 16, 6  # pixels around and between the pictures of a contact sheet
FONT_SIZE, LINE_HEIGHT, BOX = 15, 20, 20
PAPER, PENCIL = (255, 255, 255), (31, 41, 51)


def format_table(rows: Iterable[Sequence[object]], header: Sequence[str]) -> str:
    """A table in aligned plain text: the first column to the left, the others to the right.

    Fractional numbers get two decimals, None is ``n/a``.
    """
    cells = [list(header), *([_cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join((row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:]))).rstrip()
        for row in cells
    ]
    return "\n".join((lines[0], "  ".join("-" * width for width in widths), *lines[1:]))


def _cell(value: object) -> str:
    if value is None:
        return MISSING
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def results_table(results: Mapping[str, Any], class_names: Sequence[str]) -> str:
    """The scores of an evaluation as text: one row a class, then the means, all in percent.

    Args:
        results: what ``metrics.segmentation`` computes: ``total`` and, where there are several,
            ``dataset`` and ``condition``, each part of which adds a column.
        class_names: the order of the rows.
    """
    total = results["total"]
    groups = {**results.get("dataset", {}), **results.get("condition", {})}
    by_class = [total[name] for name in CLASS_SCORES] + [g["class_iou"] for g in groups.values()]
    classes = format_table(
        [[name, *(scores[name] for scores in by_class)] for name in class_names],
        ["class, %", *CLASS_SCORES.values(), *(f"IoU {group}" for group in groups)],
    )
    parts = [total, *groups.values()]
    rows: list[list[object]] = [
        [caption, *(part[name] for part in parts)] for name, caption in SCORES.items()
    ]
    seen = (f"{part['classes_seen']} of {len(class_names)}" for part in parts)
    rows.append(["classes seen", *seen])
    rows.append(["labelled pixels", *(f"{part['pixels']:,}" for part in parts)])
    return f"{classes}\n\n{format_table(rows, ['mean, %', 'all', *groups])}"


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
    from matplotlib.figure import Figure  # slow to import
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    records = read_metrics(metrics_path)
    train = [record for record in records if record["kind"] == "train"]
    validation = [record for record in records if record["kind"] == "val"]
    # The object interface: pyplot would keep figures alive and choose a backend for the process.
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.09)  # inches
    figure = Figure(figsize=(11, 5.2), dpi=120, layout=layout, facecolor="white")
    figure.suptitle(title, x=0.012, ha="left", fontsize=13, color=INK, fontweight="bold")
    grid = figure.add_gridspec(2, 2, height_ratios=(2.4, 1))
    loss = figure.add_subplot(grid[0, 0])
    rate = figure.add_subplot(grid[1, 0], sharex=loss)
    score = figure.add_subplot(grid[:, 1])
    _draw_loss(loss, train)
    _draw_rate(rate, train)
    _draw_score(score, validation)
    loss.tick_params(labelbottom=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(png_path, buffer.getvalue())


def _series(records: Iterable[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name, where it has a value."""
    points = [(r["step"], r[name]) for r in records if r.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _names(records: Iterable[Mapping[str, Any]], prefix: str, suffix: str = "") -> list[str]:
    """The names with a prefix and a suffix, in the order of their first use."""
    names = dict.fromkeys(name for record in records for name in record)
    return [name for name in names if name.startswith(prefix) and name.endswith(suffix)]


def _style(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.grid(color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors="#52606d", labelsize=8.5, length=0)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=FAINT)


def _draw_loss(axes: Any, records: Sequence[Mapping[str, Any]]) -> None:
    """The raw loss, faint, and a smoothed one above it; one pair per loss of the method."""
    _style(axes, "training loss")
    names = _names(records, "loss_") or _names(records, "loss")
    for name, hue in zip(names, HUES, strict=False):
        steps, values = _series(records, name)
        smooth = gaussian_filter1d(values, max(1.0, len(values) / RAW_POINTS_PER_SIGMA))
        axes.plot(steps, values, color=hue, alpha=0.28, linewidth=0.9)
        axes.plot(steps, smooth, color=hue, linewidth=1.8, label=name.removeprefix("loss_"))
    _legend(axes, names)


def _draw_rate(axes: Any, records: Sequence[Mapping[str, Any]]) -> None:
    _style(axes, "learning rate")
    names = _names(records, "lr")
    for name, hue in zip(names, HUES, strict=False):
        axes.plot(*_series(records, name), color=hue, linewidth=1.5, label=name)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.yaxis.get_offset_text().set(fontsize=8.5, color="#52606d")
    axes.set_xlabel("step", fontsize=9, color="#52606d")
    _legend(axes, names)


def _draw_score(axes: Any, records: Sequence[Mapping[str, Any]]) -> None:
    """The mIoU with its best point, and that of every group, thinner."""
    _style(axes, "validation mIoU, %")
    axes.set_xlabel("step", fontsize=9, color="#52606d")
    steps, values = _series(records, "miou")
    if not values:
        axes.set(xticks=(), yticks=())
        axes.text(0.5, 0.5, "no validation yet", ha="center", color=FAINT, transform=axes.transAxes)
        return
    axes.plot(steps, values, color=HUES[0], linewidth=2, marker="o", markersize=3, label="all")
    groups = _names(records, "", "/miou")
    for name, hue in zip(groups, HUES[1:], strict=False):
        label = name.removesuffix("/miou")
        axes.plot(*_series(records, name), color=hue, linewidth=1.1, alpha=0.75, label=label)
    best = int(np.argmax(values))
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
    _legend(axes, ["miou", *groups])


def _legend(axes: Any, names: Sequence[str]) -> None:
    if len(names) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)


def contact_sheet(
    rows: Sequence[Sequence[NDArray[np.uint8]]],
    path: str | Path,
    *,
    column_captions: Sequence[str],
    row_captions: Sequence[str] = (),
    legend: Mapping[str, tuple[int, int, int]] | None = None,
    tile_width: int = 320,
) -> None:
    """Write pictures side by side in rows, with captions and the colours of the classes.

    Args:
        rows: each as many pictures (H, W, 3), uint8, as there are column captions, all of one
            aspect ratio within the row.
        path: of the PNG.
        column_captions: above the columns, such as image, target, prediction, overlay.
        row_captions: above each row, as many as rows; may be left out.
        legend: colour by class name, written below the rows.
        tile_width: width in pixels that every picture is scaled to.

    Raises:
        WriteError: if the picture cannot be written.
    """
    assert all(len(row) == len(column_captions) for row in rows), "one picture per column"
    captions = row_captions or [""] * len(rows)
    lefts = [index * (tile_width + GAP) for index in range(len(column_captions))]
    width = lefts[-1] + tile_width
    strips = [_text_strip(width, zip(lefts, column_captions, strict=True))]
    for caption, row in zip(captions, rows, strict=True):
        if caption:
            strips.append(_text_strip(width, [(0, caption)], above=GAP))
        strips.append(_picture_strip(width, lefts, row, tile_width))
    strips += _legend_strips(width, legend or {})
    height = sum(strip.height + GAP for strip in strips) - GAP
    sheet = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN), PAPER)
    top = MARGIN
    for strip in strips:
        sheet.paste(strip, (MARGIN, top))
        top += strip.height + GAP
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    write_atomically(path, buffer.getvalue())


def _text_strip(width: int, texts: Iterable[tuple[int, str]], above: int = 0) -> Image.Image:
    """A line of texts, each starting at its x, with some pixels left free above."""
    strip = Image.new("RGB", (width, above + LINE_HEIGHT), PAPER)
    draw = ImageDraw.Draw(strip)
    for left, text in texts:
        draw.text((left, above), text, PENCIL, ImageFont.load_default(FONT_SIZE))
    return strip


def _picture_strip(
    width: int, lefts: Sequence[int], pictures: Sequence[NDArray[np.uint8]], tile_width: int
) -> Image.Image:
    """Pictures of one height beside each other."""
    rows, columns = pictures[0].shape[:2]
    size = (tile_width, max(1, round(tile_width * rows / columns)))
    strip = Image.new("RGB", (width, size[1]), PAPER)
    for left, picture in zip(lefts, pictures, strict=True):
        tile = Image.fromarray(picture)
        # Shrinking averages; growing keeps the pixels, so that labels stay crisp.
        how = Image.Resampling.BOX if tile.width > tile_width else Image.Resampling.NEAREST
        strip.paste(tile.resize(size, how), (left, 0))
    return strip


def _legend_strips(width: int, legend: Mapping[str, tuple[int, int, int]]) -> list[Image.Image]:
    """Lines of colour boxes with names, broken where a line is full."""
    font = ImageFont.load_default(FONT_SIZE)
    strips: list[Image.Image] = []
    left = width
    for name, colour in legend.items():
        needed = BOX + GAP + round(font.getlength(name)) + MARGIN
        if left + needed > width:
            strips.append(_text_strip(width, ()))
            left = 0
        draw = ImageDraw.Draw(strips[-1])
        draw.rectangle((left, 3, left + BOX, LINE_HEIGHT - 4), colour, FAINT)
        draw.text((left + BOX + GAP, 0), name, PENCIL, font)
        left += needed
    return strips
