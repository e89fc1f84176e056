"""GTA5: streets of a computer game, 19 classes."""

from __future__ import annotations

from typing import Any, ClassVar

from datasets.base import Item, SegDataset
from datasets.files import pair
from datasets.taxonomy import ROAD
from datasets.taxonomy_adaptation import GTA5_TRAIN_IDS

_EVERY = 50  # so many images by name to one of val


class GTA5(SegDataset):
    """Playing for Data (GTA5), 24966 images of about 1052x1914 pixels with the ids of Cityscapes.

    ``train`` are all images, on which published work trains. For a choice of settings without
    another data set, ``val`` is every fiftieth image by name and ``train_part`` are the others;
    what was trained on ``train`` has seen ``val``.
    """

    name = "gta5"
    splits = ("train", "train_part", "val")
    defaults: ClassVar[dict[str, Any]] = {
        "crop_size": (512, 1024),
        "train_transform": "resize_crop",
        "input_size": (720, 1280),
        "scale_range": (0.8, 1.2),
        "crop_classes": 10,
        "flip": 0.5,
        "val_batch_size": 1,  # images differ in size
    }
    layout = """\
  images/00001.png ...
  labels/00001.png ..."""
    classes = ROAD
    train_ids = GTA5_TRAIN_IDS
    image_folder: ClassVar[str] = "images"
    label_folder: ClassVar[str] = "labels"

    def files(self) -> list[Item]:
        """The pairs of the split."""
        pairs = pair(
            self.images_in(self.root / self.image_folder),
            self.labels_in(self.root / self.label_folder),
        )
        return [Item(*names) for place, names in enumerate(pairs) if self._has(place)]

    def _has(self, place: int) -> bool:
        """Whether the image at a place among all, sorted by name, belongs to the split."""
        return self.split == "train" or (place % _EVERY == 0) == (self.split == "val")
