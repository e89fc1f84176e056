"""Sheets of pictures: rows of tiles with captions, colour bars and a legend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from utils.colour_maps import Scale, colour_table

Array = NDArray[np.uint8]
Colour = tuple[int, int, int]
PAPER, INK, FAINT = (255, 255, 255), (31, 41, 51), (154, 165, 177)
TEXTS_PER_TILE = 21  # letters' heights in the width of a tile
SMALLEST_TEXT = 13  # pixels
MOST_STEPS = 5  # between the values below a colour bar


class Tile(NamedTuple):
    """One picture of a sheet."""

    caption: str
    picture: Array  # (H, W, 3), RGB
    scale: Scale | None = None  # of a map of numbers: explained by a colour bar


class Row(NamedTuple):
    """Pictures beside each other, of one aspect ratio."""

    tiles: Sequence[Tile]
    title: str = ""  # above them, such as the name of the image


class Style(NamedTuple):
    """Sizes in pixels, which follow from the width of a tile."""

    tile: int
    text: int

    @property
    def line(self) -> int:
        """Height of a line of text."""
        return round(1.35 * self.text)

    @property
    def gap(self) -> int:
        """Between tiles, and between strips."""
        return round(0.4 * self.text)

    @property
    def margin(self) -> int:
        """Around the sheet."""
        return self.text

    @property
    def font(self) -> ImageFont.FreeTypeFont:
        """For all texts."""
        return _font(self.text)

    def left(self, column: int) -> int:
        """Where a column begins, in a strip."""
        return column * (self.tile + self.gap)

    def width(self, columns: int) -> int:
        """Of adjacent tiles."""
        return self.left(columns) - self.gap


def contact_sheet(
    rows: Sequence[Row], *, legend: Mapping[str, Colour] | None = None, tile_width: int = 320
) -> Array:
    """Draw pictures side by side in rows, with captions, colour bars and the classes' colours.

    Captions stand above the first row and wherever they change; a colour bar stands below the
    adjacent tiles that share a scale, at the last of the rows that have the same scales.

    Args:
        rows: what to draw.
        legend: colour by class name, drawn below the rows.
        tile_width: width in pixels that every picture is scaled to; texts grow with it.

    Returns:
        RGB (H, W, 3).
    """
    style = Style(tile_width, max(SMALLEST_TEXT, round(tile_width / TEXTS_PER_TILE)))
    width = style.width(max(len(row.tiles) for row in rows))
    strips: list[Image.Image] = []
    for index, row in enumerate(rows):
        strips += _row_strips(
            width,
            style,
            row,
            above=rows[index - 1] if index else None,
            below=rows[index + 1] if index + 1 < len(rows) else None,
        )
    strips += _legend_strips(width, style, legend or {})
    height = sum(strip.height + style.gap for strip in strips) - style.gap
    size = (width + 2 * style.margin, height + 2 * style.margin)
    sheet = Image.new("RGB", size, PAPER)
    top = style.margin
    for strip in strips:
        sheet.paste(strip, (style.margin, top))
        top += strip.height + style.gap
    return np.array(sheet)


def _row_strips(
    width: int, style: Style, row: Row, *, above: Row | None, below: Row | None
) -> list[Image.Image]:
    """Captions where they change, the title, the pictures, colour bars where they change."""
    strips = [] if above is None else [Image.new("RGB", (width, style.gap), PAPER)]
    captions = [tile.caption for tile in row.tiles]
    if any(captions) and (above is None or captions != [tile.caption for tile in above.tiles]):
        texts = [(style.left(column), caption) for column, caption in enumerate(captions)]
        strips.append(_text_strip(width, style, texts))
    if row.title:
        strips.append(_text_strip(width, style, [(0, row.title)]))
    strips.append(_picture_strip(width, style, [tile.picture for tile in row.tiles]))
    scales = [tile.scale for tile in row.tiles]
    if any(scales) and (below is None or scales != [tile.scale for tile in below.tiles]):
        strips.append(_bar_strip(width, style, scales))
    return strips


def _text_strip(width: int, style: Style, texts: Iterable[tuple[int, str]]) -> Image.Image:
    """A line of texts, each starting at its x."""
    strip = Image.new("RGB", (width, style.line), PAPER)
    draw = ImageDraw.Draw(strip)
    for left, text in texts:
        draw.text((left, 0), text, INK, style.font)
    return strip


def _picture_strip(width: int, style: Style, pictures: Sequence[Array]) -> Image.Image:
    """Pictures of one height beside each other."""
    rows, columns = pictures[0].shape[:2]
    size = (style.tile, max(1, round(style.tile * rows / columns)))
    strip = Image.new("RGB", (width, size[1]), PAPER)
    for column, picture in enumerate(pictures):
        tile = Image.fromarray(picture)
        # Shrinking averages; growing keeps the pixels, so that labels stay crisp.
        how = Image.Resampling.BOX if tile.width > style.tile else Image.Resampling.NEAREST
        strip.paste(tile.resize(size, how), (style.left(column), 0))
    return strip


def _bar_strip(width: int, style: Style, scales: Sequence[Scale | None]) -> Image.Image:
    """A colour bar below each group of adjacent tiles of one scale."""
    bars, column = [], 0
    for scale, group in groupby(scales):
        first, column = column, column + len(list(group))
        if scale is not None:
            inset = style.text if column < len(scales) else 0  # parts the texts of two bars
            bar = colour_bar(scale, style.width(column - first) - inset, style)
            bars.append((style.left(first), bar))
    strip = Image.new("RGB", (width, max(bar.height for _, bar in bars)), PAPER)
    for left, bar in bars:
        strip.paste(bar, (left, 0))
    return strip


def colour_bar(scale: Scale, width: int, style: Style) -> Image.Image:
    """All colours from left to right, below them values, below these unit and note."""
    lines = _wrapped("; ".join(filter(None, (scale.unit, scale.note))), style.font, width)
    bar = Image.new("RGB", (width, 2 * style.line + style.gap + len(lines) * style.line), PAPER)
    columns = np.linspace(0, 255, width).round().astype(int)
    gradient = np.broadcast_to(colour_table()[columns], (style.line, width, 3))
    bar.paste(Image.fromarray(np.ascontiguousarray(gradient)), (0, 0))
    draw = ImageDraw.Draw(bar)
    for value, text in scale.ticks(min(MOST_STEPS, width // (6 * style.text)) or 1):
        x = round((value - scale.low) / (scale.high - scale.low) * (width - 1))
        draw.line((x, style.line, x, style.line + style.gap), INK)
        needed = style.font.getlength(text)
        left = min(max(0, x - needed / 2), width - needed)
        draw.text((left, style.line + style.gap), text, INK, style.font)
    for index, line in enumerate(lines):
        draw.text((0, (index + 2) * style.line + style.gap), line, INK, style.font)
    return bar


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The text in lines no wider than ``width`` where its words allow that."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _legend_strips(width: int, style: Style, legend: Mapping[str, Colour]) -> list[Image.Image]:
    """Lines of colour boxes with names, broken where a line is full."""
    strips: list[Image.Image] = []
    left = width
    box = style.line
    for name, colour in legend.items():
        needed = box + style.gap + round(style.font.getlength(name))
        if left + needed > width:
            strips.append(_text_strip(width, style, ()))
            left = 0
        draw = ImageDraw.Draw(strips[-1])
        draw.rectangle((left, 3, left + box, style.line - 4), colour, FAINT)
        draw.text((left + box + style.gap, 0), name, INK, style.font)
        left += needed + style.margin
    return strips


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu, which comes with matplotlib and knows the letters of any image's name."""
    from matplotlib import get_data_path  # slow to import

    return ImageFont.truetype(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
