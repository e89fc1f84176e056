"""Models of what stands along streets: poles, lights, signs, trees, fences, walls, bins."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from datasets.streets.mesh import (
    CLUMP,
    SMALL,
    Mesh,
    MeshBuilder,
    Mode,
    flank,
    rectangle,
    ring,
)
from datasets.streets.paints import Paint, Surface
from datasets.streets.textures import Grain

SIGN_SHAPES = ("limit", "mandatory", "warning", "stop", "yield", "priority", "direction",
               "parking", "no_entry", "name")  # fmt: skip
TREE_KINDS = ("round", "broad", "poplar", "conifer", "young", "bush")
TREE_VARIANTS = 4
PANEL = 2.5  # metres of fence, wall or hedge that one model covers


def _post(mesh: MeshBuilder, x: float, height: float, width: float, paint: int) -> None:
    mesh.card(rectangle(x - width / 2, x + width / 2, 0.0, height), paint)
    mesh.add(rectangle(x - width / 2, x - width / 6, 0.0, height), paint, mode=Mode.CARD,
             tone=1.25, grain=Grain.PLAIN, least=SMALL)  # fmt: skip


@cache
def pole() -> Mesh:
    """A plain pole, one metre tall, to be scaled."""
    mesh = MeshBuilder(Surface.POLE)
    _post(mesh, 0.0, 1.0, 0.11, Paint.METAL)
    return mesh.build()


@cache
def street_lamp(style: int) -> Mesh:
    """A street lamp whose arm reaches to the right: 7 m with an arm, or a 4 m lantern."""
    mesh = MeshBuilder(Surface.POLE)
    if style == 0:
        _post(mesh, 0.0, 7.0, 0.16, Paint.METAL)
        mesh.line([(0, 6.95, 0), (0.5, 7.3, 0), (1.7, 7.4, 0)], Paint.METAL, 0.09)
        mesh.card([(1.3, 7.28, 0), (2.1, 7.33, 0), (2.1, 7.44, 0), (1.35, 7.5, 0)], Paint.METAL)
        mesh.card(rectangle(1.4, 2.05, 7.2, 7.3), Paint.STREET_LAMP)
    else:
        _post(mesh, 0.0, 3.7, 0.13, Paint.DARK_METAL)
        mesh.card(rectangle(-0.12, 0.12, 0.0, 0.5), Paint.DARK_METAL)
        mesh.card([(-0.14, 3.7, 0), (0.14, 3.7, 0), (0.22, 4.2, 0), (-0.22, 4.2, 0)],
                  Paint.STREET_LAMP)  # fmt: skip
        mesh.card([(-0.28, 4.2, 0), (0.28, 4.2, 0), (0.0, 4.45, 0)], Paint.DARK_METAL)
    return mesh.build()


def _light_box(mesh: MeshBuilder, x: float, y: float, lit: int) -> None:
    """A housing with three lamps, its lower edge at ``y``, of which ``lit`` shines."""
    mesh.surface = Surface.TRAFFIC_LIGHT
    mesh.card(rectangle(x - 0.19, x + 0.19, y, y + 1.0), Paint.BLACK)
    mesh.add(
        rectangle(x - 0.19, x - 0.15, y, y + 1.0), Paint.DARK_METAL, mode=Mode.CARD, least=SMALL
    )
    lamps = (Paint.RED_LAMP, Paint.AMBER_LAMP, Paint.GREEN_LAMP)
    for i, lamp in enumerate(lamps):
        centre = (x, y + 0.83 - 0.32 * i, 0.0)
        paint = lamp if i == lit else Paint.DARK_GLASS
        mesh.card(ring(centre, 0.135 if i == lit else 0.11, 10), paint)


@cache
def traffic_light(lit: int, has_arm: bool) -> Mesh:
    """A traffic light on a pole; an arm carries a second one to the left, over the road."""
    mesh = MeshBuilder(Surface.POLE)
    _post(mesh, 0.0, 5.9 if has_arm else 3.4, 0.15, Paint.METAL)
    if has_arm:
        mesh.line([(0, 5.7, 0), (-3.6, 5.9, 0)], Paint.METAL, 0.12)
        _light_box(mesh, -3.5, 5.2, lit)
    _light_box(mesh, 0.0, 2.35, lit)
    return mesh.build()


@cache
def light_from_behind() -> Mesh:
    """A traffic light for those who come the other way: only its housing shows."""
    mesh = MeshBuilder(Surface.POLE)
    _post(mesh, 0.0, 3.3, 0.15, Paint.METAL)
    mesh.surface = Surface.TRAFFIC_LIGHT
    mesh.card(rectangle(-0.17, 0.17, 2.35, 3.3), Paint.BLACK, 1.3)
    return mesh.build()


def _triangle(y: float, size: float, up: float) -> NDArray[np.float64]:
    return np.array([(-size, y - up * size * 0.58, 0), (size, y - up * size * 0.58, 0),
                     (0, y + up * size * 1.15, 0)])  # fmt: skip


def _sign_face(mesh: MeshBuilder, shape: str, y: float) -> None:
    """The board of a sign around height ``y``."""
    disc = [ring((0, y, 0), r, 14) for r in (0.36, 0.27, 0.31)]
    if shape == "limit":
        mesh.card(disc[0], Paint.RED)
        mesh.card(disc[1], Paint.WHITE)
        for x in (-0.09, 0.09):
            mesh.card(rectangle(x - 0.05, x + 0.05, y - 0.12, y + 0.12), Paint.BLACK)
    elif shape == "mandatory":
        mesh.card(disc[0], Paint.WHITE)
        mesh.card(disc[2], Paint.BLUE)
        mesh.card(rectangle(-0.04, 0.04, y - 0.18, y + 0.05), Paint.WHITE)
        mesh.card([(-0.13, y + 0.03, 0), (0.13, y + 0.03, 0), (0, y + 0.2, 0)], Paint.WHITE)
    elif shape in ("warning", "yield"):
        up = 1.0 if shape == "warning" else -1.0
        mesh.card(_triangle(y, 0.42, up), Paint.RED)
        mesh.card(_triangle(y, 0.25, up), Paint.WHITE)
        if shape == "warning":
            mesh.card(rectangle(-0.03, 0.03, y - 0.1, y + 0.12), Paint.BLACK)
    elif shape == "stop":
        mesh.card(ring((0, y, 0), 0.4, 8), Paint.WHITE)
        mesh.card(ring((0, y, 0), 0.36, 8), Paint.RED)
        mesh.card(rectangle(-0.24, 0.24, y - 0.07, y + 0.07), Paint.WHITE)
    elif shape == "priority":
        for r, paint in ((0.42, Paint.WHITE), (0.27, Paint.YELLOW)):
            mesh.card([(0, y - r, 0), (r, y, 0), (0, y + r, 0), (-r, y, 0)], paint)
    elif shape == "no_entry":
        mesh.card(disc[0], Paint.RED)
        mesh.card(rectangle(-0.24, 0.24, y - 0.06, y + 0.06), Paint.WHITE)
    else:
        _board(mesh, shape, y)


def _board(mesh: MeshBuilder, shape: str, y: float) -> None:
    """Rectangular signs."""
    if shape == "parking":
        mesh.card(rectangle(-0.32, 0.32, y - 0.32, y + 0.32), Paint.WHITE)
        mesh.card(rectangle(-0.28, 0.28, y - 0.28, y + 0.28), Paint.BLUE)
        mesh.card(rectangle(-0.1, -0.03, y - 0.18, y + 0.18), Paint.WHITE)
        mesh.card(rectangle(-0.03, 0.11, y, y + 0.18), Paint.WHITE)
    elif shape == "direction":
        mesh.card(rectangle(-0.9, 0.9, y - 0.38, y + 0.5), Paint.WHITE)
        mesh.card(rectangle(-0.86, 0.86, y - 0.34, y + 0.46), Paint.BLUE)
        for row, width in ((0.24, 0.55), (0.02, 0.35), (-0.2, 0.5)):
            bar = rectangle(-0.7, -0.7 + 2 * width, y + row - 0.05, y + row + 0.05)
            mesh.card(bar, Paint.WHITE)
    else:  # a street's name
        mesh.card(rectangle(-0.5, 0.5, y - 0.1, y + 0.1), Paint.BLUE)
        mesh.card(rectangle(-0.4, 0.4, y - 0.03, y + 0.03), Paint.WHITE)


@cache
def traffic_sign(shape: str, second: str | None) -> Mesh:
    """A sign on its pole, with perhaps a second one below."""
    mesh = MeshBuilder(Surface.POLE)
    _post(mesh, 0.0, 2.75, 0.09, Paint.METAL)
    if shape == "direction":
        _post(mesh, 0.7, 2.75, 0.09, Paint.METAL)
    mesh.surface = Surface.TRAFFIC_SIGN
    _sign_face(mesh, shape, 2.45)
    if second is not None:
        _sign_face(mesh, second, 1.68)
    return mesh.build()


def _blob(rng: np.random.Generator, x: float, y: float, radius: float) -> NDArray[np.float64]:
    """A round clump of leaves with a ragged rim."""
    corners = 44
    shape = ring((0, 0, 0), 1.0, corners)
    ragged = 0.9 + 0.16 * rng.random(corners)
    ragged[::2] -= 0.05 + 0.11 * rng.random(corners // 2)
    shape *= radius * ragged[:, None]
    return shape + np.array([x, y, 0.0])


def _crown(
    mesh: MeshBuilder, rng: np.random.Generator, width: float, low: float, high: float, clumps: int
) -> None:
    """Clumps of leaves in an ellipse, brighter towards the upper left."""
    middle, tall = (low + high) / 2, (high - low) / 2
    size = min(width, tall) * 0.5
    core = _blob(rng, 0, 0, 0.84) * [width, tall, 1] + [0, middle, 0]
    mesh.add(core, Paint.FIRST, mode=Mode.ROUGH, tone=0.7)
    places = []
    for i in range(clumps):
        angle = 2.4 * i + rng.random()
        reach = ((i + 0.5) / clumps) ** 0.5 * 0.74
        places.append((reach * np.cos(angle) * width, middle + reach * np.sin(angle) * tall))
    for x, y in sorted(places, key=lambda place: (place[1] - middle) / tall - place[0] / width):
        light = 0.5 + 0.28 * (y - middle) / tall - 0.22 * x / width + 0.1 * (rng.random() - 0.5)
        tone = 0.68 + 0.62 * light
        radius = size * (0.75 + 0.4 * rng.random())
        mesh.add(_blob(rng, x, y, radius), Paint.FIRST, mode=Mode.ROUGH, tone=tone, least=CLUMP)


@cache
def tree(kind: str, variant: int) -> Mesh:
    """A tree or bush whose light falls from the upper left; own paint: leaves."""
    seed = np.random.SeedSequence([TREE_KINDS.index(kind), variant])
    rng = np.random.Generator(np.random.PCG64(seed))
    mesh = MeshBuilder(Surface.VEGETATION)
    if kind == "bush":
        _crown(mesh, rng, 1.0, 0.0, 1.3, 7)
        return mesh.build()
    trunk = {"round": 2.6, "broad": 2.9, "poplar": 1.4, "conifer": 1.0, "young": 2.0}[kind]
    width = 0.16 if kind == "young" else 0.36
    stem = [(-width / 2, 0, 0), (width / 2, 0, 0), (width / 3, trunk + 1.2, 0),
            (-width / 3, trunk + 1.2, 0)]  # fmt: skip
    mesh.card(stem, Paint.TRUNK)
    mesh.card(np.array(stem) * [0.4, 1, 1] + [width * 0.22, 0, 0], Paint.TRUNK, 0.7)
    if kind == "conifer":
        for i in range(6):
            y, half = 1.0 + 1.25 * i, 2.0 - 0.3 * i
            skirt = np.array([(-half, y, 0), (-half * 0.4, y - 0.3, 0), (half * 0.3, y - 0.25, 0),
                              (half, y, 0), (0.1, y + 2.3, 0)])  # fmt: skip
            skirt[:, 0] += 0.2 * (rng.random(5) - 0.5)
            mesh.add(skirt, Paint.FIRST, mode=Mode.CARD, tone=0.66 + 0.06 * i)
            mesh.add(skirt * [0.5, 1, 1] - [half * 0.42, 0, 0], Paint.FIRST, mode=Mode.CARD,
                     tone=0.8 + 0.06 * i)  # fmt: skip
        return mesh.build()
    shape = {"round": (2.3, 2.2, 7.2, 16), "broad": (3.4, 2.5, 8.2, 22),
             "poplar": (1.15, 1.0, 10.5, 16), "young": (1.15, 1.9, 4.4, 9)}[kind]  # fmt: skip
    _crown(mesh, rng, *shape)
    return mesh.build()


@cache
def hedge(variant: int) -> Mesh:
    """A clipped hedge along the street, 1.2 m tall; own paint: leaves."""
    mesh = MeshBuilder(Surface.VEGETATION)
    height = 1.15 + 0.08 * variant
    mesh.box((0, 0, 0), (0.9, height, PANEL), Paint.FIRST, sides="lrbt")
    return mesh.build()


@cache
def fence(style: str) -> Mesh:
    """A panel of fence along the street: ``bars``, ``mesh``, ``planks`` or ``rail``."""
    mesh = MeshBuilder(Surface.FENCE)

    grain = Grain.PLANKS if style == "planks" else Grain.PLAIN

    def strip(s0: float, s1: float, y0: float, y1: float) -> None:
        least = SMALL * (s1 - s0 < 0.05)
        mesh.add(flank(0.0, s0, s1, y0, y1), Paint.FIRST, mode=Mode.CARD, grain=grain, least=least)

    if style == "planks":
        strip(0, PANEL, 0.05, 1.7)
        strip(0, 0.1, 0, 1.8)
        return mesh.build()
    height = 0.85 if style == "rail" else 1.35
    between = flank(0.0, 0.0, PANEL, 0.08, height)
    opacity = 0.5 if style == "mesh" else 0.3
    mesh.add(between, Paint.FIRST, mode=Mode.VEIL, extent=opacity, grain=Grain.PLAIN)
    for y in (height, 0.45 if style == "rail" else 0.1):
        strip(0, PANEL, y - (0.14 if style == "rail" else 0.05), y)
    if style == "bars":
        for s in np.arange(0.25, PANEL, 0.25):
            strip(float(s), float(s) + 0.035, 0.1, height)
    strip(0, 0.08, 0, height + 0.08)
    return mesh.build()


@cache
def wall(grain: Grain) -> Mesh:
    """A panel of wall along the street, one metre tall, to be scaled; own paints: wall, coping."""
    mesh = MeshBuilder(Surface.WALL)
    mesh.box((0, 0, 0), (0.35, 0.93, PANEL), Paint.FIRST, sides="lrbt", grain=grain)
    mesh.box((-0.06, 0.93, 0), (0.41, 1.0, PANEL), Paint.SECOND, sides="lrbt", grain=Grain.PLASTER)
    return mesh.build()


@cache
def clutter(kind: int) -> Mesh:
    """Things of no class: a bin (0), a cabinet (1), a bench (2), a bollard (3)."""
    mesh = MeshBuilder(Surface.STATIC if kind else Surface.DYNAMIC)  # bins can be moved
    if kind == 0:
        mesh.box((-0.28, 0.05, -0.3), (0.28, 1.0, 0.3), Paint.FIRST)
        mesh.box((-0.31, 1.0, -0.33), (0.31, 1.1, 0.33), Paint.FIRST, tone=0.7)
    elif kind == 1:
        mesh.box((-0.3, 0, -0.6), (0.3, 1.25, 0.6), Paint.METAL)
    elif kind == 2:
        mesh.box((-0.25, 0.42, -0.8), (0.25, 0.48, 0.8), Paint.TRUNK)
        mesh.box((0.2, 0.48, -0.8), (0.26, 0.9, 0.8), Paint.TRUNK)
        for s in (-0.7, 0.6):
            mesh.box((-0.2, 0, s), (0.2, 0.42, s + 0.1), Paint.DARK_METAL)
    else:
        mesh.card(rectangle(-0.09, 0.09, 0, 0.9), Paint.DARK_METAL)
        mesh.card(rectangle(-0.09, 0.09, 0.68, 0.8), Paint.WHITE)
    return mesh.build()
