"""Drawing lots for a scene: its street, its camera and all that stands along it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from datasets.streets.dice import Dice
from datasets.streets.roadside import plan_sides
from datasets.streets.scene import Camera, Scene, Street
from datasets.streets.towns import TOWNS, Town
from datasets.streets.traffic import plan_people, plan_vehicles

SPLITS = tuple(TOWNS)


def plan_scene(seed: int, split: str, index: int) -> Scene:
    """The scene of an index: the same for the same three numbers, whatever else was drawn.

    Args:
        seed: of the data set.
        split: "train", "val" or "test"; no town is in two of them.
        index: place in the split.
    """
    dice = Dice(seed, SPLITS.index(split), index)
    town = TOWNS[split][index % len(TOWNS[split])]
    street = _plan_street(dice, town)
    camera = Camera(
        x=street.lane * (street.lanes - 0.5) + dice.between(-0.3, 0.3),
        height=dice.between(1.25, 1.5),
        focal=dice.between(0.92, 1.1),
        centre=dice.between(0.44, 0.56),
        horizon=dice.between(0.4, 0.46),
    )
    things = [
        *plan_sides(dice, town, street),
        *plan_vehicles(dice, town, street, camera.x),
        *plan_people(dice, town, street),
    ]
    return Scene(
        town=town,
        camera=camera,
        street=street,
        bend=dice.between(-1, 1) ** 3 * 1.2e-3,
        sun=(dice.between(-math.pi, math.pi), dice.between(0.42, 1.05)),
        hood=dice.between(0.055, 0.1) if dice.chance(0.85) else 0.0,
        grain=(dice.between(0, 100), dice.between(0, 100)),
        label_seed=dice.whole(0, 2**31),
        things=tuple(things),
    )


def _plan_street(dice: Dice, town: Town) -> Street:
    lanes = 2 if dice.chance(town.wide) else 1
    has_tracks = dice.chance(town.tracks)
    lane = dice.between(3.2, 3.6)
    parking = (dice.chance(0.5), dice.chance(0.55))
    left, right = (lanes * lane + (2.2 if parks else 0.3) for parks in parking)
    crossing = None
    if dice.chance(0.5):
        near = dice.between(16, 48)
        crossing = (near, near + dice.between(6.5, 11))
    return Street(
        lanes=lanes,
        lane=lane,
        edges=(left, right),
        verges=(_plan_verge(dice, town), _plan_verge(dice, town)),
        sidewalks=(dice.between(2.0, 4.2), dice.between(2.0, 4.2)),
        parking=parking,
        has_tracks=has_tracks,
        crossing=crossing,
        asphalt=dice.tint(town.asphalt, 0.14),
        paving=dice.tint(town.paving, 0.12),
        soil=dice.tint(town.soil, 0.14),
        wear=dice.share(),
        patches=tuple(_plan_patches(dice, left, right)),
    )


def _plan_verge(dice: Dice, town: Town) -> float:
    """Width of the grass along the kerb, more often where there are gardens and parks."""
    width = dice.between(1.0, 2.6)
    return width if dice.chance(0.12 + 0.5 * (town.blocks[1] + town.blocks[2])) else 0.0


def _plan_patches(
    dice: Dice, left: float, right: float
) -> Iterator[tuple[float, float, float, float, float]]:
    """Mended pieces of the road and manhole covers."""
    for _ in range(dice.whole(0, 5)):
        x, z = dice.between(-left, right - 2), dice.between(4, 40)
        yield x, z, dice.between(0.6, 2.4), dice.between(1, 7), dice.between(0.8, 1.14)
    for _ in range(dice.whole(0, 3)):
        yield dice.between(-left, right - 1), dice.between(5, 25), 0.62, 0.62, 0.55
