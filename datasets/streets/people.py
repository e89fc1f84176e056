"""Models of pedestrians, riders, bicycles and motorcycles: cards that face the camera.

Own paints of people: coat, trousers, skin, hair. Of two-wheelers: frame, second colour.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from datasets.streets.mesh import SMALL, Mesh, MeshBuilder, Mode, Point, ring
from datasets.streets.paints import Paint, Surface

PERSON_VARIANTS = 12


def _limb(
    start: tuple[float, float], end: tuple[float, float], width0: float, width1: float
) -> list[Point]:
    """A tapered strip between two points of the plane z = 0."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = (dx * dx + dy * dy) ** 0.5
    nx, ny = -dy / length / 2, dx / length / 2
    return [
        (start[0] + nx * width0, start[1] + ny * width0, 0),
        (end[0] + nx * width1, end[1] + ny * width1, 0),
        (end[0] - nx * width1, end[1] - ny * width1, 0),
        (start[0] - nx * width0, start[1] - ny * width0, 0),
    ]


def _head(mesh: MeshBuilder, x: float, y: float, look: float, helmet: bool = False) -> None:
    """A head of 0.24 m; ``look`` is where the face turns: -1, 0 or 1, or 2 for away."""
    mesh.card(ring((x, y, 0), 0.1, 10, squash=1.22), Paint.THIRD)
    if helmet:
        if look == 2:
            mesh.card(ring((x, y, 0), 0.1, 10, squash=1.1), Paint.BLACK)
        cap = ring((x, y + 0.05, 0), 0.135, 12, squash=0.85)
        mesh.card(cap[cap[:, 1] > y - 0.03], Paint.FOURTH)
    elif look == 2:
        mesh.card(ring((x, y + 0.015, 0), 0.108, 10, squash=1.15), Paint.FOURTH)
    else:
        hair = ring((x - 0.035 * look, y + 0.04, 0), 0.112, 12, squash=1.0)
        mesh.card(hair[hair[:, 1] > y + 0.01], Paint.FOURTH)
        if look:
            back = ring((x - 0.06 * look, y + 0.02, 0), 0.075, 8, squash=1.35)
            mesh.card(back, Paint.FOURTH)


def _walker(mesh: MeshBuilder, stride: float, wears_skirt: bool) -> None:
    """Somebody who walks to the right, seen from the side."""
    hip = (0.0, 0.88)
    for swing, tone in ((-stride, 0.78), (stride, 1.0)):
        knee = (swing * 0.22 + 0.03, 0.48)
        foot = (swing * 0.34 - (0.06 if swing < 0 else 0.0), 0.07 + 0.05 * (swing < 0))
        mesh.card(_limb(hip, knee, 0.17, 0.13), Paint.SECOND, tone)
        mesh.card(_limb(knee, foot, 0.13, 0.09), Paint.SECOND, tone)
        shoe = [(foot[0] - 0.07, foot[1] - 0.07, 0), (foot[0] + 0.17, foot[1] - 0.06, 0),
                (foot[0] + 0.06, foot[1] + 0.04, 0),
                (foot[0] - 0.07, foot[1] + 0.03, 0)]  # fmt: skip
        mesh.card(shoe, Paint.BLACK, least=SMALL)
    arm = (-stride * 0.28, 1.02)
    mesh.card(_limb((0.0, 1.4), arm, 0.1, 0.08), Paint.FIRST, 0.7)
    torso = [(-0.13, 0.82, 0), (0.12, 0.82, 0), (0.14, 1.2, 0), (0.09, 1.46, 0),
             (-0.1, 1.46, 0), (-0.14, 1.2, 0)]  # fmt: skip
    mesh.card(torso, Paint.FIRST)
    if wears_skirt:
        skirt = [(-0.2, 0.5, 0), (0.2, 0.5, 0), (0.12, 0.92, 0), (-0.12, 0.92, 0)]
        mesh.card(skirt, Paint.FIRST, 0.88)
    arm = (stride * 0.26 + 0.02, 1.04)
    mesh.card(_limb((0.0, 1.42), arm, 0.1, 0.08), Paint.FIRST, 0.86)
    mesh.card(ring((arm[0], arm[1] - 0.04, 0), 0.05, 6), Paint.THIRD, least=SMALL)
    mesh.card(_limb((0.01, 1.44), (0.02, 1.55), 0.09, 0.09), Paint.THIRD, 0.85, SMALL)
    _head(mesh, 0.03, 1.64, 1.0)


def _stander(mesh: MeshBuilder, is_away: bool, wears_skirt: bool, step: float) -> None:
    """Somebody who stands or walks towards the camera, or away from it."""
    for side in (-1.0, 1.0):
        x, lift = side * 0.1, 0.07 * max(0.0, side * step)
        mesh.card(_limb((side * 0.085, 0.9), (x, 0.07 + lift), 0.18, 0.11), Paint.SECOND)
        shoe = [(x - 0.07, lift, 0), (x + 0.07, lift, 0), (x + 0.05, lift + 0.1, 0),
                (x - 0.05, lift + 0.1, 0)]  # fmt: skip
        mesh.card(shoe, Paint.BLACK, least=SMALL)
        hand = (side * 0.29, 0.86 + 0.04 * side * step)
        mesh.card(_limb((side * 0.2, 1.42), hand, 0.11, 0.09), Paint.FIRST, 0.84)
        mesh.card(ring((hand[0], hand[1] - 0.03, 0), 0.05, 6), Paint.THIRD, least=SMALL)
    torso = [(-0.17, 0.82, 0), (0.17, 0.82, 0), (0.17, 1.1, 0), (0.22, 1.4, 0), (0.1, 1.48, 0),
             (-0.1, 1.48, 0), (-0.22, 1.4, 0), (-0.17, 1.1, 0)]  # fmt: skip
    mesh.card(torso, Paint.FIRST)
    if wears_skirt:
        skirt = [(-0.25, 0.5, 0), (0.25, 0.5, 0), (0.17, 0.95, 0), (-0.17, 0.95, 0)]
        mesh.card(skirt, Paint.FIRST, 0.9)
    else:
        mesh.card([(-0.01, 0.84, 0), (0.01, 0.84, 0), (0.01, 1.46, 0), (-0.01, 1.46, 0)],
                  Paint.FIRST, 0.75)  # fmt: skip
    mesh.card(_limb((0.0, 1.46), (0.0, 1.56), 0.1, 0.1), Paint.THIRD, 0.85, SMALL)
    _head(mesh, 0.0, 1.65, 2.0 if is_away else 0.0)


@cache
def person(variant: int) -> Mesh:
    """A pedestrian 1.77 m tall; even variants are seen from the side and walk to the right."""
    mesh = MeshBuilder(Surface.PERSON)
    wears_skirt = variant % 6 in (3, 4)
    if variant % 2 == 0:
        _walker(mesh, (1.0, 0.75, 0.45)[variant // 2 % 3], wears_skirt)
    else:
        _stander(mesh, variant // 2 % 2 == 0, wears_skirt, (1.0, -1.0, 0.0)[variant // 4 % 3])
    if variant in (1, 2, 7):  # a bag
        x = -0.2 if variant == 2 else 0.0
        bag = [(x - 0.13, 1.05, 0), (x + 0.11, 1.05, 0), (x + 0.11, 1.42, 0), (x - 0.1, 1.42, 0)]
        mesh.card(bag, Paint.SECOND, 0.6)
    return mesh.build()


def _wheel(mesh: MeshBuilder, x: float, radius: float, tyre: float) -> None:
    """A spoked wheel: what shines through belongs to it, as people label it."""
    mesh.add(ring((x, radius, 0), radius, 18), Paint.DARK_METAL, mode=Mode.VEIL, extent=0.22)
    circle = ring((x, radius, 0), radius - tyre / 2, 18)
    mesh.line(np.concatenate([circle, circle[:1]]), Paint.TYRE, tyre)


@cache
def bicycle(view: str) -> Mesh:
    """A bicycle that points to the right ("side"), or goes "away" or "towards" the camera."""
    mesh = MeshBuilder(Surface.BICYCLE)
    if view != "side":
        mesh.card(_limb((0.0, 0.0), (0.0, 0.68), 0.06, 0.06), Paint.TYRE)
        mesh.card(_limb((0.0, 0.62), (0.0, 1.02), 0.07, 0.05), Paint.FIRST)
        mesh.line([(-0.29, 1.0, 0), (0.29, 1.0, 0)], Paint.DARK_METAL, 0.04)
        lamp = Paint.TAILLIGHT if view == "away" else Paint.HEADLIGHT
        mesh.card(ring((0.0, 0.74, 0), 0.05, 6), lamp)
        return mesh.build()
    _wheel(mesh, -0.53, 0.34, 0.055)
    _wheel(mesh, 0.55, 0.34, 0.055)
    seat, head, crank, rear = (-0.2, 0.86), (0.36, 0.86), (-0.06, 0.3), (-0.53, 0.34)
    frame = [rear, crank, seat, rear, crank, head, seat]
    mesh.line([(x, y, 0.0) for x, y in frame], Paint.FIRST, 0.05)
    mesh.line(
        [(0.55, 0.34, 0), (0.36, 0.86, 0), (0.33, 1.0, 0), (0.46, 1.05, 0)], Paint.FIRST, 0.05
    )
    mesh.line([(-0.2, 0.86, 0), (-0.23, 0.98, 0)], Paint.DARK_METAL, 0.04)
    mesh.card([(-0.36, 0.96, 0), (-0.12, 0.97, 0), (-0.12, 1.02, 0), (-0.34, 1.03, 0)], Paint.BLACK)
    mesh.card(ring((-0.06, 0.3, 0), 0.09, 8), Paint.DARK_METAL)
    return mesh.build()


@cache
def motorcycle(view: str) -> Mesh:
    """A motorcycle that points to the right ("side"), or goes "away" or "towards" the camera."""
    mesh = MeshBuilder(Surface.MOTORCYCLE)
    if view != "side":
        mesh.card(_limb((0.0, 0.0), (0.0, 0.62), 0.17, 0.15), Paint.TYRE)
        mesh.card(_limb((0.0, 0.5), (0.0, 0.98), 0.3, 0.36), Paint.FIRST)
        mesh.line([(-0.4, 1.04, 0), (0.4, 1.04, 0)], Paint.DARK_METAL, 0.05)
        lamp = Paint.TAILLIGHT if view == "away" else Paint.HEADLIGHT
        mesh.card(ring((0.0, 0.82, 0), 0.09, 8), lamp)
        mesh.card([(-0.1, 0.52, 0), (0.1, 0.52, 0), (0.1, 0.66, 0), (-0.1, 0.66, 0)], Paint.WHITE)
        for side in (-1.0, 1.0):
            mesh.card(ring((side * 0.4, 1.2, 0), 0.07, 6), Paint.BLACK)
        return mesh.build()
    for x in (-0.7, 0.72):
        mesh.card(ring((x, 0.32, 0), 0.32, 14), Paint.TYRE)
        mesh.card(ring((x, 0.32, 0), 0.2, 12), Paint.METAL, 0.9)
        mesh.card(ring((x, 0.32, 0), 0.09, 8), Paint.DARK_METAL)
    mesh.card(
        [(-0.35, 0.25, 0), (0.3, 0.25, 0), (0.4, 0.66, 0), (-0.35, 0.66, 0)], Paint.DARK_METAL
    )
    mesh.card([(-0.5, 0.2, 0), (0.1, 0.22, 0), (0.1, 0.3, 0), (-0.75, 0.32, 0)], Paint.METAL)
    mesh.card([(-0.95, 0.72, 0), (-0.3, 0.6, 0), (0.2, 0.62, 0), (0.1, 0.8, 0), (-0.85, 0.86, 0)],
              Paint.FIRST)  # fmt: skip
    mesh.card([(-0.75, 0.82, 0), (-0.05, 0.78, 0), (-0.05, 0.88, 0), (-0.75, 0.92, 0)], Paint.BLACK)
    mesh.card([(-0.05, 0.74, 0), (0.35, 0.7, 0), (0.42, 0.9, 0), (0.25, 1.03, 0), (0.0, 0.95, 0)],
              Paint.FIRST)  # fmt: skip
    mesh.card(_limb((0.72, 0.32), (0.42, 1.0), 0.09, 0.1), Paint.METAL, 0.7)
    mesh.card([(0.35, 0.82, 0), (0.62, 0.78, 0), (0.52, 1.2, 0), (0.4, 1.12, 0)], Paint.SECOND)
    mesh.card(ring((0.6, 0.88, 0), 0.09, 8), Paint.HEADLIGHT)
    mesh.line([(0.44, 1.02, 0), (0.24, 1.12, 0)], Paint.DARK_METAL, 0.05)
    return mesh.build()


def _riding_legs(
    mesh: MeshBuilder, hip: tuple[float, float], feet: NDArray[np.float64], shin: float
) -> None:
    """Bent legs of somebody who sits at ``hip``."""
    for (x, y), tone in zip(feet, (0.75, 1.0), strict=True):
        knee = ((hip[0] + x) / 2 + shin, (hip[1] + y) / 2 + 0.08)
        mesh.card(_limb(hip, knee, 0.18, 0.14), Paint.SECOND, tone)
        mesh.card(_limb(knee, (x, y + 0.04), 0.13, 0.09), Paint.SECOND, tone)
        mesh.card([(x - 0.06, y - 0.02, 0), (x + 0.2, y - 0.02, 0), (x + 0.08, y + 0.07, 0),
                   (x - 0.06, y + 0.07, 0)], Paint.BLACK)  # fmt: skip


@cache
def rider(view: str, mount: str) -> Mesh:
    """The rider of a ``bicycle`` or ``motorcycle`` in one of its views."""
    mesh = MeshBuilder(Surface.RIDER)
    on_motorcycle = mount == "motorcycle"
    if view != "side":
        spread = 0.24 if on_motorcycle else 0.13
        for side, drop in ((-1.0, 0.0), (1.0, 0.22 * (not on_motorcycle))):
            foot = (side * spread, 0.28 + drop)
            mesh.card(_limb((side * 0.1, 0.95), foot, 0.2, 0.12), Paint.SECOND)
            mesh.card(_limb(foot, (foot[0], foot[1] - 0.1), 0.12, 0.14), Paint.BLACK)
            elbow = (side * 0.33, 1.16)
            mesh.card(_limb((side * 0.19, 1.44), elbow, 0.12, 0.1), Paint.FIRST, 0.85)
            mesh.card(_limb(elbow, (side * 0.27, 1.02), 0.1, 0.08), Paint.FIRST, 0.8)
        torso = [(-0.18, 0.9, 0), (0.18, 0.9, 0), (0.21, 1.4, 0), (0.1, 1.5, 0), (-0.1, 1.5, 0),
                 (-0.21, 1.4, 0)]  # fmt: skip
        mesh.card(torso, Paint.FIRST)
        _head(mesh, 0.0, 1.64, 2.0 if view == "away" else 0.0, helmet=True)
        return mesh.build()
    hip = (-0.3, 0.98) if on_motorcycle else (-0.22, 1.04)
    shoulder = (0.0, 1.5) if on_motorcycle else (0.1, 1.5)
    hand = (0.28, 1.1) if on_motorcycle else (0.44, 1.06)
    feet = np.array([(0.05, 0.3), (0.1, 0.34)] if on_motorcycle else [(0.06, 0.42), (-0.06, 0.16)])
    _riding_legs(mesh, hip, feet, 0.22 if on_motorcycle else 0.16)
    mesh.card(_limb(hip, shoulder, 0.24, 0.3), Paint.FIRST)
    elbow = ((shoulder[0] + hand[0]) / 2 - 0.02, (shoulder[1] + hand[1]) / 2 - 0.07)
    mesh.card(_limb((shoulder[0], shoulder[1] - 0.05), elbow, 0.12, 0.1), Paint.FIRST, 0.85)
    mesh.card(_limb(elbow, hand, 0.1, 0.08), Paint.FIRST, 0.8)
    _head(mesh, shoulder[0] + 0.06, shoulder[1] + 0.17, 1.0, helmet=True)
    return mesh.build()
