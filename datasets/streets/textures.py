"""Tiles of surface grain, made once per process from a fixed seed, with their smaller levels."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.streets.dice import Dice

Pixels = NDArray[np.floating]  # of float32

TILE = 512  # texels along a side, a power of two
TEXELS_PER_METRE = 80
MIDDLE = 128  # value that leaves a surface as it is
NOISE_UNIT = 32  # standard deviation of the stored noise

_LEVELS = TILE.bit_length()
_SEED = 2407


class Grain(IntEnum):
    """Kinds of surface grain."""

    PLAIN = 0
    ASPHALT = 1
    PAVING = 2
    GRASS = 3
    LEAVES = 4
    PLASTER = 5
    BRICK = 6
    TILES = 7
    PLANKS = 8
    STONE = 9
    BLOTCHES = 10


class Atlas(NamedTuple):
    """All tiles with their levels in one flat array, so that a lookup is one index."""

    values: NDArray[np.uint8]
    tile_starts: NDArray[np.int64]  # by grain
    level_starts: NDArray[np.int64]  # within a tile's levels
    widths: NDArray[np.int64]  # texels along a side, by level


def _blur(tile: NDArray, radius: int, axis: int) -> NDArray:
    """Mean over ``2 radius + 1`` texels along an axis that wraps around, in whole numbers."""
    width = 2 * radius + 1
    wrapped = np.concatenate(
        [tile.take(range(-radius - 1, 0), axis), tile, tile.take(range(radius), axis)], axis
    )
    sums = np.cumsum(wrapped, axis)
    size = tile.shape[axis]
    return (sums.take(range(width, width + size), axis) - sums.take(range(size), axis)) // width


def _octave(rng: np.random.Generator, rows: int, columns: int | None = None) -> NDArray:
    """Smooth noise in 0..255 * 16 with so many waves along the tile's sides, wrapping around."""
    columns = columns or rows
    noise = (rng.random((rows, columns)) * 4080).astype(np.int64)
    tile = np.repeat(np.repeat(noise, TILE // rows, 0), TILE // columns, 1)
    for _ in range(2):
        for axis, cells in ((0, rows), (1, columns)):
            if TILE // cells > 1:
                tile = _blur(tile, TILE // cells // 2, axis)
    return tile


def _stretch(tile: NDArray, contrast: float) -> NDArray[np.float64]:
    """Centred at zero, with the given standard deviation in grey values."""
    centred = tile - tile.mean()
    return centred * (contrast / centred.std())


def _sum(rng: np.random.Generator, *octaves: tuple[int, float]) -> NDArray[np.float64]:
    """Noise of several octaves, each (waves, contrast)."""
    return sum((_stretch(_octave(rng, n), c) for n, c in octaves), np.zeros((TILE, TILE)))


def _slabs(
    rng: np.random.Generator, height: int, width: int, joint: int, depth: float, contrast: float
) -> NDArray[np.float64]:
    """Courses of slabs, bricks or tiles in running bond with dark joints."""
    rows, columns = np.indices((TILE, TILE))
    course = rows // height
    shifted = (columns + (course % 2) * (width // 2)) % TILE
    tones = _stretch(rng.random((TILE // height, TILE // width)), contrast)
    tile = tones[course, shifted // width]
    tile[(rows % height < joint) | (shifted % width < joint)] -= depth
    return tile


def _asphalt(rng: np.random.Generator) -> NDArray[np.float64]:
    return _sum(rng, (512, 13), (256, 9), (64, 5), (16, 5), (4, 4))


def _paving(rng: np.random.Generator) -> NDArray[np.float64]:
    return _slabs(rng, 32, 32, 2, 26, 6) + _sum(rng, (256, 6), (32, 4), (8, 5))


def _grass(rng: np.random.Generator) -> NDArray[np.float64]:
    blades = _stretch(_octave(rng, 128, 512), 15)
    return blades + _sum(rng, (256, 12), (64, 10), (16, 9))


def _leaves(rng: np.random.Generator) -> NDArray[np.float64]:
    clumps = _sum(rng, (256, 14), (128, 20), (64, 15), (32, 10), (8, 6))
    return np.where(clumps < -24, clumps * 1.3, clumps)


def _plaster(rng: np.random.Generator) -> NDArray[np.float64]:
    streaks = _stretch(_octave(rng, 8, 128), 3)
    return streaks + _sum(rng, (256, 4), (16, 3), (4, 5))


def _brick(rng: np.random.Generator) -> NDArray[np.float64]:
    return _slabs(rng, 8, 16, 1, -16, 12) + _sum(rng, (256, 5), (8, 6))


def _tiles(rng: np.random.Generator) -> NDArray[np.float64]:
    slope = (np.arange(TILE) % 32 - 16)[:, None] * 0.9
    return _slabs(rng, 32, 16, 2, 26, 9) + slope + _sum(rng, (32, 5), (4, 6))


def _planks(rng: np.random.Generator) -> NDArray[np.float64]:
    boards = _slabs(rng, 16, TILE, 2, 52, 13).T
    return boards + _stretch(_octave(rng, 16, 256), 6)


def _stone(rng: np.random.Generator) -> NDArray[np.float64]:
    return _slabs(rng, 32, 64, 3, 34, 15) + _sum(rng, (256, 7), (64, 7), (16, 6))


def _blotches(rng: np.random.Generator) -> NDArray[np.float64]:
    return _sum(rng, (4, 22), (8, 16), (16, 12), (32, 9), (64, 6), (128, 4))


_MAKERS: dict[Grain, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    Grain.ASPHALT: _asphalt,
    Grain.PAVING: _paving,
    Grain.GRASS: _grass,
    Grain.LEAVES: _leaves,
    Grain.PLASTER: _plaster,
    Grain.BRICK: _brick,
    Grain.TILES: _tiles,
    Grain.PLANKS: _planks,
    Grain.STONE: _stone,
    Grain.BLOTCHES: _blotches,
}


def _levels(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The tile and its halvings down to one texel, flat, one after the other."""
    levels = [tile.astype(np.int64)]
    while levels[-1].size > 1:
        t = levels[-1]
        levels.append((t[::2, ::2] + t[1::2, ::2] + t[::2, 1::2] + t[1::2, 1::2] + 2) // 4)
    return np.concatenate([level.ravel() for level in levels]).astype(np.uint8)


@cache
def tile(grain: Grain) -> NDArray[np.uint8]:
    """The finest level of a grain, (TILE, TILE), centred at ``MIDDLE``."""
    if grain == Grain.PLAIN:
        return np.full((TILE, TILE), MIDDLE, np.uint8)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([_SEED, int(grain)])))
    return np.clip(_MAKERS[grain](rng) + MIDDLE, 0, 255).round().astype(np.uint8)


@cache
def atlas() -> Atlas:
    """Every grain with its levels."""
    flat = [_levels(tile(grain)) for grain in Grain]
    widths = TILE >> np.arange(_LEVELS)
    return Atlas(
        np.concatenate(flat),
        np.arange(len(flat)) * flat[0].size,
        np.cumsum(widths**2) - widths**2,
        widths,
    )


@cache
def noise() -> NDArray[np.int8]:
    """Normally distributed noise, (TILE, TILE), with standard deviation ``NOISE_UNIT``."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([_SEED, 100])))
    # twelve uniforms add up to a normal variable, the same on every platform
    total = rng.random((12, TILE, TILE)).sum(0) - 6
    return np.clip(total * NOISE_UNIT, -127, 127).round().astype(np.int8)


@cache
def fall(kind: str, layer: int) -> NDArray[np.uint8]:
    """Falling ``streaks`` or ``flakes``, (TILE, TILE): opacity in 0..255; layer 1 is farther."""
    entropy = [_SEED, 200 + layer, kind == "flakes"]
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    sparse = rng.random((TILE, TILE))
    if kind == "flakes":
        dots = (sparse < (0.0022, 0.009)[layer]) * rng.random((TILE, TILE)) * 255
        reach = (1, 0)[layer]
        spread = dots.astype(np.int64)
        for shift in range(-reach, reach + 1):
            for slide in range(-reach, reach + 1):
                near = 255 - 90 * (abs(shift) + abs(slide))
                moved = np.roll(dots, (shift, slide), (0, 1)).astype(np.int64) * near // 255
                spread = np.maximum(spread, moved)
        return spread.astype(np.uint8)
    dots = (sparse < (0.0007, 0.0022)[layer]) * (80 + rng.random((TILE, TILE)) * 175)
    streaks = np.zeros((TILE, TILE))
    for step in range((22, 11)[layer]):
        streaks = np.maximum(streaks, np.roll(dots, (step, -(step // 6)), (0, 1)))
    return (streaks * 0.6).astype(np.uint8)


def window(values: NDArray, dice: Dice, shape: tuple[int, ...]) -> NDArray:
    """A random piece (H, W) of a tile that wraps around; a view of it where it lies inside."""
    row, column = dice.whole(0, TILE - 1), dice.whole(0, TILE - 1)
    end_row, end_column = row + shape[0], column + shape[1]
    if max(end_row, end_column) <= TILE:
        return values[row:end_row, column:end_column]
    rows = np.arange(row, end_row) & (TILE - 1)
    columns = np.arange(column, end_column) & (TILE - 1)
    return values.take(rows[:, None] * TILE + columns)


def _lookup(
    grain: NDArray | Grain,
    column: NDArray[np.int64],
    row: NDArray[np.int64],
    level: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """Values at whole texels of the finest level, from each one's own level."""
    tiles = atlas()
    place = row & (TILE - 1)
    place >>= level
    place *= tiles.widths.take(level)
    place += (column & (TILE - 1)) >> level
    place += tiles.level_starts.take(level)
    place += tiles.tile_starts[grain]
    return tiles.values.take(place)


def _texels(
    u: Pixels, v: Pixels, footprint: Pixels
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Texel column and row, and the level whose texels have about a pixel's size."""
    # truncation rounds down as long as nothing is negative
    shift = np.float32(TILE * 64)
    column = (u * np.float32(TEXELS_PER_METRE) + shift).astype(np.int64)
    row = (v * np.float32(TEXELS_PER_METRE) + shift).astype(np.int64)
    # frexp gives floor(log2) + 1 exactly, on every platform
    return column, row, np.frexp(footprint * np.float32(TEXELS_PER_METRE))[1].astype(np.int64)


def sample(grain: Grain, u: Pixels, v: Pixels, footprint: Pixels) -> NDArray[np.uint8]:
    """One grain at surface coordinates.

    Args:
        grain: the tile.
        u: metres along the surface, any shape.
        v: metres across it, same shape.
        footprint: metres that a pixel covers, same shape.
    """
    column, row, level = _texels(u, v, footprint)
    return _lookup(grain, column, row, np.clip(level, 0, _LEVELS - 1))


def sample_twice(
    grain: NDArray[np.uint8],
    u: Pixels,
    v: Pixels,
    footprint: Pixels,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Grain of each pixel, and blotches sixteen times as large; arguments as for ``sample``."""
    column, row, level = _texels(u, v, footprint)
    fine = _lookup(grain, column, row, np.clip(level, 0, _LEVELS - 1))
    coarse = np.clip(level - 4, 0, _LEVELS - 1)
    return fine, _lookup(Grain.BLOTCHES, column >> 4, row >> 4, coarse)
