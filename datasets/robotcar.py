"""Oxford RobotCar with nine classes, and Cityscapes with the same nine."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from datasets.base import Item, SegDataset
from datasets.cityscapes import Cityscapes
from datasets.files import pair, read_first_channel
from datasets.taxonomy import SegClass
from datasets.taxonomy_adaptation import (
    CITYSCAPES_ROBOTCAR_TRAIN_IDS,
    ROBOTCAR,
    ROBOTCAR_TRAIN_IDS,
)


class RobotCar(SegDataset):
    """Oxford RobotCar as prepared for segmentation, 960x1280, 894 train and 271 val images.

    The images of train have no labels: they are target images, or have pseudo labels. Class ids
    are in the first channel of the labels of val. The scene of an item is its sequence.

    Raises:
        ValueError: as ``SegDataset`` does, and if labels of train are asked for.
    """

    name = "robotcar"
    splits = ("train", "val")
    defaults: ClassVar[dict[str, Any]] = {
        "crop_size": (512, 1024),
        "train_transform": "resize_crop",
        "input_size": (960, 1280),
        "scale_range": (0.8, 1.2),
        "crop_classes": 4,
        "flip": 0.5,
    }
    layout = """\
  train/2015-07-24-14-17-50_01/000001.png ...   (no labels)
  val/2014-11-25-09-18-32_01_000038.png ...
  anno/2014-11-25-09-18-32_01_000038.png ...   (class id in the first channel)"""
    classes = ROBOTCAR
    train_ids = ROBOTCAR_TRAIN_IDS
    read_ids = staticmethod(read_first_channel)

    def files(self) -> list[Item]:
        """The images of every sequence, or the pairs of val."""
        images = self.images_in(self.root / self.split, "**/*")
        if self.split == "val":
            pairs = pair(images, self.labels_in(self.root / "anno", "**/*"))
        elif self.reads_labels:
            raise ValueError(
                "split 'train' of robotcar has no labels to train or to be measured on: give it as"
                " --target_dataset robotcar, or train on pseudo labels with --method rectified"
            )
        else:
            pairs = pair(images, None)
        return [
            Item(key.replace("/", "_"), image, label, scene_of(key)) for key, image, label in pairs
        ]


def scene_of(key: str) -> str:
    """The sequence in ``SEQUENCE/NUMBER`` or ``SEQUENCE_NUMBER``."""
    return key.replace("/", "_").rpartition("_")[0]


class CityscapesRobotCar(Cityscapes):
    """Cityscapes with the nine classes of Oxford RobotCar.

    Car, truck and bus are automobile; motorcycle and bicycle two-wheel; person and rider person;
    what RobotCar does not label is void. All else is as in ``cityscapes``.
    """

    name = "cityscapes_robotcar"
    defaults: ClassVar[dict[str, Any]] = {
        "crop_size": (512, 1024),
        "train_transform": "resize_crop",
        "input_size": (720, 1280),
        "scale_range": (1.0, 1.0),
        "flip": 0.5,
    }
    classes: tuple[SegClass, ...] = ROBOTCAR
    train_ids = CITYSCAPES_ROBOTCAR_TRAIN_IDS

    def decode_label(self, train_ids: Tensor) -> Tensor:
        """The train ids: no server takes these classes."""
        return train_ids

    def origins(self) -> frozenset[str]:
        """``cityscapes/id`` of every image: they are the same images."""
        return frozenset(f"{Cityscapes.name}/{item.id}" for item in self.originals)
