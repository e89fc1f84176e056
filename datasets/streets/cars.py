"""Models of cars. Own paints: body, the same again, bumpers."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.streets.bodywork import add_flanks, add_pair, add_panel, add_tyres, add_wheels
from datasets.streets.mesh import SMALL, Mesh, MeshBuilder
from datasets.streets.paints import Paint, Surface


class CarShape(NamedTuple):
    """Side view of a car: metres along it from the middle (front positive) and above ground."""

    body: tuple[tuple[float, float], ...]  # lower part, from the rear bumper over the top
    cabin: tuple[tuple[float, float], ...]  # from the rear window's foot to the windscreen's
    width: float
    wheel: float  # radius
    axles: tuple[float, float]


# fmt: off
CAR_SHAPES = (
    CarShape(  # saloon
        body=((-2.3, 0.28), (-2.32, 0.72), (-2.2, 0.95), (0.95, 0.95), (1.75, 0.87), (2.12, 0.76),
              (2.3, 0.58), (2.3, 0.26)),
        cabin=((-1.75, 0.94), (-1.05, 1.42), (0.2, 1.45), (1.05, 0.94)),
        width=1.82, wheel=0.32, axles=(-1.38, 1.42),
    ),
    CarShape(  # hatchback
        body=((-1.95, 0.28), (-1.98, 0.7), (-1.92, 0.95), (0.85, 0.95), (1.5, 0.88), (1.82, 0.77),
              (1.98, 0.58), (1.98, 0.26)),
        cabin=((-1.88, 0.94), (-1.55, 1.44), (0.05, 1.48), (0.95, 0.94)),
        width=1.76, wheel=0.31, axles=(-1.22, 1.28),
    ),
    CarShape(  # estate
        body=((-2.3, 0.28), (-2.32, 0.72), (-2.28, 0.96), (0.95, 0.96), (1.75, 0.88), (2.12, 0.77),
              (2.3, 0.58), (2.3, 0.26)),
        cabin=((-2.22, 0.95), (-1.85, 1.46), (0.2, 1.5), (1.05, 0.95)),
        width=1.83, wheel=0.32, axles=(-1.36, 1.42),
    ),
    CarShape(  # off-roader
        body=((-2.25, 0.36), (-2.28, 0.85), (-2.24, 1.08), (0.9, 1.08), (1.65, 1.03), (2.05, 0.95),
              (2.25, 0.75), (2.25, 0.34)),
        cabin=((-2.18, 1.07), (-1.85, 1.66), (0.15, 1.7), (0.95, 1.07)),
        width=1.9, wheel=0.37, axles=(-1.33, 1.38),
    ),
    CarShape(  # van
        body=((-2.5, 0.34), (-2.52, 0.8), (-2.5, 1.1), (1.5, 1.1), (2.0, 1.04), (2.32, 0.94),
              (2.5, 0.7), (2.5, 0.34)),
        cabin=((-2.48, 1.09), (-2.4, 1.95), (0.85, 1.96), (1.6, 1.09)),
        width=1.95, wheel=0.34, axles=(-1.5, 1.6),
    ),
)
# fmt: on


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


@cache
def car(shape: int) -> Mesh:
    """A car of one of ``CAR_SHAPES``."""
    spec = CAR_SHAPES[shape]
    mesh = MeshBuilder(Surface.CAR)
    half = spec.width / 2
    body, cabin = np.array(spec.body), np.array(spec.cabin)
    under, top = body[0, 1], body[2, 1]
    add_tyres(mesh, half, spec.wheel, spec.axles)
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
    add_panel(mesh, (-half, half, under, under + 0.16), back, Paint.THIRD)
    add_panel(mesh, (-half, half, under - 0.02, under + 0.14), front, Paint.THIRD)
    add_panel(mesh, (-half * 0.97, half * 0.97, under + 0.16, under + 0.3), back, Paint.FIRST, 0.78)
    add_panel(mesh, (-half * 0.6, half * 0.6, top - 0.2, top - 0.06), back, Paint.FIRST, 1.15)
    add_pair(mesh, half * 0.64, half * 0.98, top - 0.34, top - 0.06, back, Paint.TAILLIGHT)
    add_pair(mesh, half * 0.64, half * 0.74, top - 0.34, top - 0.25, back * 1.003, Paint.WHITE)
    nose = float(body[-2, 1])  # height of the front's upper edge
    add_pair(mesh, half * 0.55, half * 0.98, nose - 0.14, nose + 0.02, front, Paint.HEADLIGHT)
    add_panel(mesh, (-0.27, 0.27, top - 0.34, top - 0.22), back, Paint.WHITE)
    add_panel(mesh, (-0.27, 0.27, under + 0.08, under + 0.2), front, Paint.WHITE)
    add_panel(mesh, (-half * 0.5, half * 0.5, under + 0.22, nose), front, Paint.BLACK)
    _side_details(mesh, spec, half + 0.005)
    add_wheels(mesh, half, spec.wheel, spec.axles)
    return mesh.build()


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
    """Creases, sills, door joints and door handles on both sides, ``x`` from the middle."""
    top, under = spec.body[2][1], spec.body[0][1]
    rear, front = spec.axles

    def patch(s0: float, s1: float, y0: float, y1: float, paint: int, tone: float = 1.0) -> None:
        add_flanks(mesh, x, (s0, s1, y0, y1), paint, tone, SMALL)

    back, nose = spec.body[1][0] + 0.03, spec.body[-2][0] - 0.05
    patch(back, spec.body[3][0] + 0.9, top - 0.13, top - 0.04, Paint.FIRST, 1.22)
    patch(back, nose, under + 0.1, under + 0.26, Paint.FIRST, 0.8)
    patch(rear + 0.36, front - 0.36, under, under + 0.1, Paint.THIRD)
    middle = (spec.cabin[1][0] + spec.cabin[2][0]) / 2 + 0.1
    for s in (middle, spec.cabin[3][0] - 0.02, max(rear + 0.2, spec.cabin[1][0] - 0.1)):
        patch(s - 0.012, s + 0.012, under + 0.1, top - 0.02, Paint.BLACK)
    for s in (middle + 0.1, middle - 0.95):
        patch(s, s + 0.2, top - 0.2, top - 0.16, Paint.FIRST, 0.6)
