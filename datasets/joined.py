"""Several data sets as one, each sample still under the name of its own."""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from itertools import accumulate, count
from pathlib import Path

import torch
from torch import Tensor
from torchvision import tv_tensors

from datasets.base import Item, SampleKey, SegDataset
from datasets.samples import Sample
from utils.types import IGNORE_INDEX


class Joined(SegDataset):
    """The images of several data sets, one after the other.

    Where an id is in several parts, all ids get the folder of their part: ``cityscapes/ID``,
    ``cityscapes_fog-3/ID``. If a part marks unknown objects, the other parts' samples have
    ``ood``, too: 0 for pixels of a class, 255 for void. The classes are those of the parts that
    have some.

    Args:
        parts: data sets of the same or no classes and with the same transform; the parts of a
            joined one are taken by themselves.

    Raises:
        ValueError: if two parts have other classes, or show the same image in the same way.
    """

    name = "joined"
    layout = "  that of each part"

    def __init__(self, parts: Sequence[SegDataset]) -> None:
        parts = [each for part in parts for each in _singles(part)]
        assert parts
        first = parts[0]
        assert all(part.transform == first.transform for part in parts)
        self._with_classes = [part for part in parts if part.classes] or parts
        refuse_other_classes(self._with_classes)
        refuse_repeated_images(parts)
        self.parts = tuple(parts)
        self.name = "+".join(dict.fromkeys(part.name for part in parts))
        self.classes = self._with_classes[0].classes
        self._marks_unknown = any(part.ood_table() is not None for part in parts)
        self._ends = list(accumulate(map(len, parts)))
        roots = {part.root for part in parts}
        super().__init__(
            roots.pop() if len(roots) == 1 else None,
            "+".join(dict.fromkeys(part.split for part in parts)),
            transform=first.transform,
            seed=first.seed,
        )
        self.ood_ids = tuple(sorted({raw for part in parts for raw in part.ood_ids}))

    def check_split(self, known: Iterable[str]) -> None:
        """Each part has checked its own."""

    def files(self) -> list[Item]:
        """The items of all parts, with ids that are unique."""
        return unique_items(self.parts)

    def _place(self, index: int) -> tuple[SegDataset, int]:
        """The part that an item belongs to, and its index there."""
        index = range(len(self))[index]
        place = bisect_right(self._ends, index)
        return self.parts[place], index - (self._ends[place] - len(self.parts[place]))

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) uint8 and train ids (H, W) uint8 of one item, at native size."""
        part, place = self._place(index)
        return part.read(place)

    def read_raw_label(self, index: int) -> Tensor:
        """The ids (H, W) uint8 as the part's label file holds them."""
        part, place = self._place(index)
        return part.read_raw_label(place)

    def decode_label(self, train_ids: Tensor) -> Tensor:
        """Map train ids to the ids that the evaluation servers of all parts expect.

        Raises:
            ValueError: if two servers expect other ids.
        """
        first, *others = self._with_classes
        decoded = first.decode_label(train_ids)
        for part in others:
            if not torch.equal(part.decode_label(train_ids), decoded):
                raise ValueError(
                    f"the servers of {first.name} and {part.name} expect other label ids:"
                    " predict for them one by one"
                )
        return decoded

    def size(self, index: int) -> tuple[int, int]:
        """(H, W) of an item after the transform's resize, without decoding it."""
        part, place = self._place(index)
        return part.size(place)

    def origins(self) -> frozenset[str]:
        """``dataset/id`` of every image, the same in every split and whatever it looks like."""
        return frozenset[str]().union(*(part.origins() for part in self.parts))

    def fingerprint(self) -> str:
        """SHA-256 over the fingerprints of the parts, in order."""
        return _joint_hash(part.fingerprint() for part in self.parts)

    def content_fingerprint(self) -> str:
        """SHA-256 over the parts' files, however their images look."""
        return _joint_hash(part.content_fingerprint() for part in self.parts)

    def prepare(self) -> None:
        """Build or open the caches of the parts."""
        for part in self.parts:
            part.prepare()

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """The sample of a part, under its unique id."""
        assert self.weight is None, "weights belong to the parts"
        key = SampleKey.of(key)
        part, place = self._place(key.index)
        sample = part[key._replace(index=place)]
        sample["id"] = self.items[key.index].id
        if self._marks_unknown and "ood" not in sample:
            label = sample["label"].as_subclass(Tensor)
            sample["ood"] = tv_tensors.Mask(torch.where(label == IGNORE_INDEX, label, 0))
        return sample


def _singles(part: SegDataset) -> Sequence[SegDataset]:
    return part.parts if isinstance(part, Joined) else (part,)


def refuse_other_classes(parts: Sequence[SegDataset]) -> None:
    """Check that all parts have the classes of the first, in the same order.

    Raises:
        ValueError: naming the two data sets and where they part.
    """
    first = parts[0]
    for part in parts[1:]:
        if part.class_names == first.class_names:
            continue
        here, there = (set(each.class_names) for each in (part, first))
        example = ", ".join(sorted(here ^ there)[:3]) or "their order"
        raise ValueError(
            f"{first.name} ({first.num_classes} classes) and {part.name} ({part.num_classes})"
            f" cannot be joined, because their classes differ ({example}): run them one by one"
        )


def refuse_repeated_images(parts: Sequence[SegDataset]) -> None:
    """Check that no image is in two parts with the same look, where it would count twice.

    Raises:
        ValueError: naming the image and the two parts.
    """
    seen: dict[tuple[Path | str, str], SegDataset] = {}
    for part in parts:
        look = repr(part.appearance)
        for item in part.originals:
            first = seen.setdefault((item.image or f"{part.name}/{item.id}", look), part)
            if first is not part:
                raise ValueError(
                    f"{item.id} is in both {first.name} (split {first.split}) and {part.name}"
                    f" (split {part.split}) and would count twice: choose parts without overlap"
                )


def unique_items(parts: Sequence[SegDataset]) -> list[Item]:
    """The items of all parts; if an id is in several, every id gets the folder of its part."""
    items = [list(part.items) for part in parts]
    repeats = Counter(item.id for of_part in items for item in of_part)
    if max(repeats.values()) > 1:
        taken: set[str] = set()
        for place, part in enumerate(parts):
            folder = _free_folder(label_of(part), items[place], taken)
            items[place] = [item._replace(id=f"{folder}/{item.id}") for item in items[place]]
            taken |= {item.id for item in items[place]}
    return [item for of_part in items for item in of_part]


def label_of(part: SegDataset) -> str:
    """A part's data set and, if all its images share one, their condition: ``acdc_fog``.

    Signs other than letters, digits and ``_.+-`` become ``-``.
    """
    conditions = {item.condition for item in part.items}
    shared = conditions.pop() if len(conditions) == 1 else ""
    if not shared and part.appearance is not None:
        shared = part.appearance.name
    return re.sub(r"[^\w.+-]", "-", "_".join(filter(None, (part.name, shared))))


def _free_folder(label: str, items: Sequence[Item], taken: Set[str]) -> str:
    """The label, with the first number at which none of the ids below it is taken."""
    folders = (label if number == 1 else f"{label}_{number}" for number in count(1))
    return next(
        folder for folder in folders if not any(f"{folder}/{item.id}" in taken for item in items)
    )


def _joint_hash(fingerprints: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(fingerprints).encode()).hexdigest()
