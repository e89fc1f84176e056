"""Drawing lots for both sides of a street: buildings, gardens, parks, trees, poles, signs."""

from __future__ import annotations

from collections.abc import Iterator

from datasets.streets.buildings import Architecture
from datasets.streets.dice import RGB, Dice
from datasets.streets.furniture import PANEL, SIGN_SHAPES, TREE_VARIANTS
from datasets.streets.scene import KERB, Street, Thing
from datasets.streets.towns import Town

FAR = 110.0  # metres at which the street's sides end
_DETAILS_END = 65.0  # metres beyond which fences, lamps and trees along the road are left out
_CORNER = 4.0  # metres that a crossing takes from the blocks beside it
_SHOP_FRONTS: tuple[RGB, ...] = ((150, 44, 40), (40, 84, 70), (38, 60, 104), (196, 150, 60),
                                 (92, 60, 44), (60, 60, 62))  # fmt: skip


def plan_sides(dice: Dice, town: Town, street: Street) -> Iterator[Thing]:
    """Everything beside the road but people and vehicles."""
    for side in (-1, 1):
        yield from _blocks(dice, town, street, side)
        yield from _trees_and_lamps(dice, town, street, side)
        yield from _signs(dice, street, side)
        yield from _clutter(dice, street, side)
    if street.crossing is not None:
        yield from _corner_buildings(dice, town, street, street.crossing)
        yield from _traffic_lights(dice, street, street.crossing)
    yield from _backdrop(dice, town)


def _runs(street: Street) -> tuple[tuple[float, float], ...]:
    """The stretches of the street that no crossing interrupts."""
    if street.crossing is None:
        return ((-3.0, FAR),)
    near, far = street.crossing
    return (-3.0, near - _CORNER), (far + _CORNER, FAR)


def _at_crossing(street: Street, z: float, margin: float) -> bool:
    if street.crossing is None:
        return False
    return street.crossing[0] - margin < z < street.crossing[1] + margin


def _blocks(dice: Dice, town: Town, street: Street, side: int) -> Iterator[Thing]:
    border = street.border(side)
    kinds = dict(zip(("row", "house", "park"), town.blocks, strict=True))
    for start, end in _runs(street):
        z = start
        while z < end - 4:
            kind = dice.weighted(kinds)
            room = end - z
            if kind == "row":
                thing, length = _row_building(dice, town, side, border, z, room)
                yield thing
            elif kind == "house":
                length = min(room, dice.between(13, 20))
                yield from _house(dice, town, side, border, z, length)
            else:
                length = min(room, dice.between(14, 34))
                yield from _park(dice, town, side, border, z, length)
            z += length


def _facade_colours(dice: Dice, town: Town) -> tuple[RGB, ...]:
    return (
        dice.tint(dice.pick(town.facades), 0.12),
        dice.tint(dice.pick(town.trims), 0.06),
        dice.tint(dice.pick(town.roofs), 0.12),
        dice.tint(dice.pick(_SHOP_FRONTS), 0.15),
    )


def _building(
    dice: Dice, town: Town, architecture: Architecture, floors: int, bays: int,
    side: int, x: float, z: float,
) -> Thing:  # fmt: skip
    return Thing(
        "building",
        (architecture, floors, bays, dice.whole(0, 2)),
        x=side * x,
        z=z,
        scale=(side, 1.0, 1.0),
        colours=_facade_colours(dice, town),
        nearness=-bays * architecture.bay - 0.5,
    )


def _row_building(
    dice: Dice, town: Town, side: int, border: float, z: float, room: float
) -> tuple[Thing, float]:
    architecture = dice.pick(town.rows)
    bays = max(2, min(dice.whole(3, 6), int(room / architecture.bay)))
    floors = dice.whole(*town.floors)
    thing = _building(dice, town, architecture, floors, bays, side, border, z)
    return thing, bays * architecture.bay


def _house(
    dice: Dice, town: Town, side: int, border: float, z: float, length: float
) -> Iterator[Thing]:
    bays = 3 if length > 12 else 2
    setback = dice.between(3.5, 7)
    start = z + max(0.0, length - bays * town.houses.bay) * dice.between(0.2, 0.8)
    yield _building(dice, town, town.houses, dice.whole(1, 2), bays, side, border + setback, start)
    yield from _boundary(dice, town, side, border, z, length, 0.9)
    for _ in range(dice.whole(0, 2)):
        yield _tree(
            dice, town, side * (border + dice.between(1.5, 3.2)), z + dice.between(0, length)
        )


def _park(
    dice: Dice, town: Town, side: int, border: float, z: float, length: float
) -> Iterator[Thing]:
    yield from _boundary(dice, town, side, border, z, length, 0.5)
    for _ in range(int(length / 3.2)):
        x = border + 2.2 + 18 * dice.share() ** 1.5
        yield _tree(dice, town, side * x, z + dice.between(0, length))
    if dice.chance(0.5):
        architecture = dice.pick(town.rows)
        floors = dice.whole(*town.floors)
        yield _building(dice, town, architecture, floors, 5, side, border + 22, z)


def _boundary(
    dice: Dice, town: Town, side: int, border: float, z: float, length: float, share: float
) -> Iterator[Thing]:
    """Panels of one fence, wall or hedge along the outer edge of the sidewalk."""
    if not dice.chance(share):
        return
    kind = dice.weighted({"fence": 0.45, "wall": 0.33, "hedge": 0.22})
    options: tuple = (dice.pick(town.fences),)
    colours: tuple[RGB, ...] = (dice.tint(town.fence_paint, 0.15),)
    height = 1.0
    if kind == "wall":
        options, height = (town.wall_grain,), dice.between(0.9, 2.3)
        base = dice.tint(dice.pick(town.walls), 0.12)
        colours = (base, (base[0] * 0.86, base[1] * 0.86, base[2] * 0.86))
    elif kind == "hedge":
        options = (dice.whole(0, 3),)
        colours = (dice.tint(dice.pick(town.leaves), 0.12),)
    for i in range(int(min(length, _DETAILS_END - z) / PANEL)):
        yield Thing(
            kind, options, x=side * (border + 0.15), z=z + i * PANEL, scale=(side, height, 1.0),
            colours=colours, nearness=-0.6 * PANEL, casts=i % 2 == 0,
        )  # fmt: skip


def _tree(dice: Dice, town: Town, x: float, z: float, at_kerb: bool = False) -> Thing:
    kind = dice.weighted(dict(town.trees))
    if at_kerb and kind in ("bush", "conifer"):  # they would reach into the road
        kind = "young"
    size = dice.between(0.8, 1.2)
    return Thing(
        "tree", (kind, dice.whole(0, TREE_VARIANTS - 1)), x=x, z=z,
        scale=(size * dice.between(0.9, 1.15), size, 1.0),
        colours=(dice.tint(dice.pick(town.leaves), 0.18),),
    )  # fmt: skip


def _trees_and_lamps(dice: Dice, town: Town, street: Street, side: int) -> Iterator[Thing]:
    kerb = street.edge(side) + 0.7
    if dice.chance(0.45):
        spacing = dice.between(7, 13)
        z = dice.between(4, 12)
        while z < _DETAILS_END:
            if not _at_crossing(street, z, 5):
                yield _tree(dice, town, side * kerb, z, at_kerb=True)
            z += spacing
    spacing = dice.between(20, 32)
    z = dice.between(6, 22)
    while z < _DETAILS_END:
        if not _at_crossing(street, z, 2):
            yield Thing("street_lamp", (town.lamp,), x=side * (kerb - 0.2), z=z, y=KERB,
                        scale=(-side, 1.0, 1.0))  # fmt: skip
        z += spacing


def _signs(dice: Dice, street: Street, side: int) -> Iterator[Thing]:
    for _ in range(dice.whole(1, 3) if side > 0 else dice.whole(0, 2)):
        z = dice.between(7, 45)
        if _at_crossing(street, z, 0):
            continue
        shape = dice.pick(SIGN_SHAPES)
        second = dice.pick(SIGN_SHAPES) if dice.chance(0.3) and shape != "direction" else None
        size = dice.between(0.9, 1.2)
        x = side * (street.edge(side) + 0.45)
        yield Thing("traffic_sign", (shape, second), x=x, z=z, y=KERB, scale=(size, size, 1.0))
    for _ in range(dice.whole(0, 2)):
        x = side * (street.edge(side) + dice.between(0.3, 0.6))
        yield Thing("pole", (), x=x, z=dice.between(8, 60), y=KERB,
                    scale=(dice.between(0.8, 1.6), dice.between(2.5, 7), 1.0))  # fmt: skip


def _clutter(dice: Dice, street: Street, side: int) -> Iterator[Thing]:
    for _ in range(dice.whole(0, 3)):
        z = dice.between(6, 40)
        if _at_crossing(street, z, 1):
            continue
        colour = dice.pick(((60, 66, 64), (44, 84, 56), (120, 104, 52), (50, 60, 84)))
        kind = dice.whole(0, 3)
        x = street.border(side) - 0.5 if kind < 3 else street.edge(side) + 0.3
        yield Thing(
            "clutter", (kind,), x=side * x, z=z, y=KERB, scale=(side, 1, 1), colours=(colour,)
        )


def _corner_buildings(
    dice: Dice, town: Town, street: Street, crossing: tuple[float, float]
) -> Iterator[Thing]:
    """Buildings on the far side of the crossing street, which face the camera."""
    z = crossing[1] + _CORNER
    for side in (-1, 1):
        x = street.border(side) + 11.0
        while x < 60:
            architecture = dice.pick(town.rows)
            bays, floors = dice.whole(3, 6), dice.whole(*town.floors)
            length = bays * architecture.bay
            yield Thing(
                "building", (architecture, floors, bays, dice.whole(0, 2)),
                x=x + length if side > 0 else -x,
                z=z, turn=1.0, colours=_facade_colours(dice, town), nearness=-1.0,
            )  # fmt: skip
            x += length


def _traffic_lights(dice: Dice, street: Street, crossing: tuple[float, float]) -> Iterator[Thing]:
    if not dice.chance(0.85):
        return
    lit = dice.pick((0, 0, 1, 2, 2))
    near, far = crossing
    yield Thing(
        "traffic_light", (lit, dice.chance(0.6)), x=street.edge(1) + 0.5, z=near - 1.2, y=KERB
    )
    if dice.chance(0.75):
        yield Thing("traffic_light", (lit, False), x=-street.edge(-1) - 0.5, z=near - 1.2, y=KERB)
    for side in (-1, 1):
        if dice.chance(0.5):
            yield Thing(
                "light_from_behind", (), x=side * (street.edge(side) + 0.5), z=far + 1.2, y=KERB
            )
        elif dice.chance(0.6):
            yield Thing(
                "traffic_light",
                (lit, False),
                x=side * (street.edge(side) + 0.6),
                z=far + 1.5,
                y=KERB,
            )


def _backdrop(dice: Dice, town: Town) -> Iterator[Thing]:
    """What closes the view at the street's end: buildings and trees in a row."""
    x = -120.0
    while x < 120:
        if dice.chance(0.55):
            architecture = dice.pick(town.rows)
            bays = dice.whole(4, 8)
            length = bays * architecture.bay
            floors = dice.whole(*town.floors) + 1
            yield Thing("building", (architecture, floors, bays, dice.whole(0, 2)),
                        x=x + length, z=FAR + dice.between(12, 30), turn=1.0,
                        colours=_facade_colours(dice, town), nearness=-1.0,
                        casts=False)  # fmt: skip
            x += length
        else:
            size = dice.between(1.2, 2.0)
            tree = _tree(dice, town, x + 3, FAR + dice.between(5, 12))
            yield Thing(tree.model, tree.options, tree.x, tree.z, scale=(size * 1.5, size, 1),
                        colours=tree.colours, casts=False)  # fmt: skip
            x += 6
