"""The ground of a scene: road, sidewalks, soil and markings, as flat faces.

Own paints: asphalt, paving, soil, kerb.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.streets.mesh import Mesh, Mode
from datasets.streets.paints import Paint, Surface
from datasets.streets.scene import Street
from datasets.streets.textures import Grain

NEAREST, FARTHEST = 0.6, 230.0
KERB = 0.12  # metres
# dense where a bend shows most
_STEPS = np.array(
    [NEAREST, 1.5, 3, 5, 7.5, 10.5, 14, 18, 23, 29, 36, 45, 56, 70, 90, 120, 160, FARTHEST]
)
_SIDE = 150.0


class _Strip(NamedTuple):
    """A horizontal rectangle, or one from ``y`` down to 0 where its ends in x or z agree."""

    x0: float
    x1: float
    z0: float
    z1: float
    paint: int
    surface: Surface
    grain: Grain
    y: float = 0.0
    tone: float = 1.0
    least: float = 0.0


def ground(street: Street) -> Mesh:
    """The faces of the ground, in drawing order."""
    strips = [
        _Strip(-_SIDE, _SIDE, NEAREST, FARTHEST, Paint.THIRD, Surface.TERRAIN, Grain.GRASS),
        *_sidewalks(street),
        *_road(street),
        *_markings(street),
    ]
    return _mesh(strips)


def _sidewalks(street: Street) -> list[_Strip]:
    look = (Paint.SECOND, Surface.SIDEWALK, Grain.PAVING)
    strips = []
    for side in (-1, 1):
        inner, outer = side * street.edge(side), side * street.border(side)
        runs = [(NEAREST, FARTHEST)]
        if street.crossing is not None:
            near, far = street.crossing
            runs = [(NEAREST, near), (far, FARTHEST)]
            for z0, z1 in ((near - 3.0, near), (far, far + 3.0)):
                strips.append(_Strip(inner, side * _SIDE, z0, z1, *look, KERB))
            kerb = (Paint.KERB, Surface.SIDEWALK, Grain.PLAIN)
            strips.append(_Strip(inner, side * _SIDE, far, far, *kerb, KERB))
        for z0, z1 in runs:
            strips.append(_Strip(inner, outer, z0, z1, *look, KERB))
            kerb = (Paint.KERB, Surface.SIDEWALK, Grain.PLAIN)
            strips.append(_Strip(inner, inner + side * 0.16, z0, z1, *kerb, KERB))
            strips.append(_Strip(inner, inner, z0, z1, *kerb, KERB, 0.8))
    return strips


def _road(street: Street) -> list[_Strip]:
    look = (Paint.FIRST, Surface.ROAD, Grain.ASPHALT)
    left, right = street.edges
    strips = [_Strip(-left, right, NEAREST, FARTHEST, *look)]
    for side in (-1, 1):  # the gutter
        edge = side * street.edge(side)
        strips.append(_Strip(edge - side * 0.3, edge, NEAREST, FARTHEST, *look, 0.0, 0.86))
        if street.parking[side > 0]:
            bay = edge - side * 2.2
            strips.append(_Strip(bay, edge, NEAREST, FARTHEST, *look, 0.0, 1.07))
    if street.crossing is not None:
        strips.append(_Strip(-_SIDE, _SIDE, *street.crossing, *look))
    if street.has_tracks:
        for track in (-0.5, 0.5):
            middle = track * street.lane
            bed = (Paint.TRACK, Surface.ROAD, Grain.PAVING)
            strips.append(_Strip(middle - 1.1, middle + 1.1, NEAREST, FARTHEST, *bed))
            for rail in (-0.72, 0.72):
                x = middle + rail
                rails = (Paint.DARK_METAL, Surface.ROAD, Grain.PLAIN)
                strips.append(_Strip(x - 0.05, x + 0.05, NEAREST, FARTHEST, *rails))
    for x, z, width, length, tone in street.patches:
        strips.append(_Strip(x, x + width, z, z + length, *look, 0.0, tone, 1.0))
    return strips


def _markings(street: Street) -> list[_Strip]:
    look = (Paint.MARKING, Surface.ROAD, Grain.BLOTCHES)
    tone = 1.0 - 0.28 * street.wear
    strips = []

    def paint(x0: float, x1: float, z0: float, z1: float) -> None:
        if street.crossing is None or z1 < street.crossing[0] or z0 > street.crossing[1]:
            strips.append(_Strip(x0, x1, z0, z1, *look, 0.0, tone, float(z1 - z0 < 9)))

    dividers = [street.lane, -street.lane] if street.lanes == 2 else []
    if not street.has_tracks:
        dividers.append(0.0)
    for x in dividers:
        for z in np.arange(2.0, 72.0, 9.0).tolist():
            paint(x - 0.07, x + 0.07, z, z + 4.0)
    for side in (-1, 1):
        if street.parking[side > 0]:
            bay = side * (street.edge(side) - 2.2)
            for z in np.arange(2.0, 62.0, 6.0).tolist():
                x0, x1 = sorted((bay, bay + side * 2.0))
                paint(x0, x1, z, z + 0.12)
            paint(
                bay - 0.06,
                bay + 0.06,
                NEAREST,
                street.crossing[0] - 6 if street.crossing else 100.0,
            )
    if street.crossing is not None:
        near = street.crossing[0]
        paint(0.15, street.lanes * street.lane, near - 5.6, near - 5.1)
        for x in np.arange(-street.edges[0] + 0.4, street.edges[1] - 0.4, 1.0).tolist():
            paint(x, x + 0.5, near - 4.2, near - 1.2)
    return strips


def _mesh(strips: list[_Strip]) -> Mesh:
    """Faces whose corners follow the strip, so that they can be bent along it."""
    x0, x1, z0, z1, paint, surface, grain, y, tone, least = map(np.array, zip(*strips, strict=True))
    is_long = (z1 - z0) > 9.0
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
    return Mesh(
        flat, counts, paint, surface.astype(np.uint8), grain.astype(np.uint8),
        np.full(len(strips), Mode.GROUND, np.uint8), tone, np.zeros(len(strips)), least,
    )  # fmt: skip
