"""Scenes in which most kinds of objects are missing, so that naming those there says something."""

from __future__ import annotations

from dataclasses import replace

from datasets.streets.dice import Dice
from datasets.streets.planning import SPLITS, plan_scene
from datasets.streets.scene import Scene, Thing

_STREAM = 41  # which dice of an index fall for the choice of objects
_KINDS = {
    "bus": "bus",
    "car": "car",
    "person": "person",
    "tram_car": "train",
    "truck_cab": "truck",
    "truck_load": "truck",
}
_CHOICES = {
    "bicycle": (1.0, 30),
    "bus": (1.0, 70),
    "car": (0.45, 40),
    "motorcycle": (1.0, 30),
    "person": (0.5, 30),
    "train": (1.0, 70),
    "truck": (0.85, 70),
}  # share of the scenes that keep what they have of a kind, and up to how many metres away


def plan_with_few_objects(seed: int, split: str, index: int) -> Scene:
    """The scene of an index (see ``plan_scene``) with some kinds of its objects, none far away.

    A kind is kept or left out as a whole, a rider together with what is ridden. All else of the
    scene stays as it is.
    """
    scene = plan_scene(seed, split, index)
    dice = Dice(seed, SPLITS.index(split), index, _STREAM)
    kept = {kind for kind, (share, _) in _CHOICES.items() if dice.chance(share)}
    things = tuple(thing for thing in scene.things if _stays(thing, kept))
    return replace(scene, things=things)


def _stays(thing: Thing, kept: set[str]) -> bool:
    kind = kind_of(thing)
    return kind is None or (kind in kept and thing.z <= _CHOICES[kind][1])


def kind_of(thing: Thing) -> str | None:
    """The kind of object that a thing belongs to; None for what is no object."""
    if thing.model in ("bicycle", "motorcycle"):
        return thing.model
    if thing.model == "rider":
        return str(thing.options[1])
    return _KINDS.get(thing.model)
