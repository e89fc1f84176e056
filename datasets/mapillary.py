"""Mapillary Vistas v1.1: streets all over the world, 65 classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from datasets.base import Item, SegDataset
from datasets.files import pair
from datasets.taxonomy_mapillary import MAPILLARY, MAPILLARY_TRAIN_IDS, MAPILLARY_UNLABELLED

_FOLDERS = {"train": "training", "val": "validation"}


class Mapillary(SegDataset):
    """Mapillary Vistas v1.1, 18000 train and 2000 val images of many sizes, 65 classes.

    Label ids are train ids; 65, unlabelled, is void. Where there is a ``config.json``, its labels
    must be those of v1.1 (v1.2 has the same, v2.0 has others).
    """

    name = "mapillary"
    splits = tuple(_FOLDERS)
    defaults: ClassVar[dict[str, Any]] = {
        "crop_size": (896, 896),
        "train_transform": "scale_crop",
        "val_batch_size": 1,  # images differ in size
    }
    layout = """\
  config.json
  training/images/M2kh294N9c72sICO990Uew.jpg ...
  training/labels/M2kh294N9c72sICO990Uew.png ...
  (validation alike)"""
    classes = MAPILLARY
    train_ids = MAPILLARY_TRAIN_IDS

    def files(self) -> list[Item]:
        """The pairs of the split's folder."""
        if (config := self.root / "config.json").is_file():
            refuse_other_labels(config)
        folder = self.root / _FOLDERS[self.split]
        pairs = pair(self.images_in(folder / "images"), self.labels_in(folder / "labels"))
        return [Item(key, image, label) for key, image, label in pairs]


def refuse_other_labels(path: Path) -> None:
    """Check that ``config.json`` names the labels of v1.1 in their order.

    Raises:
        ValueError: if it cannot be read, or with the number of its labels or the first other one.
    """
    try:
        names = [label["readable"] for label in json.loads(path.read_text())["labels"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is no configuration of Mapillary Vistas, a JSON object with a list of"
            f' "labels" that have a name, "readable": {error!r}'
        ) from error
    expected = [entry.name for entry in (*MAPILLARY, MAPILLARY_UNLABELLED)]
    if len(names) != len(expected):
        raise ValueError(
            f"{path} has {len(names)} labels, Mapillary Vistas v1.1 has {len(expected)}: put the"
            " labels of v1.1 there"
        )
    for number, (name, wanted) in enumerate(zip(names, expected, strict=True)):
        if name != wanted:
            raise ValueError(
                f"{path}: label {number} is {name!r}, in Mapillary Vistas v1.1 it is {wanted!r}:"
                " put the labels of v1.1 there"
            )
