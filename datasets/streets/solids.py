"""Solid shapes, and bodies made of several of them that can be turned by any angle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from datasets.streets.mesh import SMALL, Mesh, MeshBuilder, Point
from datasets.streets.paints import Paint, Surface
from datasets.streets.textures import Grain

_SHADE = 0.74  # tone of what looks down; what looks up has 1


class Body:
    """Convex parts that are drawn from the back to the front, however the body is turned."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self._parts: list[tuple[MeshBuilder, int, Point, float]] = []

    def part(self, layer: int = 0, at: Point = (0, 0, 0), turn: float = 0.0) -> MeshBuilder:
        """A new convex part, to be filled.

        Args:
            layer: drawn after all parts of lower layers, as what lies on top must be.
            at: where its origin comes to lie.
            turn: angle to the left about its origin, rad.
        """
        mesh = MeshBuilder(self.surface)
        self._parts.append((mesh, layer, at, turn))
        return mesh

    @cached_property
    def _meshes(self) -> list[tuple[Mesh, int]]:
        """Each part at its place, with its layer; what would be below the ground lies on it."""
        meshes = []
        for builder, layer, at, turn in self._parts:
            mesh = builder.build()
            points = _turned(mesh.points, turn) + np.asarray(at)
            points[:, 1] = np.maximum(points[:, 1], 0.0)
            meshes.append((mesh._replace(points=points), layer))
        return meshes

    def build(self, turn: float) -> Mesh:
        """The mesh of all parts, turned to the left by an angle in rad."""
        placed: list[tuple[tuple[int, float, float], Mesh]] = []
        for mesh, layer in self._meshes:
            points = _turned(mesh.points, turn)
            low, high = points.min(0), points.max(0)
            key = (layer, -float(low[2] + high[2]), float(low[1]))
            placed.append((key, mesh._replace(points=points)))
        placed.sort(key=lambda entry: entry[0])
        return Mesh(*map(np.concatenate, zip(*(mesh for _, mesh in placed), strict=True)))


def _turned(points: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    x, y, z = points.T
    cos, sin = math.cos(angle), math.sin(angle)
    return np.stack([x * cos - z * sin, y, x * sin + z * cos], 1)


def _toned(normal: NDArray[np.float64]) -> float:
    """Darker where a face looks down, as light comes from above."""
    up = float(normal[1] / max(float(np.sqrt((normal * normal).sum())), 1e-9))
    return _SHADE + (1 - _SHADE) * (1 + up) / 2


def add_ellipsoid(
    mesh: MeshBuilder,
    centre: Point,
    radii: Point,
    paints: Sequence[Sequence[int]],
    *,
    corners: int = 10,
    bumps: NDArray[np.float64] | None = None,
    grain: Grain = Grain.PLAIN,
) -> None:
    """Add an ellipsoid.

    Args:
        mesh: the part that it belongs to.
        centre: its middle.
        radii: along x, y and z.
        paints: of the rows of faces from below to above; within a row they take turns.
        corners: faces around it.
        bumps: factors on the radius of every corner, (rows + 1, corners).
        grain: of its surface.
    """
    rows = len(paints)
    height = np.sin(np.linspace(-np.pi / 2, np.pi / 2, rows + 1))
    around = np.arange(corners) * (2 * np.pi / corners)
    ring = np.stack([np.cos(around), np.zeros(corners), np.sin(around)], 1)
    points = ring * np.sqrt(np.maximum(1 - height**2, 0))[:, None, None]
    points[..., 1] = height[:, None]
    if bumps is not None:
        points *= bumps[..., None]
        points[[0, -1]] = points[[0, -1], :1]  # the poles are single points
    points = points * np.asarray(radii) + np.asarray(centre)
    for row, choice in enumerate(paints):
        for i in range(corners):
            j = (i + 1) % corners
            quad = points[[row, row, row + 1, row + 1], [i, j, j, i]]
            face = quad[1:] if row == 0 else quad[:3] if row == rows - 1 else quad
            out = face.mean(0) - np.asarray(centre)
            mesh.add(
                face, choice[i % len(choice)], out=(out[0], out[1], out[2]),
                tone=_toned(out), grain=grain,
            )  # fmt: skip


def add_tube(
    mesh: MeshBuilder,
    ends: tuple[Point, Point],
    radii: tuple[float, float],
    paints: Sequence[int],
    *,
    corners: int = 8,
    caps: tuple[int | None, int | None] = (None, None),
    grain: Grain = Grain.PLAIN,
) -> None:
    """Add a straight tube that may taper.

    Args:
        mesh: the part that it belongs to.
        ends: middles of its two ends.
        radii: at its ends.
        paints: of the faces around it, which take turns.
        corners: faces around it.
        caps: paints of its ends; None leaves one open.
        grain: of its side.
    """
    start, end = (np.asarray(place, np.float64) for place in ends)
    along = (end - start) / np.sqrt(((end - start) ** 2).sum())
    aside = np.array([0.0, 0, 1]) if abs(along[1]) > 0.9 else np.array([0.0, 1, 0])
    first = np.cross(along, aside)
    first /= np.sqrt((first * first).sum())
    second = np.cross(along, first)
    angle = (np.arange(corners) + 0.5) * (2 * np.pi / corners)
    ring = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
    low, high = start + radii[0] * ring, end + radii[1] * ring
    for i in range(corners):
        j = (i + 1) % corners
        out = ring[i] + ring[j]
        mesh.add(
            np.stack([low[i], low[j], high[j], high[i]]), paints[i % len(paints)],
            out=(out[0], out[1], out[2]), tone=_toned(out), grain=grain,
        )  # fmt: skip
    for cap, corners_, out in ((caps[0], low, -along), (caps[1], high, along)):
        if cap is not None:
            mesh.add(corners_, cap, out=(out[0], out[1], out[2]), grain=Grain.PLAIN)


def add_patterned_box(
    mesh: MeshBuilder, low: Point, high: Point, cells: Point, *, is_striped: bool = False
) -> None:
    """Add an upright box with a checker-board, or stripes, of its first and second own paint.

    Args:
        mesh: the part that it belongs to.
        low: its lowest corner.
        high: its highest corner.
        cells: how many fields lie along x, y and z.
        is_striped: stripes that run upwards instead of a checker-board.
    """
    mesh.box(low, high, Paint.FIRST, grain=Grain.PLAIN)
    stops = [
        np.linspace(low[axis], high[axis], int(cells[axis]) + 1) for axis in range(3)
    ]  # field borders
    planes = ((0, low[0], -1.0), (0, high[0], 1.0), (2, low[2], -1.0), (2, high[2], 1.0),
              (1, high[1], 1.0))  # fmt: skip
    for normal, level, side in planes:
        a, b = (axis for axis in range(3) if axis != normal)
        out = np.zeros(3)
        out[normal] = side
        for i in range(len(stops[a]) - 1):
            for j in range(len(stops[b]) - 1):
                across = j if a == 1 else i
                if (across if is_striped else i + j) % 2:
                    continue
                field = np.full((4, 3), level + 0.002 * side)
                field[:, a] = stops[a][[i, i + 1, i + 1, i]]
                field[:, b] = stops[b][[j, j, j + 1, j + 1]]
                mesh.add(field, Paint.SECOND, out=(out[0], out[1], out[2]), grain=Grain.PLAIN,
                         least=SMALL)  # fmt: skip
