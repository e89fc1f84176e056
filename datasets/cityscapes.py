"""Cityscapes: streets of 27 European cities by day, 19 classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from datasets.base import Item, SegDataset
from datasets.files import pair
from datasets.items import NamedSplit
from datasets.taxonomy import ROAD, ROAD_LABEL_IDS, ROAD_TRAIN_IDS, SegClass

_OFFICIAL = ("train", "val", "test")
_COARSE = "train_extra"
_NUM_FOLDS = 3
_FOLDS = tuple(f"{part}_cv{fold}" for fold in range(_NUM_FOLDS) for part in ("train", "val"))
_NAMED = {
    "relis_cal": NamedSplit("val", ("munster", "lindau")),
    "relis_test": NamedSplit("val", ("frankfurt",)),
}


class Cityscapes(SegDataset):
    """Cityscapes with fine annotations, 1024x2048, 34 label ids mapped to 19 classes.

    The scene of an item is its city. The labels of the official test split are void throughout;
    ``relis_cal`` (munster and lindau) and ``relis_test`` (frankfurt) divide val by city.
    ``train_extra`` are the 19998 images of further cities with coarse annotations.

    ``train_cvK`` and ``val_cvK`` divide the official train and val by city, in the order of val's
    and then train's sorted names: of n cities, of which v are in val, fold K of 0, 1, 2 holds out
    v from place K n // 3 on. Fold 0 is the official division; the others train on the official
    val cities, so that their results compare with no others.

    The folders of the archives (``leftImg8bit_trainvaltest``, ``leftImg8bit_trainextra``,
    ``gtFine_trainvaltest``, ``gtCoarse``) may be kept.
    """

    name = "cityscapes"
    splits = (*_OFFICIAL, _COARSE, *_FOLDS, *_NAMED)
    defaults: ClassVar[dict[str, Any]] = {"crop_size": (768, 768), "train_transform": "resize"}
    layout = """\
  leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png ...
  gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png ...
  (val and test alike; split train_extra:)
  leftImg8bit/train_extra/augsburg/augsburg_000000_000000_leftImg8bit.png ...
  gtCoarse/train_extra/augsburg/augsburg_000000_000000_gtCoarse_labelIds.png ..."""
    classes: tuple[SegClass, ...] = ROAD
    train_ids = ROAD_TRAIN_IDS
    named_splits: ClassVar[Mapping[str, NamedSplit]] = _NAMED
    label_ending = "_gtFine_labelIds"

    def files(self) -> list[Item]:
        """The pairs of every scene of the split."""
        if self.split in _FOLDS:
            return self._fold(*self.split.split("_cv"))
        part = self.named_splits.get(self.split, NamedSplit(self.split))
        items = self._items(part.folder)
        return part.choose(items, f"split {part.folder!r} of {self.name} in {self.root}")

    def _fold(self, part: str, fold: str) -> list[Item]:
        """The items of ``train`` or ``val`` of a fold, in the order of their cities."""
        held_out = self._items("val")
        items = [*held_out, *self._items("train")]
        cities = list(dict.fromkeys(item.scene for item in items))  # sorted in each of the two
        first = int(fold) * len(cities) // _NUM_FOLDS
        chosen = cities[first : first + len({item.scene for item in held_out})]
        return [item for item in items if (item.scene in chosen) == (part == "val")]

    def _items(self, folder: str) -> list[Item]:
        """The pairs of every scene of an official split."""
        images, labels, ending = self._folders(folder)
        pairs = pair(
            self.images_in(images, "*/*", "_leftImg8bit"), self.labels_in(labels, "*/*", ending)
        )
        return [
            Item(self.id_of(*key.split("/")), image, label, key.split("/")[0])
            for key, image, label in pairs
        ]

    def _folders(self, folder: str) -> tuple[Path, Path, str]:
        """Where images and labels of an official split are, and how the labels' names end."""
        if folder == _COARSE:
            images = self._inside("leftImg8bit_trainextra", "leftImg8bit", folder)
            return images, self._inside("gtCoarse", "gtCoarse", folder), "_gtCoarse_labelIds"
        images = self._inside("leftImg8bit_trainvaltest", "leftImg8bit", folder)
        return images, self._inside("gtFine_trainvaltest", "gtFine", folder), self.label_ending

    def _inside(self, archive: str, kind: str, folder: str) -> Path:
        """A split's folder, directly below the root or below its archive's own folder."""
        inside = self.root / archive / kind / folder
        return inside if inside.is_dir() else self.root / kind / folder

    def id_of(self, scene: str, name: str) -> str:
        """The id of an image by its scene and its name without ending."""
        return name

    def decode_label(self, train_ids: Tensor) -> Tensor:
        """Map train ids to label ids, which the server reads; void becomes 0, unlabelled."""
        table = torch.zeros(256, dtype=torch.uint8, device=train_ids.device)
        table[: len(ROAD_LABEL_IDS)] = torch.tensor(ROAD_LABEL_IDS, dtype=torch.uint8)
        return table[train_ids.long()]
