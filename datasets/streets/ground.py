"""The ground of a scene: road, sidewalks, soil and markings, as flat faces.

Own paints: asphalt, paving, soil, kerb.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from datasets.streets.mesh import SMALL, Mesh, Mode
from datasets.streets.paints import Paint, Surface
from datasets.streets.scene import KERB, Street
from datasets.streets.textures import Grain

NEAREST, FARTHEST = 0.6, 230.0
# dense where a bend shows most
_STEPS = np.array(
    [NEAREST, 1.5, 3, 5, 7.5, 10.5, 14, 18, 23, 29, 36, 45, 56, 70, 90, 120, 160, FARTHEST]
)
_SIDE = 150.0
_LONG = 9.0  # metres from which a strip follows the bend

_Spot = tuple[float, float, float, float]  # x from, x to, z from, z to


class _Look(NamedTuple):
    paint: int
    surface: Surface
    grain: Grain


_SOIL = _Look(Paint.THIRD, Surface.TERRAIN, Grain.GRASS)
_PAVING = _Look(Paint.SECOND, Surface.SIDEWALK, Grain.PAVING)
_KERB = _Look(Paint.KERB, Surface.SIDEWALK, Grain.PLAIN)
_ASPHALT = _Look(Paint.FIRST, Surface.ROAD, Grain.ASPHALT)
_TRACK_BED = _Look(Paint.TRACK, Surface.ROAD, Grain.PAVING)
_RAIL = _Look(Paint.DARK_METAL, Surface.ROAD, Grain.PLAIN)
_MARKING = _Look(Paint.MARKING, Surface.ROAD, Grain.BLOTCHES)


class _Strip(NamedTuple):
    """A horizontal rectangle, or one from ``y`` down to 0 where its ends in x or z agree."""

    x0: float
    x1: float
    z0: float
    z1: float
    look: _Look
    y: float = 0.0
    tone: float = 1.0
    least: float = 0.0


def ground(street: Street) -> Mesh:
    """The faces of the ground, in drawing order."""
    strips = [
        _Strip(-_SIDE, _SIDE, NEAREST, FARTHEST, _SOIL),
        *_sidewalks(street),
        *_road(street),
        *_markings(street),
    ]
    return _mesh(strips)


def _sidewalks(street: Street) -> list[_Strip]:
    strips = []
    for side in (-1, 1):
        inner, outer = side * street.edge(side), side * street.border(side)
        runs = [(NEAREST, FARTHEST)]
        if street.crossing is not None:
            near, far = street.crossing
            runs = [(NEAREST, near), (far, FARTHEST)]
            for z0, z1 in ((near - 3.0, near), (far, far + 3.0)):
                strips.append(_Strip(inner, side * _SIDE, z0, z1, _PAVING, KERB))
            strips.append(_Strip(inner, side * _SIDE, far, far, _KERB, KERB))
        for z0, z1 in runs:
            strips.append(_Strip(inner, outer, z0, z1, _PAVING, KERB))
            if street.verges[side > 0]:
                # the sidewalk of the crossing street goes through
                begin = z0 if z0 == NEAREST else z0 + 3.0
                end = z1 if z1 == FARTHEST else z1 - 3.0
                strips.append(_Strip(inner, side * street.walk(side), begin, end, _SOIL, KERB))
            strips.append(_Strip(inner, inner + side * 0.16, z0, z1, _KERB, KERB))
            strips.append(_Strip(inner, inner, z0, z1, _KERB, KERB, 0.8))
    return strips


def _road(street: Street) -> list[_Strip]:
    left, right = street.edges
    strips = [_Strip(-left, right, NEAREST, FARTHEST, _ASPHALT)]
    for side in (-1, 1):  # the gutter
        edge = side * street.edge(side)
        strips.append(_Strip(edge - side * 0.3, edge, NEAREST, FARTHEST, _ASPHALT, 0.0, 0.86))
        if street.parking[side > 0]:
            bay = edge - side * 2.2
            strips.append(_Strip(bay, edge, NEAREST, FARTHEST, _ASPHALT, 0.0, 1.07))
    if street.crossing is not None:
        strips.append(_Strip(-_SIDE, _SIDE, *street.crossing, _ASPHALT))
    if street.has_tracks:
        for track in (-0.5, 0.5):
            middle = track * street.lane
            strips.append(_Strip(middle - 1.1, middle + 1.1, NEAREST, FARTHEST, _TRACK_BED))
            for rail in (-0.72, 0.72):
                x = middle + rail
                strips.append(_Strip(x - 0.05, x + 0.05, NEAREST, FARTHEST, _RAIL))
    for x, z, width, length, tone in street.patches:
        strips.append(_Strip(x, x + width, z, z + length, _ASPHALT, 0.0, tone, SMALL))
    return strips


def _markings(street: Street) -> list[_Strip]:
    """Lines and bars on the road; none crosses the street that crosses."""
    spots = [*_dashes(street), *_bays(street), *_zebra(street)]
    near, far = street.crossing or (FARTHEST, FARTHEST)
    tone = 1.0 - 0.28 * street.wear
    return [
        _Strip(*spot, _MARKING, 0.0, tone, SMALL * (spot[3] - spot[2] < _LONG))
        for spot in spots
        if spot[3] < near or spot[2] > far
    ]


def _dashes(street: Street) -> Iterator[_Spot]:
    """Between lanes; tracks take the place of the line in the middle."""
    dividers = [street.lane, -street.lane] if street.lanes == 2 else []
    if not street.has_tracks:
        dividers.append(0.0)
    for x in dividers:
        for z in np.arange(2.0, 72.0, 9.0).tolist():
            yield x - 0.07, x + 0.07, z, z + 4.0


def _bays(street: Street) -> Iterator[_Spot]:
    """Around parked cars."""
    end = street.crossing[0] - 6 if street.crossing else 100.0
    for side in (-1, 1):
        if not street.parking[side > 0]:
            continue
        x = side * (street.edge(side) - 2.2)
        yield x - 0.06, x + 0.06, NEAREST, end
        for z in np.arange(2.0, end - 2.0, 6.0).tolist():
            yield min(x, x + side * 2.0), max(x, x + side * 2.0), z, z + 0.12


def _zebra(street: Street) -> Iterator[_Spot]:
    """A stop line and a zebra crossing."""
    if street.crossing is None:
        return
    near = street.crossing[0]
    yield 0.15, street.lanes * street.lane, near - 5.6, near - 5.1
    for x in np.arange(-street.edges[0] + 0.4, street.edges[1] - 0.4, 1.0).tolist():
        yield x, x + 0.5, near - 4.2, near - 1.2


def _mesh(strips: list[_Strip]) -> Mesh:
    """Faces whose corners follow the strip, so that they can be bent along it."""
    x0, x1, z0, z1, look, y, tone, least = map(np.array, zip(*strips, strict=True))
    is_long = (z1 - z0) > _LONG
    steps = len(_STEPS)
    upright, facing = (x0 == x1)[:, None], (z0 == z1)[:, None]
    points = []
    for chosen in (True, False):
        rows = np.flatnonzero(is_long == chosen)
        stops = _STEPS[None] if chosen else np.array([[NEAREST, FARTHEST]])
        z = np.clip(stops, z0[rows, None], z1[rows, None])
        z = np.concatenate([z, z[:, ::-1]], 1)
        n = stops.shape[1]
        x = np.concatenate([np.repeat(x0[rows, None], n, 1), np.repeat(x1[rows, None], n, 1)], 1)
        high = np.repeat(y[rows, None], 2 * n, 1)
        high[:, n:] = np.where(upright[rows], 0.0, high[:, n:])
        high[:, 1 : 2 * n - 1] = np.where(facing[rows], 0.0, high[:, 1 : 2 * n - 1])
        points.append((rows, np.stack([x, high, z], 2)))
    counts = np.where(is_long, 2 * steps, 4)
    starts = np.cumsum(counts) - counts
    flat = np.empty((counts.sum(), 3))
    for rows, block in points:
        places = starts[rows, None] + np.arange(block.shape[1])
        flat[places.ravel()] = block.reshape(-1, 3)
    num = len(strips)
    return Mesh(
        flat,
        counts,
        np.column_stack([look, np.full(num, Mode.GROUND)]).astype(np.uint8),
        np.column_stack([tone, np.zeros(num), least]),
    )
