"""Cityscapes: streets of 27 European cities by day, 19 classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from datasets.base import Item, SegDataset
from datasets.files import by_key, image_files, pair
from datasets.items import NamedSplit
from datasets.taxonomy import ROAD, ROAD_LABEL_IDS, ROAD_TRAIN_IDS

_OFFICIAL = ("train", "val", "test")
_NAMED = {
    "relis_cal": NamedSplit("val", ("munster", "lindau")),
    "relis_test": NamedSplit("val", ("frankfurt",)),
}


class Cityscapes(SegDataset):
    """Cityscapes with fine annotations, 1024x2048, 34 label ids mapped to 19 classes.

    The scene of an item is its city. The labels of the official test split are void throughout;
    ``relis_cal`` (munster and lindau) and ``relis_test`` (frankfurt) divide val by city.
    """

    name = "cityscapes"
    splits = (*_OFFICIAL, *_NAMED)
    defaults: ClassVar[dict[str, Any]] = {"crop_size": (768, 768), "train_transform": "resize"}
    layout = """\
  leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png ...
  gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png ...
  (val and test alike)"""
    classes = ROAD
    train_ids = ROAD_TRAIN_IDS
    named_splits: ClassVar[Mapping[str, NamedSplit]] = _NAMED
    label_ending = "_gtFine_labelIds"

    def files(self) -> list[Item]:
        """The pairs of every scene of the split."""
        part = self.named_splits.get(self.split, NamedSplit(self.split))
        images = self.require(self.root / "leftImg8bit" / part.folder)
        labels = self.require(self.root / "gtFine" / part.folder)
        pairs = pair(
            by_key(image_files(images, "*/*"), images, "_leftImg8bit"),
            by_key(image_files(labels, "*/*"), labels, self.label_ending),
        )
        items = [
            Item(self.id_of(*key.split("/")), image, label, key.split("/")[0])
            for key, image, label in pairs
        ]
        return part.choose(items, f"split {part.folder!r} of {self.name} in {self.root}")

    def id_of(self, scene: str, name: str) -> str:
        """The id of an image by its scene and its name without ending."""
        return name

    def decode_label(self, train_ids: Tensor) -> Tensor:
        """Map train ids to label ids, which the server reads; void becomes 0, unlabelled."""
        table = torch.zeros(256, dtype=torch.uint8, device=train_ids.device)
        table[: len(ROAD_LABEL_IDS)] = torch.tensor(ROAD_LABEL_IDS, dtype=torch.uint8)
        return table[train_ids.long()]
