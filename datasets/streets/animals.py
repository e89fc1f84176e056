"""Animals made of simple solids. Own paints: coat, its second colour, head and hooves, horns."""

from __future__ import annotations

from itertools import product

from datasets.streets.mesh import Point
from datasets.streets.paints import Paint
from datasets.streets.solids import Body, add_ellipsoid, add_tube
from datasets.streets.textures import Grain

# rows of faces from the belly to the back
_PALE_BELLY = ((Paint.SECOND,), (Paint.SECOND,), *[(Paint.FIRST,)] * 4)
_COAT = ((Paint.FIRST,),) * 6
_DARK_BACK = (*((Paint.FIRST,),) * 4, (Paint.SECOND,), (Paint.SECOND,))
_FACE = ((Paint.THIRD,),) * 4
_COAT_HEAD = ((Paint.FIRST,),) * 4


def _legs(
    body: Body, across: float, along: tuple[float, float], height: float, width: float, paint: int
) -> None:
    """Four legs of which the lower half is of another paint."""
    for x, z in product((-across, across), along):
        step = 0.07 if x * z > 0 else -0.07
        knee: Point = (x, height * 0.5, z + step)
        add_tube(body.part(), ((x, height, z), knee), (width, width * 0.65), (paint,), corners=6)
        add_tube(body.part(), (knee, (x, 0.0, z + step * 1.4)), (width * 0.65, width * 0.5),
                 (Paint.THIRD,), corners=6)  # fmt: skip


def deer(body: Body, variant: int) -> None:
    """A deer 1.3 m tall that looks along +z; two of four variants have antlers or graze."""
    _legs(body, 0.16, (-0.48, 0.44), 0.72, 0.075, Paint.FIRST)
    add_ellipsoid(body.part(), (0, 0.88, 0), (0.25, 0.28, 0.72), _PALE_BELLY, grain=Grain.BLOTCHES)
    add_ellipsoid(body.part(), (0, 0.98, -0.7), (0.07, 0.11, 0.09), [(Paint.SECOND,)] * 4,
                  corners=6)  # fmt: skip
    grazes = variant == 2
    head: Point = (0, 0.42, 1.05) if grazes else (0, 1.42, 0.92)
    add_tube(body.part(), ((0, 0.98, 0.48), head), (0.17, 0.09), (Paint.FIRST,), corners=8)
    nose: Point = (0, head[1] - (0.14 if grazes else 0.05), head[2] + 0.13)
    add_ellipsoid(body.part(), nose, (0.09, 0.1, 0.2), _COAT_HEAD, corners=8)
    for side in (-1.0, 1.0):
        ear: Point = (side * 0.2, head[1] + 0.14, head[2] - 0.03)
        add_tube(body.part(), ((side * 0.06, head[1] + 0.06, head[2]), ear), (0.045, 0.02),
                 (Paint.SECOND,), corners=4)  # fmt: skip
        if variant % 2 == 1:
            top: Point = (side * 0.3, head[1] + 0.5, head[2] - 0.12)
            base: Point = (side * 0.05, head[1] + 0.08, head[2])
            add_tube(body.part(), (base, top), (0.035, 0.02), (Paint.FOURTH,), corners=4)
            for share in (0.45, 0.75):
                fork: Point = (base[0] + share * (top[0] - base[0]),
                               base[1] + share * (top[1] - base[1]), base[2])  # fmt: skip
                tip: Point = (fork[0] + side * 0.04, fork[1] + 0.16, fork[2] + 0.14)
                add_tube(body.part(), (fork, tip), (0.025, 0.015), (Paint.FOURTH,), corners=4)


def sheep(body: Body, variant: int) -> None:
    """A woolly sheep 0.95 m tall that looks along +z, or a ram with horns."""
    _legs(body, 0.17, (-0.34, 0.32), 0.5, 0.07, Paint.THIRD)
    wool = [(Paint.FIRST, Paint.SECOND)] * 6
    add_ellipsoid(body.part(), (0, 0.64, 0), (0.33, 0.33, 0.58), wool, corners=12,
                  grain=Grain.LEAVES)  # fmt: skip
    low = variant == 2
    y = 0.45 if low else 0.86
    add_ellipsoid(body.part(), (0, (y + 0.64) / 2, 0.55), (0.17, 0.2, 0.2), _COAT,
                  corners=8, grain=Grain.LEAVES)  # fmt: skip
    add_ellipsoid(body.part(), (0, y, 0.74), (0.11, 0.14, 0.2), _FACE, corners=8)
    for side in (-1.0, 1.0):
        tip: Point = (side * 0.24, y + 0.02, 0.64)
        add_tube(body.part(), ((side * 0.08, y + 0.08, 0.66), tip), (0.05, 0.03), (Paint.THIRD,),
                 corners=4)  # fmt: skip
        if variant == 3:
            horn: Point = (side * 0.22, y + 0.04, 0.5)
            add_tube(body.part(), ((side * 0.07, y + 0.14, 0.66), horn), (0.06, 0.03),
                     (Paint.SECOND,), corners=5)  # fmt: skip


def boar(body: Body, variant: int) -> None:
    """A boar 0.9 m tall that looks along +z; in one variant with two young ones."""
    _boar(body, 0.0, 0.0, 1.0)
    if variant == 1:
        for i, x in enumerate((0.62, 0.95)):
            _boar(body, x, 0.35 - 0.5 * i, 0.5)


def _boar(body: Body, x: float, z: float, size: float) -> None:
    """One boar, its middle at (x, z), 0.9 m times ``size`` tall."""
    for side, along in product((-1.0, 1.0), (-0.38, 0.36)):
        foot: Point = (x + side * 0.15 * size, 0.0, z + along * size + 0.05 * side * size)
        hip: Point = (foot[0], 0.45 * size, z + along * size)
        add_tube(body.part(), (hip, foot), (0.085 * size, 0.045 * size), (Paint.SECOND,), corners=6)
    trunk: Point = (x, 0.58 * size, z)
    radii: Point = (0.26 * size, 0.32 * size, 0.62 * size)
    add_ellipsoid(body.part(), trunk, radii, _DARK_BACK, grain=Grain.BLOTCHES)
    head: Point = (x, 0.55 * size, z + 0.62 * size)
    add_ellipsoid(body.part(), head, (0.17 * size, 0.2 * size, 0.3 * size), _COAT, corners=8)
    snout: Point = (x, 0.46 * size, z + 0.98 * size)
    ends = ((x, 0.5 * size, z + 0.78 * size), snout)
    add_tube(body.part(), ends, (0.12 * size, 0.08 * size), (Paint.THIRD,), corners=6,
             caps=(None, Paint.THIRD))  # fmt: skip
    for side in (-1.0, 1.0):
        ends = ((x + side * 0.1 * size, 0.68 * size, z + 0.52 * size),
                (x + side * 0.16 * size, 0.86 * size, z + 0.5 * size))  # fmt: skip
        add_tube(body.part(), ends, (0.06 * size, 0.02 * size), (Paint.SECOND,), corners=4)
