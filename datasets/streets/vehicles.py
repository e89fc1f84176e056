"""Models of trucks, buses and trams. Own paints: body, second body colour, trim."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np

from datasets.streets.bodywork import add_flanks, add_pair, add_panel, add_tyres, add_wheels
from datasets.streets.mesh import SMALL, Mesh, MeshBuilder, flank, rectangle
from datasets.streets.paints import Paint, Surface


def _window_band(
    mesh: MeshBuilder,
    half: float,
    ends: tuple[float, float],
    heights: tuple[float, float],
    panes: int,
) -> None:
    """A row of panes on both sides of a long vehicle."""
    edges = np.linspace(ends[0], ends[1], panes + 1)
    add_flanks(mesh, half + 0.01, (*ends, heights[0] - 0.06, heights[1] + 0.06), Paint.BLACK)
    for a, b in pairwise(edges.tolist()):
        pane = (a + 0.06, b - 0.06, *heights)
        add_flanks(mesh, half + 0.015, pane, Paint.LIT_GLASS, least=SMALL)


@cache
def bus() -> Mesh:
    """A city bus, 11.4 m long."""
    mesh = MeshBuilder(Surface.BUS)
    half, length, height = 1.27, 5.7, 3.05
    axles = (-3.4, 3.1)
    add_tyres(mesh, half, 0.48, axles)
    mesh.box((-half, 0.3, -length), (half, height, length), Paint.FIRST)
    add_flanks(mesh, half + 0.005, (-length, length, 0.3, 0.95), Paint.SECOND)
    _window_band(mesh, half, (-length + 0.3, length - 0.2), (1.35, 2.5), 7)
    for s in (length - 1.5, -0.6):  # doors are on the right
        door = flank(half + 0.02, s, s + 1.2, 0.4, 2.5)
        mesh.add(door, Paint.DARK_GLASS, out=(1, 0, 0))
    for z in (-length, length):
        add_panel(mesh, (-half, half, 0.3, 0.8), z, Paint.SECOND)
        add_panel(mesh, (-0.3, 0.3, 0.42, 0.56), z, Paint.WHITE)
    mesh.add(rectangle(-1.15, 1.15, 1.05, 2.5, length + 0.01), Paint.GLASS, out=(0, 0, 1))
    mesh.add(rectangle(-1.0, 1.0, 1.7, 2.6, -length - 0.01), Paint.DARK_GLASS, out=(0, 0, -1))
    for z, width in ((length, 1.0), (-length, 0.5)):
        add_panel(mesh, (-width - 0.1, width + 0.1, 2.58, 2.95), z, Paint.BLACK)
        add_panel(mesh, (-width, width, 2.63, 2.9), z * 1.002, Paint.DISPLAY)
    add_pair(mesh, 0.8, 1.2, 0.6, 0.82, length * 1.002, Paint.HEADLIGHT)
    add_pair(mesh, 1.05, 1.22, 0.85, 1.45, -length, Paint.TAILLIGHT)
    add_wheels(mesh, half, 0.48, axles)
    return mesh.build()


@cache
def truck_cab() -> Mesh:
    """The cab of a truck, 2.3 m long, its middle at the origin."""
    mesh = MeshBuilder(Surface.TRUCK)
    half, length, height = 1.2, 1.15, 2.85
    add_tyres(mesh, half, 0.48, (0.2,))
    mesh.box((-half, 0.45, -length), (half, height, length), Paint.FIRST)
    mesh.box((-half, 0.25, -length), (half, 0.75, length + 0.05), Paint.THIRD, sides="lrfb")
    mesh.add(rectangle(-1.08, 1.08, 1.6, 2.5, length + 0.06), Paint.GLASS, out=(0, 0, 1))
    add_panel(mesh, (-0.8, 0.8, 0.85, 1.4), length + 0.05, Paint.BLACK)
    add_pair(mesh, 0.75, 1.12, 0.5, 0.7, length + 0.06, Paint.HEADLIGHT)
    add_panel(mesh, (-0.3, 0.3, 0.35, 0.48), length + 0.06, Paint.WHITE)
    for side in (-1.0, 1.0):
        x = side * (half + 0.01)
        pane = [(x, 1.6, -0.35), (x, 1.6, 0.9), (x, 2.4, 0.7), (x, 2.4, -0.35)]
        mesh.add(pane, Paint.DARK_GLASS, out=(side, 0, 0))
        x0, x1 = sorted((side * half, side * (half + 0.28)))
        mesh.box((x0, 1.7, 0.85), (x1, 2.3, 0.95), Paint.BLACK, least=SMALL)
    add_wheels(mesh, half, 0.48, (0.2,))
    return mesh.build()


@cache
def truck_load(kind: int) -> Mesh:
    """What a truck carries, 6.4 m long: a box (0), a tarpaulin (1) or an open bed (2)."""
    mesh = MeshBuilder(Surface.TRUCK)
    half, length = 1.25, 3.2
    add_tyres(mesh, half, 0.48, (-2.3, -1.2))
    mesh.box(
        (-half * 0.8, 0.55, -length), (half * 0.8, 1.0, length), Paint.DARK_METAL, sides="lrfb"
    )
    height = (3.5, 3.2, 1.75)[kind]
    mesh.box((-half, 1.0, -length), (half, height, length), Paint.SECOND)
    mesh.box((-half, 1.0, -length), (half, 1.15, length), Paint.THIRD, sides="lrfb")
    if kind == 0:
        add_panel(mesh, (-0.02, 0.02, 1.15, height - 0.1), -length, Paint.DARK_METAL)
        for x in (-0.6, 0.6):
            add_panel(mesh, (x - 0.025, x + 0.025, 1.15, height - 0.1), -length, Paint.METAL)
    if kind == 1:
        for y in (1.7, 2.3, 2.9):
            add_panel(mesh, (-half, half, y, y + 0.05), -length, Paint.THIRD)
    for s in np.linspace(-length + 0.8, length - 0.8, 5 if kind else 2).tolist():
        add_flanks(mesh, half + 0.01, (s, s + 0.06, 1.15, height), Paint.THIRD, least=SMALL)
    if kind == 2:
        mesh.box((-1.0, 1.75, -2.6), (1.0, 2.3, 1.5), Paint.FOURTH)
    add_pair(mesh, 0.8, 1.2, 0.72, 0.95, -length, Paint.TAILLIGHT)
    add_panel(mesh, (-0.3, 0.3, 0.62, 0.76), -length, Paint.WHITE)
    add_panel(mesh, (-half, half, 0.5, 0.6), -length, Paint.WHITE)
    add_wheels(mesh, half, 0.48, (-2.3, -1.2))
    return mesh.build()


@cache
def tram_car(is_front: bool) -> Mesh:
    """A section of a tram, 9 m long; the front one ends in a driver's cab."""
    mesh = MeshBuilder(Surface.TRAIN)
    half, length, height = 1.22, 4.4, 3.45
    mesh.box((-half * 0.9, 0.1, -length), (half * 0.9, 0.5, length), Paint.BLACK, sides="lrfb")
    mesh.box((-half, 0.4, -length), (half, height, length), Paint.FIRST)
    mesh.box((-0.7, height, -2.2), (0.7, height + 0.3, 2.2), Paint.METAL)
    for band in ((0.4, 1.1), (3.1, 3.3)):
        add_flanks(mesh, half + 0.005, (-length, length, *band), Paint.SECOND)
    _window_band(mesh, half, (-length + 0.2, length - 0.2), (1.45, 2.75), 5)
    add_flanks(mesh, half + 0.03, (-0.7, 0.7, 0.55, 2.75), Paint.DARK_GLASS)
    for z in (-length, length):
        add_panel(mesh, (-half, half, 0.4, 1.2), z, Paint.SECOND)
        mesh.add(rectangle(-1.1, 1.1, 1.3, 2.75, z * 1.003), Paint.DARK_GLASS, out=(0, 0, z))
        if is_front or z < 0:
            add_panel(mesh, (-0.75, 0.75, 2.85, 3.2), z * 1.002, Paint.BLACK)
            add_panel(mesh, (-0.65, 0.65, 2.9, 3.15), z * 1.004, Paint.DISPLAY)
            lamp = Paint.HEADLIGHT if z > 0 else Paint.TAILLIGHT
            add_pair(mesh, 0.7, 1.0, 0.8, 1.0, z * 1.004, lamp)
    if is_front:
        arm = [(0.0, height + 0.3, -0.6), (0.0, height + 1.0, 0.4), (0.0, height + 1.6, -0.4)]
        mesh.line(arm, Paint.DARK_METAL, 0.07)
        mesh.line([(-0.8, height + 1.6, -0.4), (0.8, height + 1.6, -0.4)], Paint.DARK_METAL, 0.07)
    return mesh.build()
