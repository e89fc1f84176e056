"""Drawing lots for unknown obstacles: what stands on or beside the road of a planned scene."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.streets.dice import Dice
from datasets.streets.models import outline
from datasets.streets.obstacles import KINDS, TURNS, VARIANTS
from datasets.streets.planning import SPLITS, plan_scene
from datasets.streets.poses import NEAR
from datasets.streets.scene import KERB, Scene, Street, Thing
from datasets.streets.visibility import Outlines, place_outlines

_STREAM = 40  # which dice of an index fall for obstacles
_MOST = 4  # obstacles in a scene
_TRIES = 48  # places that are looked at for each
_FARTHEST = 45.0  # metres
_FIRST_HEIGHTS = (0.1, 0.26)  # of the one that each image shows, over the image's height
_HEIGHTS = (0.045, 0.18)  # of the others
_ON_ROAD = 0.55  # share of those meant for the road
_ROOM = 0.25  # metres kept free around other things
_HIDDEN = 0.25  # share that other things may hide
_HIDING = ("car", "bus", "truck_cab", "truck_load", "tram_car", "person", "bicycle", "motorcycle",
           "rider", "clutter", "obstacle")  # fmt: skip


class _Spot(NamedTuple):
    """A place for an obstacle; x and z as the camera sees them, in metres."""

    thing: Thing
    extent: tuple[float, float]  # greatest width and height, in metres
    x: float
    z: float


class _Boxes(NamedTuple):
    """Where things stand and what they hide, T things; columns: low and high."""

    x: NDArray[np.float64]  # (T, 2), of what is lower than a metre
    z: NDArray[np.float64]  # (T, 2)
    u: NDArray[np.float64]  # (T, 2), over the focal length; empty where nothing is hidden
    v: NDArray[np.float64]  # (T, 2), below the horizon over the focal length


def plan_with_obstacles(seed: int, split: str, index: int) -> Scene:
    """The scene of an index (see ``plan_scene``) with one to four unknown obstacles.

    All else stands where it stands without them: they have their own dice.
    """
    scene = plan_scene(seed, split, index)
    dice = Dice(seed, SPLITS.index(split), index, _STREAM)
    boxes = _boxes(scene, place_outlines(scene))
    spots: list[_Spot] = []
    for number in range(dice.whole(1, _MOST)):
        best, least = None, math.inf
        for _ in range(_TRIES):
            spot = _draw_spot(dice, scene, is_first=number == 0)
            trouble = _trouble(scene, boxes, spots, spot)
            if trouble < least:
                best, least = spot, trouble
            if trouble == 0:
                break
        if best is not None and (least <= _HIDDEN or number == 0):
            spots.append(best)
    return replace(scene, things=(*scene.things, *(spot.thing for spot in spots)))


def _draw_spot(dice: Dice, scene: Scene, is_first: bool) -> _Spot:
    """An obstacle at a random place that the camera can see."""
    kind = dice.pick(tuple(KINDS))
    options = (kind, dice.whole(0, VARIANTS - 1), dice.whole(0, TURNS - 1))
    size = dice.between(0.85, 1.35)
    across, high, along = (size * np.ptp(outline("obstacle", options), 0)).tolist()
    least, most = _FIRST_HEIGHTS if is_first else _HEIGHTS
    share = least * (most / least) ** dice.share()
    camera, street = scene.camera, scene.street
    # images are twice as wide as high; below the hood nothing is seen
    nearest = 2 * camera.focal * camera.height / (0.97 - scene.hood - camera.horizon)
    z = min(max(2 * camera.focal * math.sqrt(across * high) / share, nearest), _FARTHEST)
    bent = scene.bend * z * z - camera.x
    seen = [(column - camera.centre) * z / camera.focal - bent for column in (0.06, 0.94)]
    x = _draw_x(dice, street, (seen[0], seen[1]), across / 2)
    thing = Thing(
        "obstacle",
        options,
        x=x,
        z=z,
        y=_ground(street, x, z),
        scale=(size, size, size),
        colours=tuple(dice.tint(colour, 0.08) for colour in dice.pick(KINDS[kind].palettes)),
    )
    return _Spot(thing, (max(across, along), high), x + bent, z)


def _draw_x(dice: Dice, street: Street, seen: tuple[float, float], half: float) -> float:
    """Metres to the right of the road's middle, within what is seen."""
    left, right = street.edges
    stretches = [(-left + half, right - half)]
    if not dice.chance(_ON_ROAD):
        side = dice.pick((-1, 1))
        ends = side * (street.edge(side) + half), side * (street.border(side) - half)
        stretches.insert(0, (min(ends), max(ends)))
    share = dice.share()
    for start, end in stretches:
        low, high = max(start, seen[0]), min(end, seen[1])
        if low < high:
            return low + (high - low) * share
    return seen[0] + (seen[1] - seen[0]) * share


def _ground(street: Street, x: float, z: float) -> float:
    """Height of the ground: sidewalks are higher than the road."""
    side = 1 if x > 0 else -1
    in_crossing = street.crossing is not None and street.crossing[0] < z < street.crossing[1]
    return KERB if street.edge(side) < abs(x) < street.border(side) and not in_crossing else 0.0


def _boxes(scene: Scene, outlines: Outlines) -> _Boxes:
    """Footprints of all things, and the rectangles of those that hide what is behind."""
    x, y, z = outlines.points.T
    is_low = y < 1.0
    scale = 1 / np.maximum(z, NEAR)
    u, v = x * scale, (scene.camera.height - y) * scale

    def limits(values: NDArray[np.float64], chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        low = np.minimum.reduceat(np.where(chosen, values, np.inf), outlines.starts)
        high = np.maximum.reduceat(np.where(chosen, values, -np.inf), outlines.starts)
        return np.stack([low, high], 1)

    everything = np.ones(len(x), bool)
    depth = limits(z, everything)
    hides = np.array([thing.model in _HIDING for thing in scene.things]) & (depth[:, 1] > NEAR)
    columns = np.where(hides[:, None], limits(u, everything), (np.inf, -np.inf))
    return _Boxes(limits(x, is_low), limits(z, is_low), columns, limits(v, everything))


def _trouble(scene: Scene, boxes: _Boxes, others: list[_Spot], spot: _Spot) -> float:
    """How badly a spot is chosen: the greatest hidden share, and 1 or more where things collide."""
    radius = spot.extent[0] / 2 + _ROOM
    collides = (boxes.x[:, 0] < spot.x + radius) & (boxes.x[:, 1] > spot.x - radius)
    collides &= (boxes.z[:, 0] < spot.z + radius) & (boxes.z[:, 1] > spot.z - radius)
    nearer = boxes.z[:, 0] < spot.z
    u, v = _rectangle(scene, spot)
    hidden = _covered(u, v, boxes.u[nearer], boxes.v[nearer])
    trouble = collides.sum() + max(hidden.tolist(), default=0.0)
    for other in others:
        apart = math.hypot(other.x - spot.x, other.z - spot.z)
        is_close = apart < (other.extent[0] + spot.extent[0]) / 2 + _ROOM
        near, far = sorted((other, spot), key=lambda each: each.z)
        front = [np.array([part]) for part in _rectangle(scene, near)]
        trouble += is_close + _covered(*_rectangle(scene, far), *front)[0]
    return float(trouble)


def _rectangle(scene: Scene, spot: _Spot) -> tuple[tuple[float, float], tuple[float, float]]:
    """Columns and rows that an obstacle takes, over the focal length."""
    half = spot.extent[0] / 2
    base = scene.camera.height - spot.thing.y
    return (
        ((spot.x - half) / spot.z, (spot.x + half) / spot.z),
        ((base - spot.extent[1]) / spot.z, base / spot.z),
    )


def _covered(
    u: tuple[float, float],
    v: tuple[float, float],
    front_u: NDArray[np.float64],
    front_v: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Share of a rectangle that each of some rectangles covers."""
    across = np.minimum(u[1], front_u[:, 1]) - np.maximum(u[0], front_u[:, 0])
    down = np.minimum(v[1], front_v[:, 1]) - np.maximum(v[0], front_v[:, 0])
    area = (u[1] - u[0]) * (v[1] - v[0])
    return np.maximum(across, 0) * np.maximum(down, 0) / area
