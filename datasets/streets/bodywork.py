"""What cars and larger vehicles share: tyres, wheels, lamps and plates."""

from __future__ import annotations

from datasets.streets.mesh import SMALL, MeshBuilder, Point, flank, rectangle, ring
from datasets.streets.paints import Paint


def add_tyres(mesh: MeshBuilder, half: float, radius: float, axles: tuple[float, ...]) -> None:
    """What of the tyres is seen from behind and from ahead; to be drawn before the body."""
    for s in axles:
        for side in (-1.0, 1.0):
            inner, outer = sorted((side * (half - 0.22), side * (half - 0.02)))
            for direction in (-1.0, 1.0):
                tyre = rectangle(inner, outer, 0.0, radius, s + direction * radius * 0.8)
                mesh.add(tyre, Paint.TYRE, out=(0, 0, direction), least=SMALL)


def add_wheels(mesh: MeshBuilder, half: float, radius: float, axles: tuple[float, ...]) -> None:
    """Wheels on both sides."""
    for s in axles:
        for side in (-1.0, 1.0):
            out: Point = (side, 0, 0)
            x = side * (half + 0.01)
            arch = ring((x, radius + 0.03, s), radius * 1.16, 12, "x")
            mesh.add(arch, Paint.BLACK, out=out, least=2 * SMALL)
            mesh.add(ring((x, radius, s), radius, 12, "x"), Paint.TYRE, out=out)
            rim = ring((x, radius, s), radius * 0.62, 10, "x")
            mesh.add(rim, Paint.RIM, out=out, least=SMALL)
            hub = ring((x, radius, s), radius * 0.2, 6, "x")
            mesh.add(hub, Paint.BLACK, out=out, least=SMALL)


def add_panel(
    mesh: MeshBuilder,
    box: tuple[float, float, float, float],
    z: float,
    paint: int,
    tone: float = 1.0,
) -> None:
    """A small rectangle (x0, x1, y0, y1) on the front (z > 0) or back of a vehicle."""
    offset = 0.01 if z > 0 else -0.01
    mesh.add(rectangle(*box, z + offset), paint, out=(0, 0, z), tone=tone, least=SMALL)


def add_pair(
    mesh: MeshBuilder, x0: float, x1: float, y0: float, y1: float, z: float, paint: int
) -> None:
    """Add two panels, one on each half of the front or back."""
    add_panel(mesh, (x0, x1, y0, y1), z, paint)
    add_panel(mesh, (-x1, -x0, y0, y1), z, paint)


def add_flanks(
    mesh: MeshBuilder,
    half: float,
    box: tuple[float, float, float, float],
    paint: int,
    tone: float = 1.0,
    least: float = 0.0,
) -> None:
    """Add a rectangle (s0, s1, y0, y1) on both sides, ``half`` metres from the middle."""
    for side in (-1.0, 1.0):
        out: Point = (side, 0, 0)
        mesh.add(flank(side * half, *box), paint, out=out, tone=tone, least=least)
