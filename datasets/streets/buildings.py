"""Models of buildings. The facade looks to -x (a street on its left) along 0..length in z.

Own paints: facade, trim, roof, shop front.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from datasets.streets.mesh import SMALL, Mesh, MeshBuilder, Point, flank, rectangle
from datasets.streets.paints import Paint, Surface
from datasets.streets.textures import Grain


@dataclass(frozen=True, eq=False)  # compared as objects, so that they are quick keys
class Architecture:
    """How the buildings of a town are made."""

    storey: float  # metres from floor to floor
    bay: float  # metres from window to window
    window: tuple[float, float]  # width and height in metres
    frame: float  # width of the window surround in metres, 0 for none
    roof: str  # "pitched", "flat" or "mansard"
    grain: Grain
    shops: float  # share of buildings with a shop on the ground floor
    balconies: float  # share with balconies


DEPTH = 11.0  # metres from the facade to the back


def facade_size(architecture: Architecture, floors: int, bays: int) -> tuple[float, float]:
    """Length of a facade and height of its eaves in metres."""
    return bays * architecture.bay, floors * architecture.storey + 0.5


def _panes(
    architecture: Architecture, bays: int, low: int, high: int, offset: float, grow: float = 0.0
) -> NDArray[np.float64]:
    """Window rectangles on the plane x = -offset, (n, 4, 3), floor by floor."""
    width, height = architecture.window
    s = (np.arange(bays) + 0.5) * architecture.bay
    y = np.arange(low, high) * architecture.storey + (architecture.storey - height) * 0.5 + 0.1
    s, y = (g.ravel() for g in np.meshgrid(s, y))
    a, b = s - width / 2 - grow, s + width / 2 + grow
    c, d = y - grow, y + height + grow
    x = np.full_like(s, -offset)
    return np.stack(
        [np.stack(corner, 1) for corner in ((x, c, a), (x, c, b), (x, d, b), (x, d, a))], 1
    )


def _shop(mesh: MeshBuilder, length: float, storey: float) -> None:
    """A glazed ground floor under a sign board and an awning."""

    def plate(s0: float, s1: float, y0: float, y1: float, x: float, paint: int) -> None:
        mesh.add(flank(-x, s0, s1, y0, y1), paint, out=(-1, 0, 0), grain=Grain.PLAIN)

    plate(0.3, length - 0.3, 0.25, storey - 0.15, 0.01, Paint.DARK_METAL)
    for s in np.arange(0.45, length - 2.2, 2.1):
        plate(float(s), float(s) + 1.9, 0.45, storey - 0.75, 0.02, Paint.SHOP)
    plate(0.3, length - 0.3, storey - 0.65, storey - 0.12, 0.06, Paint.FOURTH)
    awning: list[Point] = [
        (-1.1, storey - 0.95, 0.6), (-1.1, storey - 0.95, length - 0.6),
        (0, storey - 0.6, length - 0.6), (0, storey - 0.6, 0.6),
    ]  # fmt: skip
    mesh.add(awning, Paint.FOURTH, out=(-0.4, 1, 0), tone=0.9, grain=Grain.PLAIN)
    hem = flank(-1.1, 0.6, length - 0.6, storey - 1.12, storey - 0.95)
    mesh.add(hem, Paint.FOURTH, out=(-1, 0, 0), tone=0.8, grain=Grain.PLAIN)


def _roof(mesh: MeshBuilder, kind: str, length: float, height: float) -> None:
    """The roof above the eaves."""
    if kind == "flat":
        mesh.box((-0.12, height, -0.02), (DEPTH, height + 0.45, length + 0.02), Paint.SECOND,
                 sides="lb", grain=Grain.PLASTER)  # fmt: skip
        return
    if kind == "mansard":
        rise, inset = 2.6, 1.1
        ridge = [(inset, height + rise), (DEPTH - inset, height + rise)]
    else:
        rise = 4.2
        ridge = [(DEPTH / 2, height + rise)] * 2
    (x0, y), (x1, _) = ridge
    eave = -0.35
    slope: list[Point] = [
        (eave, height - 0.1, 0),
        (eave, height - 0.1, length),
        (x0, y, length),
        (x0, y, 0),
    ]
    mesh.add(slope, Paint.THIRD, out=(-1, 1, 0), grain=Grain.TILES)
    gable: list[Point] = [(0, height, 0), (DEPTH, height, 0), (x1, y, 0)]
    if kind == "mansard":
        gable.append((x0, y, 0))
    mesh.add(gable, Paint.FIRST if kind == "pitched" else Paint.THIRD, out=(0, 0, -1))
    if kind == "mansard":
        for s in np.arange(1.5, length - 1.5, 3.2).tolist():
            dormer = flank(0.1, s, s + 1.1, height + 0.5, height + 1.9)
            mesh.add(dormer, Paint.SECOND, out=(-1, 0, 0), least=SMALL)
            pane = flank(0.08, s + 0.15, s + 0.95, height + 0.6, height + 1.8)
            mesh.add(pane, Paint.GLASS, out=(-1, 0, 0), least=SMALL)


@cache
def building(architecture: Architecture, floors: int, bays: int, variant: int) -> Mesh:
    """A building; the variant decides about shop, balconies and which windows are lit."""
    seed = np.random.SeedSequence([floors, bays, variant])
    rng = np.random.Generator(np.random.PCG64(seed))
    mesh = MeshBuilder(Surface.BUILDING)
    length, height = facade_size(architecture, floors, bays)
    has_shop = rng.random() < architecture.shops and bays > 1
    has_balconies = rng.random() < architecture.balconies
    grain = architecture.grain
    mesh.box((0, 0, 0), (DEPTH, height, length), Paint.FIRST, sides="lb", grain=grain)
    mesh.box((-0.06, 0, -0.03), (DEPTH, 0.6, length), Paint.SECOND, sides="lb", tone=0.75)
    _roof(mesh, architecture.roof, length, height)
    for level in (1, floors) if floors > 1 else (floors,):
        y = level * architecture.storey + (0.35 if level == floors else 0.0)
        band = flank(-0.05, 0, length, y, y + 0.2)
        mesh.add(band, Paint.SECOND, out=(-1, 0, 0), grain=Grain.PLAIN, least=SMALL)
    _windows(mesh, architecture, bays, (1 if has_shop else 0, floors), rng)
    _gable_windows(mesh, architecture, floors, rng)
    if has_shop:
        _shop(mesh, length, architecture.storey)
    else:
        middle = (int(rng.random() * bays) + 0.5) * architecture.bay
        door = flank(-0.03, middle - 0.6, middle + 0.6, 0.0, 2.3)
        mesh.add(door, Paint.FOURTH, out=(-1, 0, 0), grain=Grain.PLANKS)
    if has_balconies:
        _balconies(mesh, architecture, floors, bays)
    return mesh.build()


def _windows(
    mesh: MeshBuilder,
    architecture: Architecture,
    bays: int,
    floors: tuple[int, int],
    rng: np.random.Generator,
) -> None:
    """The windows of the facade, with surrounds and bars where the architecture has them."""
    if architecture.frame:
        frames = _panes(architecture, bays, *floors, 0.01, architecture.frame)
        mesh.grid(frames, [Paint.SECOND] * len(frames), out=(-1, 0, 0))
    panes = _panes(architecture, bays, *floors, 0.02)
    glass = np.where(
        rng.random(len(panes)) < 0.22,
        Paint.LIT_GLASS,
        np.where(rng.random(len(panes)) < 0.45, Paint.GLASS, Paint.DARK_GLASS),
    )
    mesh.grid(panes, glass.tolist(), out=(-1, 0, 0))
    if architecture.frame:  # the bar between the two halves of a window
        bars = panes.copy()
        bars[:, :, 0] -= 0.01
        bars[:, :, 2] = panes[:, :, 2].mean(1)[:, None] + np.array([-0.035, 0.035, 0.035, -0.035])
        mesh.grid(bars, [Paint.SECOND] * len(bars), out=(-1, 0, 0))


def _gable_windows(
    mesh: MeshBuilder, architecture: Architecture, floors: int, rng: np.random.Generator
) -> None:
    """Two columns of windows on the end that faces the camera."""
    width, height = architecture.window
    for column in (0.3, 0.7):
        if rng.random() < 0.4:
            continue
        for floor in range(floors):
            x, y = DEPTH * column, (floor + 0.5) * architecture.storey - height / 2 + 0.1
            quad = rectangle(x - width / 2, x + width / 2, y, y + height, -0.02)
            paint = Paint.LIT_GLASS if rng.random() < 0.2 else Paint.DARK_GLASS
            mesh.add(quad, paint, out=(0, 0, -1), grain=Grain.PLAIN, least=SMALL)


def _balconies(mesh: MeshBuilder, architecture: Architecture, floors: int, bays: int) -> None:
    """A balcony in front of every second window."""
    for floor in range(1, floors):
        y = floor * architecture.storey
        for bay in range(0, bays, 2):
            s = (bay + 0.5) * architecture.bay
            half = architecture.bay * 0.42
            mesh.box((-1.1, y, s - half), (-0.01, y + 1.0, s + half), Paint.SECOND, sides="lb",
                     least=SMALL, grain=Grain.PLAIN)  # fmt: skip
            mesh.box((-1.15, y - 0.12, s - half), (-0.01, y, s + half), Paint.FIRST, sides="lbu",
                     tone=0.75, least=SMALL, grain=Grain.PLAIN)  # fmt: skip
