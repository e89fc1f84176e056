"""COCO 2014 as a segmentation data set, with the layout and the 91 ids of weak supervision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from datasets.base import Item, SegDataset
from datasets.taxonomy_coco import COCO, COCO_TRAIN_IDS
from datasets.voc import listed_items

_SUBFOLDERS = ("train2014", "val2014")  # of the images, as the archives unpack


class COCO14(SegDataset):
    """COCO 2014 in the layout of VOC: 82,081 training and 40,137 validation images.

    The label files hold COCO's category ids, 0 for background and 255 for void. All 91 ids are
    classes, as in the published networks, though ten of them are never annotated.
    """

    name = "coco14"
    background = 0
    splits = ("train", "val")
    defaults: ClassVar[dict[str, Any]] = {"crop_size": (513, 513), "train_transform": "scale_crop"}
    layout = """\
  images/COCO_train2014_000000000009.jpg ...   (or in images/train2014 and images/val2014)
  voc_format/class_labels/COCO_train2014_000000000009.png ...
  voc_format/train.txt, val.txt   (an id a line)"""
    classes = COCO
    train_ids = COCO_TRAIN_IDS

    def files(self) -> list[Item]:
        """The images that the split's list names, with their labels."""
        list_file = self.require(self.root / "voc_format" / f"{self.split}.txt")
        labels = self.root / "voc_format" / "class_labels"
        images = self.root / "images"
        return listed_items(
            list_file, (self._images(images), images), (self.labels_in(labels), labels)
        )

    def _images(self, folder: Path) -> dict[str, Path]:
        """The images of a folder and of its two subfolders, by name."""
        found = self.images_in(folder)
        for part in _SUBFOLDERS:
            if (folder / part).is_dir():
                found |= self.images_in(folder / part)
        return found
