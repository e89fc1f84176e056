"""Meshes: lists of flat faces, and the shapes that they are built from.

Metres; x to the right, y up, z ahead. A model stands at the origin and looks along +z.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.streets.paints import DEFAULT_GRAIN, Surface
from datasets.streets.textures import Grain

Point = tuple[float, float, float]
SMALL, WINDOW, CLUMP = 1.6, 2.8, 12.0  # least widths of details, in pixels


class Mode(IntEnum):
    """How a face is drawn."""

    SOLID = 0  # one side only, lit by its normal
    CARD = 1  # seen from both sides, lit evenly
    LINE = 2  # an open line; ``extent`` is its width in metres
    VEIL = 3  # lets what is behind shine through; ``extent`` is its opacity
    GROUND = 4  # level, at the height of its first point
    ROUGH = 5  # a card that need not be convex


class Mesh(NamedTuple):
    """Faces in drawing order; P points, F faces."""

    points: NDArray[np.float64]  # (P, 3)
    counts: NDArray[np.int64]  # (F,), points of each face
    codes: NDArray[np.uint8]  # (F, 4): paint, surface, grain, mode
    amounts: NDArray[np.float64]  # (F, 3): tone, extent, least

    @property
    def paint(self) -> NDArray[np.uint8]:
        """``Paint`` of each face."""
        return self.codes[:, 0]

    @property
    def surface(self) -> NDArray[np.uint8]:
        """``Surface`` of each face."""
        return self.codes[:, 1]

    @property
    def grain(self) -> NDArray[np.uint8]:
        """``Grain`` of each face."""
        return self.codes[:, 2]

    @property
    def mode(self) -> NDArray[np.uint8]:
        """``Mode`` of each face."""
        return self.codes[:, 3]

    @property
    def tone(self) -> NDArray[np.float64]:
        """Factor on the paint of each face."""
        return self.amounts[:, 0]

    @property
    def extent(self) -> NDArray[np.float64]:
        """Width or opacity, see ``Mode``."""
        return self.amounts[:, 1]

    @property
    def least(self) -> NDArray[np.float64]:
        """Width in pixels below which a face is left out."""
        return self.amounts[:, 2]


def ring(
    centre: Point, radius: float, corners: int, axis: str = "z", squash: float = 1.0
) -> NDArray[np.float64]:
    """Corners of a regular polygon around an axis, (corners, 3)."""
    angle = (np.arange(corners) + 0.5) * (2 * np.pi / corners)
    across, up = radius * np.cos(angle), radius * squash * np.sin(angle)
    zero = np.zeros(corners)
    columns = {"z": (across, up, zero), "x": (zero, up, across), "y": (across, zero, up)}[axis]
    return np.stack(columns, 1) + np.asarray(centre)


def rectangle(x0: float, x1: float, y0: float, y1: float, z: float = 0.0) -> list[Point]:
    """An upright rectangle that faces the camera."""
    return [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]


def flank(x: float, s0: float, s1: float, y0: float, y1: float) -> list[Point]:
    """An upright rectangle along the street, from ``s0`` to ``s1`` ahead."""
    return [(x, y0, s0), (x, y0, s1), (x, y1, s1), (x, y1, s0)]


class MeshBuilder:
    """Collects faces; ``surface`` is the surface of those to come."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self._points: list[NDArray[np.float64]] = []
        self._counts: list[int] = []
        self._codes: list[tuple[int, int, int, int]] = []
        self._amounts: list[tuple[float, float, float]] = []

    def add(
        self,
        points: Sequence[Point] | NDArray[np.float64],
        paint: int,
        *,
        out: Point | None = None,
        mode: Mode = Mode.SOLID,
        tone: float = 1.0,
        extent: float = 0.0,
        grain: Grain | None = None,
        least: float = 0.0,
    ) -> None:
        """Add a convex face.

        Args:
            points: its corners, (n, 3).
            paint: a ``Paint``.
            out: roughly where a solid face looks; turns the order of its corners if need be.
            mode: how it is drawn.
            tone: factor on the paint.
            extent: width of a line in metres, opacity of a veil.
            grain: None for the usual one of the surface.
            least: width in pixels below which it is left out.
        """
        corners = np.asarray(points, np.float64)
        if out is not None:
            normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
            if (normal * np.asarray(out)).sum() < 0:
                corners = corners[::-1]
        if grain is None:
            grain = DEFAULT_GRAIN.get(self.surface, Grain.PLAIN)
        self._points.append(corners)
        self._counts.append(len(corners))
        self._codes.append((paint, self.surface, grain, mode))
        self._amounts.append((tone, extent, least))

    def card(
        self,
        points: Sequence[Point] | NDArray[np.float64],
        paint: int,
        tone: float = 1.0,
        least: float = 0.0,
    ) -> None:
        """Add a face that is seen from both sides."""
        self.add(points, paint, mode=Mode.CARD, tone=tone, grain=Grain.PLAIN, least=least)

    def line(self, points: Sequence[Point] | NDArray[np.float64], paint: int, width: float) -> None:
        """Add an open line of some metres' width."""
        self.add(points, paint, mode=Mode.LINE, extent=width, grain=Grain.PLAIN)

    def box(
        self,
        low: Point,
        high: Point,
        paint: int,
        *,
        sides: str = "lrfbt",
        tone: float = 1.0,
        grain: Grain | None = None,
        least: float = 0.0,
    ) -> None:
        """Add the sides of an upright box: left, right, front (+z), back, top, under."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        corners: dict[str, tuple[list[Point], Point]] = {
            "u": ([(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)], (0, -1, 0)),
            "f": ([(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)], (0, 0, 1)),
            "l": ([(x0, y0, z0), (x0, y0, z1), (x0, y1, z1), (x0, y1, z0)], (-1, 0, 0)),
            "r": ([(x1, y0, z0), (x1, y0, z1), (x1, y1, z1), (x1, y1, z0)], (1, 0, 0)),
            "b": ([(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)], (0, 0, -1)),
            "t": ([(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)], (0, 1, 0)),
        }
        for side in sides:
            points, out = corners[side]
            self.add(points, paint, out=out, tone=tone, grain=grain, least=least)

    def grid(
        self,
        corners: NDArray[np.float64],
        paint: Iterable[int],
        *,
        out: Point,
        tone: float = 1.0,
    ) -> None:
        """Add many small rectangles of one plane, such as windows, corners (n, 4, 3)."""
        for rectangle_, colour in zip(corners, paint, strict=True):
            self.add(rectangle_, colour, out=out, tone=tone, grain=Grain.PLAIN, least=WINDOW)

    def build(self) -> Mesh:
        """The mesh of the faces added so far."""
        return Mesh(
            np.concatenate(self._points),
            np.array(self._counts, np.int64),
            np.array(self._codes, np.uint8),
            np.array(self._amounts, np.float64),
        )
