"""Models of unknown obstacles: things that belong to no class and that no other scene shows.

Each has four own paints; see ``KINDS`` for the colours that suit it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from datasets.streets.animals import boar, deer, sheep
from datasets.streets.dice import RGB
from datasets.streets.mesh import SMALL, Mesh, MeshBuilder, flank, rectangle
from datasets.streets.paints import Paint, Surface
from datasets.streets.solids import Body, add_ellipsoid, add_patterned_box, add_tube
from datasets.streets.textures import Grain

TURNS = 12  # directions that an obstacle can look in
VARIANTS = 4
_SEED = 611


def _dice(kind: int, variant: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([_SEED, kind, variant])))


def _crate(mesh: MeshBuilder, size: float) -> None:
    """A wooden crate with slats along its edges."""
    half, slat = size / 2, 0.13 * size
    mesh.box((-half, 0, -half), (half, size, half), Paint.FIRST, grain=Grain.PLANKS)
    for side in (-1.0, 1.0):
        at = side * (half + 0.005)
        for y in (0.0, size - slat):
            panel = rectangle(-half, half, y, y + slat, at)
            mesh.add(panel, Paint.SECOND, out=(0, 0, side), least=SMALL)
            mesh.add(flank(at, -half, half, y, y + slat), Paint.SECOND, out=(side, 0, 0),
                     least=SMALL)  # fmt: skip
        for x in (-half, half - slat):
            panel = rectangle(x, x + slat, 0.0, size, at)
            mesh.add(panel, Paint.SECOND, out=(0, 0, side), tone=0.9, least=SMALL)
            mesh.add(flank(at, x, x + slat, 0.0, size), Paint.SECOND, out=(side, 0, 0), tone=0.9,
                     least=SMALL)  # fmt: skip


def _crates(body: Body, variant: int) -> None:
    """One to three crates, the last on top."""
    _crate(body.part(), 0.8)
    if variant in (1, 3):
        _crate(body.part(at=(0.95, 0, 0.1), turn=0.3), 0.65)
    if variant in (2, 3):
        _crate(body.part(1, (0.05, 0.8, 0.0), 0.5), 0.6)


def _boxes(body: Body, variant: int) -> None:
    """A pile of cardboard boxes closed with tape."""
    rng = _dice(1, variant)
    height = 0.0
    for layer in range(2 + variant % 3):
        width, depth, tall = 0.3 + 0.35 * rng.random(3)
        mesh = body.part(layer, (0.1 * rng.random(), height, 0.0), 1.2 * (rng.random() - 0.5))
        paint = (Paint.FIRST, Paint.SECOND, Paint.THIRD)[layer % 3]
        mesh.box((-width, 0, -depth), (width, tall, depth), paint, grain=Grain.PLASTER)
        for z in (-depth - 0.004, depth + 0.004):
            tape = rectangle(-0.06, 0.06, 0.0, tall, z)
            mesh.add(tape, Paint.FOURTH, out=(0, 0, z), least=SMALL)
        lid = [(-0.06, tall + 0.004, -depth), (0.06, tall + 0.004, -depth),
               (0.06, tall + 0.004, depth), (-0.06, tall + 0.004, depth)]  # fmt: skip
        mesh.add(lid, Paint.FOURTH, out=(0, 1, 0), least=SMALL)
        height += tall


def _lying_tyre(mesh: MeshBuilder) -> None:
    """A tyre on its side, 0.24 m tall."""
    profile = ((0.0, 0.31), (0.05, 0.36), (0.19, 0.36), (0.24, 0.3))
    for (y0, r0), (y1, r1) in pairwise(profile):
        add_tube(mesh, ((0, y0, 0), (0, y1, 0)), (r0, r1), (Paint.FIRST,), corners=14,
                 caps=(None, Paint.SECOND if y1 == 0.24 else None))  # fmt: skip
    add_tube(mesh, ((0, 0.24, 0), (0, 0.243, 0)), (0.19, 0.18), (Paint.BLACK,), corners=12,
             caps=(None, Paint.BLACK))  # fmt: skip


def _tyres(body: Body, variant: int) -> None:
    """Two to five tyres, lying in one or two heaps."""
    for layer in range((3, 1, 4, 2)[variant]):
        shift = 0.06 * (layer % 2)
        _lying_tyre(body.part(layer, (shift, 0.24 * layer, -shift)))
    for layer in range((0, 1, 1, 2)[variant]):
        _lying_tyre(body.part(layer, (0.78, 0.24 * layer, 0.12)))


def _cone(mesh: MeshBuilder) -> None:
    """A traffic cone, 0.8 m tall."""
    mesh.box((-0.23, 0, -0.23), (0.23, 0.05, 0.23), Paint.THIRD, grain=Grain.PLAIN)
    stops = (0.05, 0.25, 0.42, 0.57, 0.8)
    for i, (y0, y1) in enumerate(pairwise(stops)):
        radii = (0.19 * (0.9 - y0), 0.19 * (0.9 - y1))
        add_tube(mesh, ((0, y0, 0), (0, y1, 0)), radii, (Paint.SECOND if i % 2 else Paint.FIRST,),
                 corners=10, caps=(None, Paint.FIRST if i == 3 else None))  # fmt: skip


def _cones(body: Body, variant: int) -> None:
    """One to three cones."""
    for i in range((1, 2, 3, 2)[variant]):
        _cone(body.part(at=(0.6 * i, 0, 0.25 * (i % 2))))


def _barrel(body: Body, variant: int) -> None:
    """A drum with rings of another colour, upright or on its side, or two."""
    _drum(body.part(), variant % 2 == 1)
    if variant == 2:
        _drum(body.part(at=(0.75, 0, -0.1)), False)


def _drum(mesh: MeshBuilder, lies: bool) -> None:
    """A drum 0.9 m tall or long."""
    stops = (0.0, 0.2, 0.35, 0.55, 0.7, 0.9)
    for i, (a, b) in enumerate(pairwise(stops)):
        ends = ((a - 0.45, 0.31, 0.0), (b - 0.45, 0.31, 0.0)) if lies else ((0, a, 0), (0, b, 0))
        caps = (Paint.THIRD if i == 0 else None, Paint.THIRD if i == 4 else None)
        add_tube(mesh, ends, (0.31, 0.31), (Paint.SECOND if i % 2 else Paint.FIRST,),
                 corners=14, caps=caps)  # fmt: skip


def _boulder(body: Body, variant: int) -> None:
    """One or two rocks."""
    rng = _dice(5, variant)
    spots = [(0.0, 0.75)] if variant % 2 else [(0.0, 0.6), (0.95, 0.38)]
    for x, size in spots:
        bumps = 0.84 + 0.3 * rng.random((7, 11))
        radii = (size * (0.8 + 0.4 * rng.random()), size * 0.75, size)
        paints = [(Paint.FIRST, Paint.FIRST, Paint.SECOND)] * 6
        add_ellipsoid(body.part(), (x, size * 0.5, 0.0), radii, paints, corners=11, bumps=bumps,
                      grain=Grain.ASPHALT)  # fmt: skip


def _ball(body: Body, variant: int) -> None:
    """A striped ball, or one with rings."""
    sectors = (Paint.FIRST, Paint.FIRST, Paint.SECOND, Paint.SECOND, Paint.THIRD, Paint.THIRD)
    rings = [(paint,) for paint in (0, 0, 0, 1, 1, 0, 0, 0)]
    paints = rings if variant == 3 else [sectors] * 8
    add_ellipsoid(body.part(), (0, 0.45, 0), (0.45, 0.45, 0.45), paints, corners=12)


def _sofa(body: Body, variant: int) -> None:
    """A sofa with cushions, or an armchair."""
    half = (0.95, 0.45, 0.75, 1.1)[variant]
    body.part().box((-half, 0.08, -0.45), (half, 0.3, 0.45), Paint.FIRST, grain=Grain.BLOTCHES)
    body.part(1).box((-half, 0.1, 0.25), (half, 0.9, 0.48), Paint.FIRST, grain=Grain.BLOTCHES)
    seats = max(1, round(half / 0.45))
    for i in range(seats):
        x0, x1 = (-half + 2 * half * (i + share) / seats for share in (0.02, 0.98))
        paint = Paint.SECOND if i % 2 == 0 else Paint.THIRD
        body.part(1).box((x0, 0.3, -0.46), (x1, 0.47, 0.24), paint, grain=Grain.PLAIN)
    for x in (-half, half):
        arm = body.part(1)
        arm.box((x - 0.1, 0.05, -0.48), (x + 0.1, 0.64, 0.46), Paint.FIRST, grain=Grain.BLOTCHES,
                tone=0.92)  # fmt: skip


def _block(body: Body, variant: int) -> None:
    """A box with a checker-board or stripes, perhaps with a second one on it."""
    is_striped = variant % 2 == 1
    fields = (4, 4, 4) if variant < 2 else (6, 3, 4)
    high = (0.45, 0.9, 0.45) if variant < 2 else (0.8, 0.6, 0.5)
    low = (-high[0], 0.0, -high[2])
    add_patterned_box(body.part(), low, high, fields, is_striped=is_striped)
    if variant == 2:
        top = body.part(1, (0.1, 0.6, 0), 0.6)
        add_patterned_box(top, (-0.35, 0, -0.35), (0.35, 0.7, 0.35), (3, 3, 3))


def _barrier(body: Body, variant: int) -> None:
    """A striped board on two trestles, or two boards one above the other."""
    half = 0.9 if variant % 2 else 1.2
    for x in (-0.8 * half, 0.8 * half):
        for z in (-0.25, 0.25):
            leg = body.part()
            add_tube(leg, ((x, 0, z), (x, 0.95, 0.0)), (0.05, 0.05), (Paint.THIRD,), corners=4)
    for y in (0.7,) if variant < 2 else (0.3, 0.72):
        board = body.part(1)
        low, high = (-half, y, -0.05), (half, y + 0.28, 0.05)
        add_patterned_box(board, low, high, (8, 1, 1), is_striped=True)


def _logs(body: Body, variant: int) -> None:
    """One trunk or a pile of three across the way."""
    places = [(0.0, 0.24, 0)] if variant % 2 else [(0.25, 0.22, 0), (-0.25, 0.22, 0), (0, 0.6, 1)]
    for z, y, layer in places:
        add_tube(body.part(layer), ((-1.2, y, z), (1.15, y, z)), (0.25, 0.22),
                 (Paint.FIRST, Paint.SECOND), corners=10, caps=(Paint.THIRD, Paint.THIRD),
                 grain=Grain.LEAVES)  # fmt: skip


def _household(body: Body, variant: int) -> None:
    """A fridge, a mattress on its edge, a bathtub or a washing machine."""
    if variant == 1:
        add_patterned_box(body.part(), (-0.95, 0, -0.1), (0.95, 0.95, 0.1), (11, 1, 1),
                          is_striped=True)  # fmt: skip
        return
    if variant == 2:
        mesh = body.part()
        mesh.box((-0.8, 0, -0.35), (0.8, 0.55, 0.35), Paint.FIRST, grain=Grain.PLAIN)
        inside = [(-0.7, 0.553, -0.26), (0.7, 0.553, -0.26), (0.7, 0.553, 0.26),
                  (-0.7, 0.553, 0.26)]  # fmt: skip
        mesh.add(inside, Paint.FOURTH, out=(0, 1, 0))
        return
    width, height = (0.35, 1.65) if variant == 0 else (0.32, 0.85)
    mesh = body.part()
    mesh.box((-width, 0, -0.32), (width, height, 0.32), Paint.FIRST, grain=Grain.PLAIN)
    for z in (-0.325, 0.325):
        if variant == 0:
            door = rectangle(-width, width, 1.1, 1.13, z)
            mesh.add(door, Paint.BLACK, out=(0, 0, z), least=SMALL / 2)
            grip = rectangle(0.2, 0.26, 0.5, 1.0, z)
            mesh.add(grip, Paint.DARK_METAL, out=(0, 0, z), least=SMALL)
        else:
            angle = np.arange(12) * (np.pi / 6)
            window = np.stack([0.2 * np.cos(angle), 0.45 + 0.2 * np.sin(angle), np.full(12, z)], 1)
            mesh.add(window, Paint.DARK_GLASS, out=(0, 0, z))
            mesh.add(rectangle(-width, width, 0.72, 0.82, z), Paint.FOURTH, out=(0, 0, z))


class Kind(NamedTuple):
    """A kind of obstacle.

    Attributes:
        shape: adds its parts to a body; a variant (0..3) changes what it is made of.
        palettes: sets of own paints, one of which is drawn.
    """

    shape: Callable[[Body, int], None]
    palettes: tuple[tuple[RGB, ...], ...]


_WHITE: RGB = (232, 232, 228)
_BLACK: RGB = (28, 28, 30)
_ORANGE: RGB = (236, 92, 24)
_YELLOW: RGB = (240, 200, 30)
_CYAN: RGB = (20, 150, 190)
_MAGENTA: RGB = (196, 40, 130)
_LIME: RGB = (130, 200, 40)

KINDS: dict[str, Kind] = {
    "crates": Kind(_crates, (((176, 128, 74), (140, 98, 52)), ((196, 158, 104), (120, 84, 48)),
                                  ((70, 110, 150), (226, 222, 210)))),
    "boxes": Kind(_boxes, (((186, 144, 96), (164, 122, 78), (204, 166, 118), (226, 206, 160)),
                                (_WHITE, (186, 144, 96), _CYAN, (210, 60, 50)))),
    "tyres": Kind(_tyres, (((38, 38, 42), (54, 54, 58)), ((190, 44, 40), (214, 210, 206)))),
    "cones": Kind(_cones, ((_ORANGE, _WHITE, _BLACK), (_LIME, _BLACK, (60, 60, 60)))),
    "barrel": Kind(_barrel, ((_ORANGE, _WHITE, (90, 40, 20)),
                                   ((30, 70, 160), (230, 200, 40), (20, 46, 110)),
                                   ((150, 72, 48), (110, 52, 36), (70, 40, 32)))),
    "boulder": Kind(_boulder, (((132, 126, 118), (112, 108, 102)),
                                    ((156, 138, 112), (132, 116, 94)))),
    "ball": Kind(_ball, (((220, 40, 40), _WHITE, (40, 90, 200)),
                               (_YELLOW, _MAGENTA, _WHITE), (_LIME, _BLACK, _WHITE))),
    "sofa": Kind(_sofa, (((150, 40, 52), (176, 60, 70), (196, 90, 92)),
                               ((60, 110, 104), (226, 196, 120), (206, 150, 70)),
                               ((150, 126, 98), (188, 166, 136), (120, 90, 130)))),
    "block": Kind(_block, ((_WHITE, _BLACK), (_YELLOW, _BLACK), (_MAGENTA, _LIME),
                                (_CYAN, _ORANGE))),
    "barrier": Kind(_barrier, ((_WHITE, (206, 36, 36), (160, 150, 130)),
                                    (_YELLOW, _BLACK, (110, 110, 112)))),
    "logs": Kind(_logs, (((104, 78, 54), (88, 64, 44), (208, 170, 116)),
                              ((196, 190, 178), (110, 104, 96), (220, 190, 140)))),
    "household": Kind(_household, ((_WHITE, (150, 190, 220), _WHITE, (120, 140, 150)),
                                        ((180, 214, 196), (230, 150, 160), _WHITE, (70, 90, 90)),
                                        ((226, 180, 90), _WHITE, _WHITE, (90, 60, 50)))),
    "deer": Kind(deer, (((158, 108, 64), (206, 178, 138), (70, 50, 36), (196, 180, 150)),
                             ((122, 88, 60), (180, 160, 130), (54, 42, 34), (170, 150, 120)))),
    "sheep": Kind(sheep, (((228, 222, 206), (208, 200, 182), (46, 42, 40)),
                               ((84, 70, 60), (66, 54, 48), (34, 30, 28)))),
    "boar": Kind(boar, (((78, 66, 58), (58, 48, 42), (132, 108, 92)),
                              ((224, 160, 146), (206, 140, 128), (236, 180, 166)))),
}  # fmt: skip


@cache
def obstacle(kind: str, variant: int, turn: int) -> Mesh:
    """An obstacle that stands on the ground.

    Args:
        kind: a key of ``KINDS``.
        variant: 0..3.
        turn: angle to the left in ``TURNS`` parts of a full turn.
    """
    return _body(kind, variant).build(2 * math.pi * turn / TURNS)


@cache
def _body(kind: str, variant: int) -> Body:
    body = Body(Surface.OBSTACLE)
    KINDS[kind].shape(body, variant)
    return body
