"""Streets: generated road scenes with the 19 classes of Cityscapes, by day and in bad weather."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import count, islice, takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import Item, SegDataset
from datasets.items import NamedSplit
from datasets.streets.look import CONDITIONS, GAME, LOOKS
from datasets.streets.paints import Surface
from datasets.streets.planning import SPLITS
from datasets.streets.render import Picture, render
from datasets.streets.towns import TOWNS
from datasets.taxonomy import (
    ROAD,
    ROAD_LABEL_IDS,
    ROAD_TRAIN_IDS,
    STREET_OBJECTS,
    STREET_OBJECTS_TRAIN_IDS,
    SegClass,
)
from utils.types import IGNORE_INDEX

ADVERSE = tuple(condition for condition in CONDITIONS if condition != "clear")
NUM_IMAGES = {"train": 500, "val": 100, "test": 100}
_NAMED = {
    "relis_cal": NamedSplit("val", ("marienfurt",)),
    "relis_test": NamedSplit("val", ("nordwick", "vallenstein")),
}
_DEFAULT_SIZE = (128, 256)
_VERSION = 1  # changes whenever the same seed gives other pixels


class Streets(SegDataset):
    """Generated road scenes; nothing is read, and the same numbers give the same pixels.

    A scene follows from (scene_seed, split, index) alone: the same index shows the same scene
    with the same label in every condition. The scene of an item is its town; no town is in two
    splits. Labels miss borders by up to a pixel here and there; the ego vehicle and street
    furniture without a class are void. ``relis_cal`` and ``relis_test`` divide val by town.

    Args:
        root: not used.
        split: train, val, test, relis_cal or relis_test.
        condition: clear (also None), fog, night, rain or snow; "adverse" for the four in turn;
            "game" for the look of a computer game.
        image_size: (H, W) of the images; other sizes show the same scenes. None for the smallest
            twice as wide as high that the transform's resize does not enlarge, else 128x256.
        num_images: images in the split; None for 500 (train) or 100, which the parts of val share.
        scene_seed: of the scenes; ``seed`` concerns the random transforms only.
        common: what every data set takes (see ``SegDataset``).

    Raises:
        ValueError: for an unknown condition or split, or a size or number below 1.
    """

    name = "streets"
    splits = (*SPLITS, *_NAMED)
    needs_root = False
    # street furniture without a class
    usual_ood_ids: ClassVar[tuple[int, ...]] = (Surface.STATIC, Surface.DYNAMIC)
    defaults: ClassVar[dict[str, Any]] = {
        "crop_size": (128, 256),
        "train_transform": "resize",
        "flip": 0.5,
        "batch_size": 8,
        "val_batch_size": 10,
        # from random weights the backbone learns as fast as the head, and its batch norms must
        # follow within a few hundred steps
        "pretrained_backbone": "none",
        "backbone_lr_factor": 1.0,
        "bn_momentum": 0.1,
        "optimizer": "adam",
        "lr": 1e-3,
        "total_itrs": 300,
        "val_interval": 100,
        "train_split": "train",
        "val_split": "val",
    }
    layout = "  nothing: the scenes are generated"
    classes: tuple[SegClass, ...] = ROAD
    train_ids: Mapping[int, int] = ROAD_TRAIN_IDS
    has_obstacles: ClassVar[bool] = False
    few_objects: ClassVar[bool] = False

    def __init__(
        self,
        root: Path | str | None,
        split: str,
        *,
        condition: str | None = None,
        image_size: tuple[int, int] | None = None,
        num_images: int | None = None,
        scene_seed: int = 0,
        **common: Any,
    ) -> None:
        if condition not in (None, *LOOKS, "adverse"):
            raise ValueError(
                f"streets has no condition {condition!r}; its conditions are "
                f"{', '.join(CONDITIONS)}, adverse (the last four in turn) and {GAME}"
            )
        if image_size is not None and min(image_size) < 16:
            raise ValueError(f"image_size must be at least 16x16, not {image_size}")
        if num_images is not None and num_images < 1:
            raise ValueError(f"num_images must be 1 or more, not {num_images}")
        self.conditions = ADVERSE if condition == "adverse" else (condition or "clear",)
        self._image_size = image_size
        self.num_images = num_images
        self.scene_seed = scene_seed
        self._part = _NAMED.get(split, NamedSplit(split))
        self._numbers: dict[str, int] = {}  # the place in the official split of an id
        self._drawn: tuple[str, NDArray[np.uint8]] | None = None  # id and label ids
        if self.has_obstacles and not common.get("ood_ids"):
            common["ood_ids"] = self.usual_ood_ids
        super().__init__(root, split, **common)

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) at which the scenes are drawn."""
        if self._image_size is not None:
            return self._image_size
        # labels from elsewhere have the size at which they were made
        seen = self.transform.seen_size if self.label_source is None else self.transform.size
        if seen is None:
            return _DEFAULT_SIZE
        height = max(seen[0], -(-seen[1] // 2))
        return height, 2 * height

    def files(self) -> list[Item]:
        """The items of the split, which have no files."""
        towns = TOWNS[self._part.folder]
        items = []
        for index in self._scene_numbers():
            town = towns[index % len(towns)].name
            condition = self.conditions[index % len(self.conditions)]
            item = Item(f"{town}_{index:06d}_{condition}", None, None, town, condition)
            self._numbers[item.id] = index
            items.append(item)
        return items

    def _scene_numbers(self) -> Iterator[int]:
        """The places in the official split of the scenes to be drawn, ascending."""
        folder, chosen = self._part
        names = [town.name for town in TOWNS[folder]]
        numbers = (n for n in count() if not chosen or names[n % len(names)] in chosen)
        if self.num_images is not None:
            return islice(numbers, self.num_images)
        return takewhile(lambda n: n < NUM_IMAGES[folder], numbers)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Draw an item: image (3, H, W) uint8 and train ids (H, W) uint8."""
        picture = self._render(index)
        if not self.reads_labels:
            return torch.from_numpy(picture.image), self.other_label(index)
        if self.ood_ids:  # read next, and drawing takes time
            self._drawn = (self.originals[index].id, picture.label_ids)
        table = self.label_map.table
        return torch.from_numpy(picture.image), torch.from_numpy(table[picture.label_ids])

    def read_raw_label(self, index: int) -> Tensor:
        """The label ids (H, W) uint8 of Cityscapes, as its label files would hold them."""
        if not self.reads_labels:
            return self.other_label(index)
        drawn, self._drawn = self._drawn, None
        if drawn is not None and drawn[0] == self.originals[index].id:
            return torch.from_numpy(drawn[1])
        return torch.from_numpy(self._render(index).label_ids)

    def _render(self, index: int) -> Picture:
        item = self.originals[index]
        number, condition = self._numbers[item.id], item.condition
        return render(
            self.scene_seed,
            self._part.folder,
            number,
            condition,
            self.image_size,
            has_obstacles=self.has_obstacles,
            few_objects=self.few_objects,
        )

    def decode_label(self, train_ids: Tensor) -> Tensor:
        """Map train ids to the label ids of Cityscapes; void becomes 0."""
        table = torch.zeros(256, dtype=torch.uint8)
        table[: len(ROAD_LABEL_IDS)] = torch.tensor(ROAD_LABEL_IDS, dtype=torch.uint8)
        return table[train_ids.long()]

    def native_size(self, index: int) -> tuple[int, int]:
        """(H, W) at which the scenes are drawn."""
        del index
        return self.image_size

    def origins(self) -> frozenset[str]:
        """``streets/seed/town_index`` of every scene, the same in every condition."""
        return frozenset(
            f"{Streets.name}/{self.scene_seed}/{item.id.removesuffix(f'_{item.condition}')}"
            for item in self.originals
        )

    def content_fingerprint(self) -> str:
        """SHA-256 over everything that the pixels follow from."""
        content = (
            self.name, _VERSION, self.split, self.conditions, self.image_size, len(self),
            self.scene_seed, *(self.scenes or ()),
        )  # fmt: skip
        return hashlib.sha256(repr(content).encode()).hexdigest()


class StreetsObstacles(Streets):
    """The scenes of ``streets`` with one to four unknown obstacles on or beside the road.

    The obstacles (crates, tyres, animals, ...) belong to no class and stand in no scene of
    ``streets``; all else of a scene, its towns and its splits are the same. Samples always have
    "ood": 1 for obstacles, which are void in the label, 0 for the classes, else 255.
    """

    name = "streets_obstacles"
    usual_ood_ids = (Surface.OBSTACLE,)
    train_ids = MappingProxyType({**ROAD_TRAIN_IDS, Surface.OBSTACLE: IGNORE_INDEX})
    has_obstacles = True
    component_sizes: ClassVar[tuple[int, int]] = (20, 10)  # for 128x256
    defaults: ClassVar[dict[str, Any]] = {
        **Streets.defaults,
        "metrics": ["segmentation", "ood", "components"],
    }


class StreetsObjects(Streets):
    """Scenes of ``streets`` as a data set of objects: background and eight classes.

    In every scene some kinds of road users are missing and none is far away, so that image-level
    labels (``--image_tags masks``) differ from image to image; all else of a scene, its towns and
    its splits are those of ``streets``. Whatever is no road user is background.
    """

    name = "streets_objects"
    background = 0
    usual_ood_ids: ClassVar[tuple[int, ...]] = ()
    classes = STREET_OBJECTS
    train_ids = STREET_OBJECTS_TRAIN_IDS
    few_objects = True

    def decode_label(self, train_ids: Tensor) -> Tensor:
        """The train ids themselves: no server expects others."""
        return train_ids
