"""Drawing lots for vehicles, riders and pedestrians."""

from __future__ import annotations

from collections.abc import Iterator

from datasets.streets.cars import CAR_SHAPES
from datasets.streets.dice import RGB, Dice
from datasets.streets.people import PERSON_VARIANTS
from datasets.streets.scene import KERB, Street, Thing
from datasets.streets.towns import Town

_CAR_PAINTS: tuple[tuple[RGB, float], ...] = (
    ((34, 36, 40), 20), ((190, 192, 196), 18), ((232, 232, 230), 16), ((110, 114, 120), 16),
    ((40, 60, 110), 9), ((140, 30, 34), 8), ((70, 84, 96), 6), ((60, 90, 70), 3),
    ((196, 160, 90), 2),
    ((200, 90, 40), 2),
)  # fmt: skip
_FARTHEST = 70.0  # metres
_BUMPERS: RGB = (52, 54, 58)
_LOADS: tuple[RGB, ...] = (
    (226, 226, 222),
    (60, 90, 150),
    (170, 50, 44),
    (70, 120, 80),
    (200, 190, 160),
)
_CLOTHES: tuple[RGB, ...] = (
    (36, 38, 46), (60, 70, 100), (120, 40, 44), (176, 170, 160), (84, 96, 74), (150, 110, 70),
    (204, 204, 208),
    (40, 92, 120), (190, 150, 60), (110, 80, 120), (200, 90, 70),
)  # fmt: skip
_TROUSERS: tuple[RGB, ...] = (
    (40, 44, 62),
    (30, 30, 34),
    (92, 88, 80),
    (60, 76, 110),
    (130, 120, 104),
)
_SKINS: tuple[RGB, ...] = ((224, 184, 160), (206, 160, 130), (160, 112, 84), (104, 72, 56))
_HAIRS: tuple[RGB, ...] = (
    (40, 32, 28),
    (84, 60, 40),
    (150, 116, 70),
    (120, 118, 116),
    (28, 26, 28),
)
_HELMETS: tuple[RGB, ...] = (
    (220, 220, 216),
    (170, 40, 40),
    (40, 42, 46),
    (60, 110, 170),
    (220, 190, 60),
)


def _car(dice: Dice, x: float, z: float, turn: float) -> Thing:
    shape = dice.weighted({0: 4, 1: 5, 2: 4, 3: 4, 4: 2})
    size = dice.between(0.96, 1.04)
    paint = dice.tint(dice.weighted(dict(_CAR_PAINTS)), 0.08)
    reach = -CAR_SHAPES[shape].body[0][0] * (1 if turn % 2 == 0 else 0.3)
    trim = _BUMPERS if dice.chance(0.6) else paint
    return Thing("car", (shape,), x=x, z=z, turn=turn, scale=(size, size, size),
                 colours=(paint, paint, trim), nearness=reach * 0.5)  # fmt: skip


def _truck(dice: Dice, x: float, z: float, turn: float) -> Iterator[Thing]:
    paint, load = dice.tint(dice.pick(_LOADS), 0.1), dice.tint(dice.pick(_LOADS), 0.1)
    colours: tuple[RGB, ...] = (paint, load, _BUMPERS, (140, 120, 90))
    ahead = 1 if turn == 0 else -1
    yield Thing("truck_cab", (), x=x, z=z + 4.5 * ahead, turn=turn, colours=colours)
    yield Thing(
        "truck_load", (dice.whole(0, 2),), x=x, z=z, turn=turn, colours=colours, nearness=1.0
    )


def _bus(town: Town, x: float, z: float, turn: float) -> Thing:
    return Thing("bus", (), x=x, z=z, turn=turn, colours=(*town.bus, _BUMPERS), nearness=2.5)


def _tram(dice: Dice, town: Town, x: float, z: float, turn: float) -> Iterator[Thing]:
    """Two or three sections; ``z`` is where the nearest begins."""
    count = dice.whole(2, 3)
    for i in range(count):
        leads = i == (count - 1 if turn == 0 else 0)
        yield Thing("tram_car", (leads,), x=x, z=z + 4.4 + 9.0 * i, turn=turn,
                    colours=(*town.tram, _BUMPERS), nearness=2.0)  # fmt: skip


def _two_wheeler(
    dice: Dice,
    mount: str,
    x: float,
    z: float,
    heading: str,
    y: float = 0.0,
    with_rider: bool = True,
) -> Iterator[Thing]:
    """A bicycle or motorcycle; ``heading`` is "away", "towards", "left" or "right"."""
    view = heading if heading in ("away", "towards") else "side"
    mirrored = -1.0 if heading == "left" else 1.0
    paint = dice.tint(dice.weighted(dict(_CAR_PAINTS)), 0.1)
    yield Thing(
        mount, (view,), x=x, z=z, y=y, scale=(mirrored, 1.0, 1.0), colours=(paint, (190, 196, 200))
    )
    if with_rider:
        clothes = _CLOTHES[:3] if mount == "motorcycle" else _CLOTHES
        colours = (
            dice.tint(dice.pick(clothes)),
            dice.pick(_TROUSERS),
            dice.pick(_SKINS),
            dice.pick(_HELMETS),
        )
        yield Thing("rider", (view, mount), x=x, z=z, y=y, scale=(mirrored, 1.0, 1.0),
                    colours=colours, nearness=0.05)  # fmt: skip


def plan_vehicles(dice: Dice, town: Town, street: Street, own_x: float) -> Iterator[Thing]:
    """Vehicles that drive, park or cross, and riders."""
    tram_room = 0.0
    if street.has_tracks and dice.chance(0.5):
        tram_room = dice.between(12, 45)
        turn = 2.0 if dice.chance(0.6) else 0.0
        x = (-0.5 if turn else 0.5) * street.lane
        if abs(x - own_x) > 1.5 or turn:
            yield from _tram(dice, town, x, tram_room, turn)
    for lane in range(-street.lanes, street.lanes):
        x = (lane + 0.5) * street.lane
        is_tram_lane = tram_room > 0 and lane in (-1, 0)
        yield from _lane(dice, town, x, abs(x - own_x) < 1.5, is_tram_lane)
    for side in (-1, 1):
        if street.parking[side > 0]:
            yield from _parked(dice, street, side)
    yield from _riders(dice, town, street)
    if street.crossing is not None:
        yield from _crossing_vehicles(dice, town, street.crossing)


def _lane(dice: Dice, town: Town, x: float, is_own: bool, is_blocked: bool) -> Iterator[Thing]:
    """The vehicles of one lane, nearest first."""
    if is_blocked:
        return
    turn = 0.0 if x > 0 else 2.0
    z = dice.between(9, 45) if is_own else dice.between(4, 40)
    gap = dice.between(8, 34)
    while z < _FARTHEST:
        kind = dice.weighted({"car": 86, "truck": 5, "bus": 4.5, "motorcycle": 7})
        place = x + dice.between(-0.25, 0.25)
        if kind == "car":
            yield _car(dice, place, z + 2.3, turn)
            z += 5
        elif kind == "truck":
            yield from _truck(dice, place, z + 4.5, turn)
            z += 10
        elif kind == "bus":
            yield _bus(town, place, z + 5.7, turn)
            z += 12
        else:
            yield from _two_wheeler(dice, "motorcycle", place, z + 1, "towards" if turn else "away")
            z += 3
        z += gap * dice.between(0.4, 1.6) + 3


def _parked(dice: Dice, street: Street, side: int) -> Iterator[Thing]:
    x = side * (street.edge(side) - 1.1)
    z = dice.between(2, 12)
    fullness = dice.between(0.3, 0.95)
    while z < 0.75 * _FARTHEST:
        in_crossing = street.crossing is not None and (
            street.crossing[0] - 7 < z < street.crossing[1] + 4
        )
        if not in_crossing and dice.chance(fullness):
            if dice.chance(0.03):
                yield from _truck(dice, x, z + 4.5, 0.0 if side > 0 else 2.0)
                z += 6
            else:
                turn = (0.0 if side > 0 else 2.0) + (2.0 if dice.chance(0.12) else 0.0)
                yield _car(dice, x + dice.between(-0.1, 0.1), z + 2.3, turn % 4)
        z += dice.between(5.4, 6.4)


def _riders(dice: Dice, town: Town, street: Street) -> Iterator[Thing]:
    for side in (-1, 1):
        if dice.chance(0.2 * town.bicycles):
            away = side > 0
            x = side * (street.edge(side) - (2.7 if street.parking[side > 0] else 0.7))
            heading = "away" if away else "towards"
            yield from _two_wheeler(dice, "bicycle", x, dice.between(7, 26), heading)
        if dice.chance(0.28 * town.bicycles):  # parked
            x = side * (street.walk(side) + dice.between(0.9, 1.6))
            z = dice.between(7, 24)
            mount = "motorcycle" if dice.chance(0.35) else "bicycle"
            for i in range(dice.whole(1, 4)):
                yield from _two_wheeler(
                    dice, mount, x, z + 0.7 * i, "left" if side < 0 else "right", KERB, False
                )


def _crossing_vehicles(dice: Dice, town: Town, crossing: tuple[float, float]) -> Iterator[Thing]:
    near, far = crossing
    for z, turn, heading in ((far - 1.9, 1.0, "left"), (near + 1.9, 3.0, "right")):
        for x in (dice.between(-22, -3), dice.between(-3, 22)):
            if not dice.chance(0.4):
                continue
            kind = dice.weighted({"car": 70, "bus": 6, "truck": 6, "bicycle": 12, "motorcycle": 6})
            if kind == "car":
                yield _car(dice, x, z, turn)
            elif kind == "bus":
                yield Thing("bus", (), x=x, z=z, turn=turn, colours=(*town.bus, _BUMPERS))
            elif kind == "truck":
                ahead = -1 if turn == 1.0 else 1
                for thing in _truck(dice, 0, 0, 0.0):
                    yield Thing(thing.model, thing.options, x + thing.z * ahead, z, turn=turn,
                                colours=thing.colours)  # fmt: skip
            else:
                yield from _two_wheeler(dice, kind, x * 0.5, z, heading)


def _person(dice: Dice, x: float, z: float, y: float) -> Thing:
    size = dice.between(0.9, 1.08) if dice.chance(0.88) else dice.between(0.6, 0.8)
    colours = (
        dice.tint(dice.pick(_CLOTHES)),
        dice.pick(_TROUSERS),
        dice.pick(_SKINS),
        dice.pick(_HAIRS),
    )
    mirrored = -1.0 if dice.chance(0.5) else 1.0
    return Thing("person", (dice.whole(0, PERSON_VARIANTS - 1),), x=x, z=z, y=y,
                 scale=(size * mirrored, size, 1.0), colours=colours)  # fmt: skip


def plan_people(dice: Dice, town: Town, street: Street) -> Iterator[Thing]:
    """Pedestrians on the sidewalks and on the zebra crossing."""
    for side in (-1, 1):
        for _ in range(int(dice.between(0, 7) * town.bustle)):
            x = side * dice.between(street.walk(side) + 0.5, street.border(side) - 0.3)
            z = 6 + 54 * dice.share() ** 1.6
            for i in range(1 + dice.chance(0.3)):
                yield _person(dice, x + 0.55 * i, z + 0.1 * i, KERB)
    if street.crossing is not None:
        for _ in range(int(dice.between(0, 4) * town.bustle)):
            x = dice.between(-street.edge(-1), street.edge(1))
            yield _person(dice, x, street.crossing[0] - dice.between(1.6, 3.6), 0.0)
    if dice.chance(0.06):
        yield _person(dice, dice.between(-5, 6), dice.between(14, 40), 0.0)
