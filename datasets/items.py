"""What a data set lists: its items, the choice of their scenes, and the checks of the list."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

MOST_SCENES = 20  # named in a message
_UNSAFE = re.compile(r"[^\w\-. ()+,=@]")  # in a part of a path on any system


class Item(NamedTuple):
    """One image of a split with its label; generated items have no files."""

    id: str
    image: Path | None
    label: Path | None
    scene: str = ""
    condition: str = ""


class SampleKey(NamedTuple):
    """Which item to load and in which epoch, which decides the random transforms.

    Attributes:
        epoch: from 0.
        index: of the item.
        centre: (x, y) in the label at its native size that a random crop has to show.
        place: in the epoch's list, where an item may be in it more than once: each then has
            random transforms of its own.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # shadows tuple.index, which no key needs
    centre: tuple[int, int] | None = None
    place: int | None = None

    @classmethod
    def of(cls, key: int | SampleKey, length: int | None = None) -> SampleKey:
        """The key of an item; an index alone stands for that item in epoch 0.

        Args:
            key: an index, or a key as a plain or a named tuple.
            length: of the data set, if a negative index shall count from its end.

        Raises:
            IndexError: if the data set has no such item.
        """
        full = cls(*key) if isinstance(key, tuple) else cls(0, key)
        return full if length is None else full._replace(index=range(length)[full.index])

    def generator(self, seed: int) -> np.random.Generator:
        """What the random transforms draw from: it depends on the seed, epoch, item and place."""
        own = () if self.place is None else (1 + self.place,)
        spawn_key = (self.epoch, self.index, *own)
        return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=spawn_key))


class NamedSplit(NamedTuple):
    """A split that is a part of an official one.

    Attributes:
        folder: the official split.
        scenes: those of its scenes that belong to it; none named: all.
    """

    folder: str
    scenes: tuple[str, ...] = ()

    def choose(self, items: Sequence[Item], where: str) -> list[Item]:
        """The items of the official split that belong to this one.

        Raises:
            ValueError: if a scene has no item, as ``choose_scenes`` does.
        """
        return choose_scenes(items, self.scenes, where) if self.scenes else list(items)


def choose_scenes(items: Sequence[Item], scenes: Iterable[str], where: str) -> list[Item]:
    """The items of some scenes, in their order.

    Args:
        items: of all scenes.
        scenes: whole names, compared sign by sign.
        where: the data set and split in words, for the message.

    Raises:
        ValueError: if a scene has no item, naming it, the nearest and the first 20, or if the
            items have no scenes.
    """
    wanted = tuple(scenes)
    known = sorted({item.scene for item in items})
    if known == [""]:
        raise ValueError(f"{where} is not divided into scenes, so none can be chosen")
    for scene in wanted:
        if scene in known:
            continue
        more = f" and {len(known) - MOST_SCENES} more" if len(known) > MOST_SCENES else ""
        raise ValueError(
            f"{where} has no scene {scene!r}{did_you_mean(scene, known)}; its scenes are "
            f"{', '.join(known[:MOST_SCENES])}{more}"
        )
    return [item for item in items if item.scene in wanted]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one in brackets, if any."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f" (did you mean {close[0]!r}?)" if close else ""


def refuse_repeated_ids(items: Iterable[Item]) -> None:
    """Check that no two items have one id.

    Raises:
        ValueError: naming the two images.
    """
    seen: dict[str, Item] = {}
    for item in items:
        if item.id in seen:
            raise ValueError(
                f"{item.image} and {seen[item.id].image} have the same name; "
                "results are stored by name, so rename one of them"
            )
        seen[item.id] = item


def refuse_other_size(item: Item, label: tuple[int, ...], image: tuple[int, ...]) -> None:
    """Compare the sizes (H, W) of a label and its image.

    Raises:
        ValueError: if they differ, naming both files.
    """
    if label != image:
        raise ValueError(
            f"{item.label} has {by(label)} pixels, its image {item.image} has {by(image)} "
            "(rows x columns); a label must have the size of its image"
        )


def by(size: Iterable[int]) -> str:
    """A size in words: 360x480, rows first."""
    return "x".join(map(str, size))


def safe_name(name: str) -> str:
    """A relative path for an image's id: slashes part folders, other unsafe signs become %XX."""
    parts = [
        _UNSAFE.sub(lambda sign: "".join(f"%{byte:02X}" for byte in sign[0].encode()), part)
        for part in name.split("/")
    ]
    return "/".join("_" if part in {"", ".", ".."} else part for part in parts)
