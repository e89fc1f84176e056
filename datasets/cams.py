"""Class activation maps on disk: one file for each image, a manifest, and their reader."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import SegDataset
from datasets.cam_files import (
    CAM_ENDING,
    decode_cams,
    inspect_cams,
    is_cam,
    read_arrays,
    read_classes,
)
from datasets.files import listing
from datasets.items import Item
from datasets.map_folders import (
    MANIFEST,
    MapFile,
    MapKind,
    MapReader,
    classes_of,
    words_of_data,
)
from datasets.parallel import threaded
from datasets.png_files import DamagedMapError, Size
from datasets.taxonomy import SegClass, names_of
from utils.log import logger


def cam_size(path: Path) -> Size:
    """(H, W) of a file of class activation maps, after a check of every byte.

    Raises:
        DamagedMapError: if it is damaged.
    """
    return inspect_cams(path.read_bytes())


CAMS = MapKind(
    content="class activation maps",
    files=(MapFile(CAM_ENDING, cam_size, is_cam),),
    folder_flag="cam_dir",
    action_flag="make_cams",
    native=True,
    identity=("inference", "background", "tags"),
)


class CamReader(MapReader):
    """Reads class activation maps: call it with an item for its classes and their maps.

    A folder without a manifest may hold those of another program: ``ID_cam.npz`` for every image,
    written by ``numpy.savez`` with ``classes`` (K,), train ids of the data set, and ``maps``
    (K, H, W), numbers in [0, 1] at the image's own size. What they were made of is then unknown.

    Args:
        directory: where the maps are.

    Attributes:
        classes: what the train ids stand for; None for maps of another program until ``check``.
        background: train id of the class that has no map; of other programs' maps from ``check``.

    Raises:
        ValueError: if the folder holds no such maps, or its manifest is damaged or of something
            else.
    """

    kind = CAMS

    def __init__(self, directory: Path | str) -> None:
        super().__init__(directory)
        self.classes: tuple[SegClass, ...] | None = None
        self.background: int | None = None
        if self.manifest is not None:
            self.classes = classes_of(self.manifest, self.directory / MANIFEST, self.kind)
        elif not next(self.directory.rglob(f"*{CAM_ENDING}"), None):
            raise ValueError(
                f"class activation maps are needed: {listing(self.directory)}. Name their folder"
                f" (with a {MANIFEST}, or *{CAM_ENDING} of another program) with --cam_dir, or"
                " make them with\n  python main.py --make_cams --ckpt CHECKPOINT --dataset NAME"
                f" --data_root DIR --cam_dir {shlex.quote(str(self.directory))}"
            )

    def __call__(self, item: Item) -> tuple[Tensor, Tensor]:
        """Train ids (K,) int64, ascending, and maps (K, H, W) float32 in [0, 1] of an item.

        Raises:
            ValueError: if the file is missing or damaged, or a class or a value in it cannot be,
                naming the file.
        """
        path = self.path(item)
        classes, maps = self.read(path, _read_other if self.manifest is None else _read_cams)
        self._refuse_other_classes(classes, path)
        return torch.from_numpy(classes), torch.from_numpy(maps)

    def inspect(self, item: Item) -> Size:
        """(H, W) of the maps of an item.

        Raises:
            ValueError: if its file is missing or damaged, naming it.
        """
        if self.manifest is not None:
            return super().inspect(item)
        height, width = self(item)[1].shape[1:]
        return height, width

    def check(self, dataset: SegDataset) -> None:
        """Refuse maps that are missing, damaged or not of this data set and its classes.

        Maps of another program are decoded here; of this program's the checksums are compared.

        Raises:
            ValueError: saying what is wrong and which command makes the maps.
        """
        if self.manifest is not None:
            self.refuse_other_origin(dataset)
        else:
            self.classes, self.background = dataset.classes, dataset.background
            logger.warning(
                "the maps in %s have no %s: what they were made of is unknown",
                self.directory,
                MANIFEST,
            )
        assert self.classes is not None
        if dataset.class_names != names_of(self.classes):
            what = f"are of {len(self.classes)} classes that are not the {dataset.num_classes}"
            raise self.of_other_origin(f"{what} of {dataset.name}", dataset)
        self.refuse_missing(dataset)
        self.refuse_damaged(dataset)

    def check_tags(self, dataset: SegDataset) -> None:
        """Refuse maps that lack one of a class with which their image is tagged.

        Args:
            dataset: the images, with their tags.

        Raises:
            ValueError: naming the first such file and the class.
        """
        tags = dataset.tags
        assert tags is not None, "check_tags compares with the images' tags"

        def lacking(index: int) -> NDArray[np.int64]:
            """Train ids that an item is tagged with and has no map of."""
            item = dataset.items[index]
            tagged = np.flatnonzero(tags(item).numpy())
            tagged = tagged[tagged != dataset.background]
            return np.setdiff1d(tagged, self.read(self.path(item), read_classes))

        for index, found in enumerate(threaded(lacking, len(dataset), "Maps and tags")):
            if found.size:
                raise ValueError(
                    f"{self.path(dataset.items[index])} has no map of"
                    f" {dataset.class_names[found[0]]}, with which {dataset.items[index].id} is"
                    " tagged: make the maps from the same --image_tags"
                )

    def remedy(self) -> str:
        """How to complete the folder."""
        if self.manifest is None:
            return "put it right, or make maps in another --cam_dir with --make_cams"
        return super().remedy()

    def making_command(self, dataset: SegDataset) -> str:
        """The command that makes a data set's maps, but for the checkpoint and the image labels."""
        words = ["--make_cams", "--ckpt", "CHECKPOINT", *words_of_data(dataset)]
        return shlex.join(["python", "main.py", *words, "--cam_dir", str(self.directory)])

    def _refuse_other_classes(self, classes: NDArray[np.int64], path: Path) -> None:
        """Refuse train ids that stand for no class."""
        if self.classes is None or not classes.size:
            return
        if classes[0] < 0 or classes[-1] >= len(self.classes):
            wrong = classes[-1] if classes[0] >= 0 else classes[0]
            raise ValueError(
                f"{path} holds a map of class {wrong}; its classes have to be train ids 0 to"
                f" {len(self.classes) - 1}"
            )
        if self.background in classes:
            raise ValueError(
                f"{path} holds a map of class {self.background}, the background, which follows"
                " from the others: leave it out, and mind that classes are train ids"
            )


def _read_cams(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    classes, maps = decode_cams(path.read_bytes())
    return classes, maps.astype(np.float32)


def _read_other(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Classes, sorted, and maps of another program's file.

    Raises:
        DamagedMapError: saying what about them is wrong.
    """
    classes, maps = read_arrays(path.read_bytes())
    _refuse_other_shapes(classes, maps)
    order = np.argsort(classes, kind="stable")
    classes, maps = classes[order].astype(np.int64), maps[order].astype(np.float32)
    if (np.diff(classes) == 0).any():
        raise DamagedMapError("it holds two maps of one class")
    if not ((maps >= 0) & (maps <= 1)).all():
        raise DamagedMapError("its maps have values outside [0, 1]")
    return classes, maps


def _refuse_other_shapes(classes: NDArray[Any], maps: NDArray[Any]) -> None:
    """Refuse arrays that are not K whole numbers and K maps."""
    numbers = classes.ndim == 1 and (classes.dtype.kind in "iu" or not classes.size)
    if not numbers or maps.ndim != 3 or maps.dtype.kind != "f" or len(maps) != len(classes):
        raise DamagedMapError(
            f"it holds classes {classes.dtype} {classes.shape} and maps {maps.dtype}"
            f" {maps.shape}, not whole numbers (K,) and floats (K, H, W)"
        )
