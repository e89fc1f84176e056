"""Models of cars, trucks, buses and trams. Own paints: body, second body colour, trim."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.streets.mesh import SMALL, WINDOW, Mesh, MeshBuilder, Point, rectangle, ring
from datasets.streets.paints import Paint, Surface


class CarShape(NamedTuple):
    """Side view of a car: metres along it from the middle (front positive) and above ground."""

    body: tuple[tuple[float, float], ...]  # lower part, from the rear bumper over the top
    cabin: tuple[tuple[float, float], ...]  # from the rear window's foot to the windscreen's
    width: float
    wheel: float  # radius
    axles: tuple[float, float]


CAR_SHAPES = (
    CarShape(  # saloon
        ((-2.3, 0.28), (-2.32, 0.72), (-2.2, 0.95), (0.95, 0.95), (2.05, 0.78), (2.3, 0.58))
        + ((2.3, 0.26),),
        ((-1.75, 0.94), (-1.05, 1.42), (0.2, 1.45), (1.05, 0.94)),
        1.82,
        0.32,
        (-1.38, 1.42),
    ),
    CarShape(  # hatchback
        ((-1.95, 0.28), (-1.98, 0.7), (-1.92, 0.95), (0.85, 0.95), (1.75, 0.8), (1.98, 0.58))
        + ((1.98, 0.26),),
        ((-1.88, 0.94), (-1.55, 1.44), (0.05, 1.48), (0.95, 0.94)),
        1.76,
        0.31,
        (-1.22, 1.28),
    ),
    CarShape(  # estate
        ((-2.3, 0.28), (-2.32, 0.72), (-2.28, 0.96), (0.95, 0.96), (2.05, 0.79), (2.3, 0.58))
        + ((2.3, 0.26),),
        ((-2.22, 0.95), (-1.85, 1.46), (0.2, 1.5), (1.05, 0.95)),
        1.83,
        0.32,
        (-1.36, 1.42),
    ),
    CarShape(  # off-roader
        ((-2.25, 0.36), (-2.28, 0.85), (-2.24, 1.08), (0.9, 1.08), (1.95, 0.98), (2.25, 0.75))
        + ((2.25, 0.34),),
        ((-2.18, 1.07), (-1.85, 1.66), (0.15, 1.7), (0.95, 1.07)),
        1.9,
        0.37,
        (-1.33, 1.38),
    ),
    CarShape(  # van
        ((-2.5, 0.34), (-2.52, 0.8), (-2.5, 1.1), (1.5, 1.1), (2.25, 0.98), (2.5, 0.7))
        + ((2.5, 0.34),),
        ((-2.48, 1.09), (-2.4, 1.95), (0.85, 1.96), (1.6, 1.09)),
        1.95,
        0.34,
        (-1.5, 1.6),
    ),
)


def _between(a: NDArray[np.float64], b: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    return a + (b - a) * share


def _extrude(
    mesh: MeshBuilder,
    profile: tuple[tuple[float, float], ...],
    halves: NDArray[np.float64],
    paints: list[int],
) -> None:
    """Faces across the vehicle along a profile, one paint each; ``halves``: half widths."""
    s, y = np.array(profile).T
    for i, paint in enumerate(paints):
        j = i + 1
        quad = [
            (-halves[i], y[i], s[i]),
            (halves[i], y[i], s[i]),
            (halves[j], y[j], s[j]),
            (-halves[j], y[j], s[j]),
        ]
        mesh.add(quad, paint, out=(0, s[j] - s[i], y[i] - y[j]))


def _sides(
    mesh: MeshBuilder,
    profile: tuple[tuple[float, float], ...],
    halves: NDArray[np.float64],
    paint: int,
    tone: float = 1.0,
) -> None:
    s, y = np.array(profile).T
    for side in (-1.0, 1.0):
        mesh.add(np.stack([side * halves, y, s], 1), paint, out=(side, 0, 0), tone=tone)


def _tyres(mesh: MeshBuilder, half: float, radius: float, axles: tuple[float, ...]) -> None:
    """What of the tyres is seen from behind and from ahead; to be drawn before the body."""
    for s in axles:
        for side in (-1.0, 1.0):
            inner, outer = sorted((side * (half - 0.22), side * (half - 0.02)))
            for direction in (-1.0, 1.0):
                tyre = rectangle(inner, outer, 0.0, radius, s + direction * radius * 0.8)
                mesh.add(tyre, Paint.TYRE, out=(0, 0, direction))


def _wheels(mesh: MeshBuilder, half: float, radius: float, axles: tuple[float, ...]) -> None:
    """Wheels on both sides."""
    for s in axles:
        for side in (-1.0, 1.0):
            out: Point = (side, 0, 0)
            x = side * (half + 0.01)
            mesh.add(ring((x, radius + 0.03, s), radius * 1.16, 12, "x"), Paint.BLACK, out=out)
            mesh.add(ring((x, radius, s), radius, 12, "x"), Paint.TYRE, out=out)
            rim = ring((x, radius, s), radius * 0.62, 10, "x")
            mesh.add(rim, Paint.RIM, out=out, least=SMALL)
            hub = ring((x, radius, s), radius * 0.2, 6, "x")
            mesh.add(hub, Paint.BLACK, out=out, least=SMALL)


def _panel(
    mesh: MeshBuilder,
    box: tuple[float, float, float, float],
    z: float,
    paint: int,
    tone: float = 1.0,
) -> None:
    """A small rectangle (x0, x1, y0, y1) on the front (z > 0) or back of a vehicle."""
    offset = 0.01 if z > 0 else -0.01
    mesh.add(rectangle(*box, z + offset), paint, out=(0, 0, z), tone=tone, least=SMALL)


def _pair(
    mesh: MeshBuilder, x0: float, x1: float, y0: float, y1: float, z: float, paint: int
) -> None:
    _panel(mesh, (x0, x1, y0, y1), z, paint)
    _panel(mesh, (-x1, -x0, y0, y1), z, paint)


@cache
def car(shape: int) -> Mesh:
    """A car of one of ``CAR_SHAPES``."""
    spec = CAR_SHAPES[shape]
    mesh = MeshBuilder(Surface.CAR)
    half = spec.width / 2
    body, cabin = np.array(spec.body), np.array(spec.cabin)
    under, top = body[0, 1], body[2, 1]
    _tyres(mesh, half, spec.wheel, spec.axles)
    for side in (-1.0, 1.0):  # mirrors
        x0, x1 = sorted((side * half, side * (half + 0.2)))
        s = cabin[-1, 0] - 0.15
        mesh.box((x0, top, s - 0.06), (x1, top + 0.16, s + 0.06), Paint.FIRST, least=SMALL)
    mesh.box(
        (-half * 0.9, 0.16, body[0, 0] + 0.3), (half * 0.9, under + 0.1, body[-1, 0] - 0.3),
        Paint.BLACK, sides="lrfb",
    )  # fmt: skip
    halves = np.full(len(body), half)
    _extrude(mesh, spec.body, halves, [Paint.FIRST] * (len(body) - 1))
    _sides(mesh, spec.body, halves, Paint.FIRST)
    _cabin(mesh, spec, half)
    back, front = body[1, 0], body[-2, 0]
    _panel(mesh, (-half, half, under, under + 0.16), back, Paint.THIRD)
    _panel(mesh, (-half, half, under - 0.02, under + 0.14), front, Paint.THIRD)
    _panel(mesh, (-half * 0.97, half * 0.97, under + 0.16, under + 0.3), back, Paint.FIRST, 0.78)
    _panel(mesh, (-half * 0.6, half * 0.6, top - 0.2, top - 0.06), back, Paint.FIRST, 1.15)
    _pair(mesh, half * 0.64, half * 0.98, top - 0.34, top - 0.06, back, Paint.TAILLIGHT)
    _pair(mesh, half * 0.64, half * 0.74, top - 0.34, top - 0.25, back * 1.003, Paint.WHITE)
    _pair(mesh, half * 0.55, half * 0.98, front_y(body) - 0.14, front_y(body) + 0.02, front,
          Paint.HEADLIGHT)  # fmt: skip
    _panel(mesh, (-0.27, 0.27, top - 0.34, top - 0.22), back, Paint.WHITE)
    _panel(mesh, (-0.27, 0.27, under + 0.08, under + 0.2), front, Paint.WHITE)
    _panel(mesh, (-half * 0.5, half * 0.5, under + 0.22, front_y(body)), front, Paint.BLACK)
    for side in (-1.0, 1.0):
        _side_details(mesh, spec, side * (half + 0.005))
    _wheels(mesh, half, spec.wheel, spec.axles)
    return mesh.build()


def front_y(body: NDArray[np.float64]) -> float:
    """Height of the upper edge of a car's front."""
    return float(body[-2, 1])


def _cabin(mesh: MeshBuilder, spec: CarShape, half: float) -> None:
    """Roof, pillars and windows."""
    cabin = np.array(spec.cabin)
    halves = half * np.array([0.95, 0.76, 0.76, 0.95])
    _extrude(mesh, spec.cabin, halves, [Paint.FIRST] * 3)
    _sides(mesh, spec.cabin, halves, Paint.FIRST)
    for i, out in ((0, (0, 0.5, -1)), (2, (0, 0.5, 1))):  # rear window and windscreen
        foot, head = (cabin[0], cabin[1]) if i == 0 else (cabin[3], cabin[2])
        low, high = _between(foot, head, 0.1), _between(foot, head, 0.88)
        a, b = halves[0] * 0.9, halves[1] * 0.9
        z = 0.015 * out[2]
        glass = [
            (-a, low[1], low[0] + z), (a, low[1], low[0] + z),
            (b, high[1], high[0] + z), (-b, high[1], high[0] + z),
        ]  # fmt: skip
        mesh.add(glass, Paint.DARK_GLASS if i == 0 else Paint.GLASS, out=out)
    y0, y1 = cabin[0, 1] + 0.05, cabin[1, 1] - 0.07

    def edge(a: int, b: int, y: float) -> float:
        return float(np.interp(y, cabin[[a, b], 1], cabin[[a, b], 0]))

    middle = (cabin[1, 0] + cabin[2, 0]) / 2 + 0.1
    x0, x1 = (np.interp(y, cabin[[0, 1], 1], halves[[0, 1]]) + 0.012 for y in (y0, y1))
    rear = (edge(0, 1, y0) + 0.14, middle - 0.06, middle - 0.06, edge(0, 1, y1) + 0.1)
    front = (middle + 0.06, edge(3, 2, y0) - 0.12, edge(3, 2, y1) - 0.08, middle + 0.06)
    for side in (-1.0, 1.0):
        for s in (rear, front):
            pane = [
                (side * x0, y0, s[0]), (side * x0, y0, s[1]),
                (side * x1, y1, s[2]), (side * x1, y1, s[3]),
            ]  # fmt: skip
            mesh.add(pane, Paint.DARK_GLASS, out=(side, 0, 0))


def _side_details(mesh: MeshBuilder, spec: CarShape, x: float) -> None:
    """Sill, door joints and door handles of one side."""
    out: Point = (x, 0, 0)
    top, under = spec.body[2][1], spec.body[0][1]
    rear, front = spec.axles

    def patch(s0: float, s1: float, y0: float, y1: float, paint: int, tone: float = 1.0) -> None:
        quad = [(x, y0, s0), (x, y0, s1), (x, y1, s1), (x, y1, s0)]
        mesh.add(quad, paint, out=out, tone=tone, least=SMALL)

    back, nose = spec.body[1][0] + 0.03, spec.body[-2][0] - 0.05
    patch(back, spec.body[3][0] + 0.9, top - 0.13, top - 0.04, Paint.FIRST, 1.22)
    patch(back, nose, under + 0.1, under + 0.26, Paint.FIRST, 0.8)
    patch(rear + 0.36, front - 0.36, under, under + 0.1, Paint.THIRD)
    middle = (spec.cabin[1][0] + spec.cabin[2][0]) / 2 + 0.1
    for s in (middle, spec.cabin[3][0] - 0.02, max(rear + 0.2, spec.cabin[1][0] - 0.1)):
        patch(s - 0.012, s + 0.012, under + 0.1, top - 0.02, Paint.BLACK)
    for s in (middle + 0.1, middle - 0.95):
        patch(s, s + 0.2, top - 0.2, top - 0.16, Paint.FIRST, 0.6)


def _window_band(
    mesh: MeshBuilder,
    half: float,
    ends: tuple[float, float],
    heights: tuple[float, float],
    panes: int,
) -> None:
    """A row of panes on both sides of a long vehicle."""
    edges = np.linspace(ends[0], ends[1], panes + 1)
    for side in (-1.0, 1.0):
        x = side * (half + 0.01)
        band = [(x, heights[0] - 0.06, ends[0]), (x, heights[0] - 0.06, ends[1]),
                (x, heights[1] + 0.06, ends[1]), (x, heights[1] + 0.06, ends[0])]  # fmt: skip
        mesh.add(band, Paint.BLACK, out=(side, 0, 0))
        for a, b in zip(edges[:-1], edges[1:], strict=True):
            pane = [(x * 1.005, heights[0], a + 0.06), (x * 1.005, heights[0], b - 0.06),
                    (x * 1.005, heights[1], b - 0.06), (x * 1.005, heights[1], a + 0.06)]  # fmt: skip
            mesh.add(pane, Paint.LIT_GLASS, out=(side, 0, 0), least=SMALL)


@cache
def bus() -> Mesh:
    """A city bus, 11.4 m long."""
    mesh = MeshBuilder(Surface.BUS)
    half, length, height = 1.27, 5.7, 3.05
    axles = (-3.4, 3.1)
    _tyres(mesh, half, 0.48, axles)
    mesh.box((-half, 0.3, -length), (half, height, length), Paint.FIRST)
    for side in (-1.0, 1.0):
        x = side * (half + 0.005)
        stripe = [(x, 0.3, -length), (x, 0.3, length), (x, 0.95, length), (x, 0.95, -length)]
        mesh.add(stripe, Paint.SECOND, out=(side, 0, 0))
    _window_band(mesh, half, (-length + 0.3, length - 0.2), (1.35, 2.5), 7)
    for s in (length - 1.5, -0.6):  # doors are on the right
        door = [(half + 0.02, 0.4, s), (half + 0.02, 0.4, s + 1.2),
                (half + 0.02, 2.5, s + 1.2), (half + 0.02, 2.5, s)]  # fmt: skip
        mesh.add(door, Paint.DARK_GLASS, out=(1, 0, 0))
    for z in (-length, length):
        _panel(mesh, (-half, half, 0.3, 0.8), z, Paint.SECOND)
        _panel(mesh, (-0.3, 0.3, 0.42, 0.56), z, Paint.WHITE)
    mesh.add(rectangle(-1.15, 1.15, 1.05, 2.5, length + 0.01), Paint.GLASS, out=(0, 0, 1))
    mesh.add(rectangle(-1.0, 1.0, 1.7, 2.6, -length - 0.01), Paint.DARK_GLASS, out=(0, 0, -1))
    for z, width in ((length, 1.0), (-length, 0.5)):
        _panel(mesh, (-width - 0.1, width + 0.1, 2.58, 2.95), z, Paint.BLACK)
        _panel(mesh, (-width, width, 2.63, 2.9), z * 1.002, Paint.DISPLAY)
    _pair(mesh, 0.8, 1.2, 0.6, 0.82, length * 1.002, Paint.HEADLIGHT)
    _pair(mesh, 1.05, 1.22, 0.85, 1.45, -length, Paint.TAILLIGHT)
    _wheels(mesh, half, 0.48, axles)
    return mesh.build()


@cache
def truck_cab() -> Mesh:
    """The cab of a truck, 2.3 m long, its middle at the origin."""
    mesh = MeshBuilder(Surface.TRUCK)
    half, length, height = 1.2, 1.15, 2.85
    _tyres(mesh, half, 0.48, (0.2,))
    mesh.box((-half, 0.45, -length), (half, height, length), Paint.FIRST)
    mesh.box((-half, 0.25, -length), (half, 0.75, length + 0.05), Paint.THIRD, sides="lrfb")
    mesh.add(rectangle(-1.08, 1.08, 1.6, 2.5, length + 0.06), Paint.GLASS, out=(0, 0, 1))
    _panel(mesh, (-0.8, 0.8, 0.85, 1.4), length + 0.05, Paint.BLACK)
    _pair(mesh, 0.75, 1.12, 0.5, 0.7, length + 0.06, Paint.HEADLIGHT)
    _panel(mesh, (-0.3, 0.3, 0.35, 0.48), length + 0.06, Paint.WHITE)
    for side in (-1.0, 1.0):
        x = side * (half + 0.01)
        pane = [(x, 1.6, -0.35), (x, 1.6, 0.9), (x, 2.4, 0.7), (x, 2.4, -0.35)]
        mesh.add(pane, Paint.DARK_GLASS, out=(side, 0, 0))
        x0, x1 = sorted((side * half, side * (half + 0.28)))
        mesh.box((x0, 1.7, 0.85), (x1, 2.3, 0.95), Paint.BLACK, least=SMALL)
    _wheels(mesh, half, 0.48, (0.2,))
    return mesh.build()


@cache
def truck_load(kind: int) -> Mesh:
    """What a truck carries, 6.4 m long: a box (0), a tarpaulin (1) or an open bed (2)."""
    mesh = MeshBuilder(Surface.TRUCK)
    half, length = 1.25, 3.2
    _tyres(mesh, half, 0.48, (-2.3, -1.2))
    mesh.box(
        (-half * 0.8, 0.55, -length), (half * 0.8, 1.0, length), Paint.DARK_METAL, sides="lrfb"
    )
    height = (3.5, 3.2, 1.75)[kind]
    mesh.box((-half, 1.0, -length), (half, height, length), Paint.SECOND)
    mesh.box((-half, 1.0, -length), (half, 1.15, length), Paint.THIRD, sides="lrfb")
    if kind == 0:
        _panel(mesh, (-0.02, 0.02, 1.15, height - 0.1), -length, Paint.DARK_METAL)
        for x in (-0.6, 0.6):
            _panel(mesh, (x - 0.025, x + 0.025, 1.15, height - 0.1), -length, Paint.METAL)
    if kind == 1:
        for y in (1.7, 2.3, 2.9):
            _panel(mesh, (-half, half, y, y + 0.05), -length, Paint.THIRD)
    for side in (-1.0, 1.0):
        x = side * (half + 0.01)
        for s in np.linspace(-length + 0.8, length - 0.8, 5 if kind else 2):
            stripe = [(x, 1.15, s), (x, 1.15, s + 0.06), (x, height, s + 0.06), (x, height, s)]
            mesh.add(stripe, Paint.THIRD, out=(side, 0, 0), least=SMALL)
    if kind == 2:
        mesh.box((-1.0, 1.75, -2.6), (1.0, 2.3, 1.5), Paint.FOURTH)
    _pair(mesh, 0.8, 1.2, 0.72, 0.95, -length, Paint.TAILLIGHT)
    _panel(mesh, (-0.3, 0.3, 0.62, 0.76), -length, Paint.WHITE)
    _panel(mesh, (-half, half, 0.5, 0.6), -length, Paint.WHITE)
    _wheels(mesh, half, 0.48, (-2.3, -1.2))
    return mesh.build()


@cache
def tram_car(is_front: bool) -> Mesh:
    """A section of a tram, 9 m long; the front one ends in a driver's cab."""
    mesh = MeshBuilder(Surface.TRAIN)
    half, length, height = 1.22, 4.4, 3.45
    mesh.box((-half * 0.9, 0.1, -length), (half * 0.9, 0.5, length), Paint.BLACK, sides="lrfb")
    mesh.box((-half, 0.4, -length), (half, height, length), Paint.FIRST)
    mesh.box((-0.7, height, -2.2), (0.7, height + 0.3, 2.2), Paint.METAL)
    for side in (-1.0, 1.0):
        x = side * (half + 0.005)
        for y0, y1 in ((0.4, 1.1), (3.1, 3.3)):
            band = [(x, y0, -length), (x, y0, length), (x, y1, length), (x, y1, -length)]
            mesh.add(band, Paint.SECOND, out=(side, 0, 0))
    _window_band(mesh, half, (-length + 0.2, length - 0.2), (1.45, 2.75), 5)
    for side in (-1.0, 1.0):
        x = side * (half + 0.03)
        door = [(x, 0.55, -0.7), (x, 0.55, 0.7), (x, 2.75, 0.7), (x, 2.75, -0.7)]
        mesh.add(door, Paint.DARK_GLASS, out=(side, 0, 0))
    for z in (-length, length):
        _panel(mesh, (-half, half, 0.4, 1.2), z, Paint.SECOND)
        mesh.add(rectangle(-1.1, 1.1, 1.3, 2.75, z * 1.003), Paint.DARK_GLASS, out=(0, 0, z))
        if is_front or z < 0:
            _panel(mesh, (-0.75, 0.75, 2.85, 3.2), z * 1.002, Paint.BLACK)
            _panel(mesh, (-0.65, 0.65, 2.9, 3.15), z * 1.004, Paint.DISPLAY)
            lamp = Paint.HEADLIGHT if z > 0 else Paint.TAILLIGHT
            _pair(mesh, 0.7, 1.0, 0.8, 1.0, z * 1.004, lamp)
    if is_front:
        arm = [(0.0, height + 0.3, -0.6), (0.0, height + 1.0, 0.4), (0.0, height + 1.6, -0.4)]
        mesh.line(arm, Paint.DARK_METAL, 0.07)
        mesh.line([(-0.8, height + 1.6, -0.4), (0.8, height + 1.6, -0.4)], Paint.DARK_METAL, 0.07)
    return mesh.build()
