"""Pseudo labels on disk: train ids that a network gave to images, with how sure it was."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import SegDataset
from datasets.files import listing
from datasets.items import Item, by
from datasets.label_files import (
    LABEL_ENDING,
    SCORE_ENDING,
    SCORE_LEVELS,
    decode_label,
    decode_score,
    first_bad_value,
    inspect_label,
    inspect_score,
    is_label,
    is_score,
)
from datasets.map_folders import MANIFEST, MapFile, MapKind, MapReader, map_path
from datasets.png_files import Size
from datasets.taxonomy import SegClass, names_of
from utils.types import IGNORE_INDEX


def label_size(path: Path) -> Size:
    """(H, W) of a pseudo label's file, after a check of every byte.

    Raises:
        DamagedMapError: if it is damaged.
    """
    return inspect_label(path.read_bytes())[0]


def score_size(path: Path) -> Size:
    """(H, W) of a score map's file, after a check of every byte.

    Raises:
        DamagedMapError: if it is damaged.
    """
    return inspect_score(path.read_bytes())


LABELS = MapKind(
    content="pseudo labels",
    files=(
        MapFile(LABEL_ENDING, label_size, is_label),
        MapFile(SCORE_ENDING, score_size, is_score),
    ),
    folder_flag="pseudo_dir",
    action_flag="make_pseudo_labels",
    native=True,
    identity=("threshold",),
)


class PseudoLabels(MapReader):
    """Reads pseudo labels: call it with an item for (H, W) uint8 train ids, 255 where rejected.

    They have the images' own sizes, which training and making have in common.

    Args:
        directory: where the labels are.
        threshold: least mean probability of the label at a pixel, in [0, 1]; 0 takes the labels as
            they were made. One above that of the making reads the score maps, which are rounded
            down: up to 1/255 less than the threshold of the making would reject is rejected, too.

    Attributes:
        classes: what the train ids stand for.

    Raises:
        ValueError: if the folder holds no labels, its manifest is damaged or of something else, or
            the threshold is below that of the making, which nothing can bring back.
    """

    kind = LABELS

    def __init__(self, directory: Path | str, threshold: float = 0.0) -> None:
        super().__init__(directory)
        if self.manifest is None:
            raise ValueError(
                f"training needs pseudo labels: {listing(self.directory)}. Name their folder (with"
                f" a {MANIFEST}) with --pseudo_dir, or make them with\n"
                "  python main.py --ckpt CHECKPOINT --dataset NAME --data_root DIR --pseudo_dir"
                f" {shlex.quote(str(self.directory))} --make_pseudo_labels"
            )
        self.classes = _classes_of(self.manifest, self.directory / MANIFEST)
        made_with = self.manifest["threshold"]
        if not 0 <= threshold <= 1:
            raise ValueError(f"--pseudo_threshold {threshold:g} is no probability in [0, 1]")
        if 0 < threshold < made_with:
            raise ValueError(
                f"--pseudo_threshold {threshold:g} is below {made_with:g}, with which the labels in"
                f" {self.directory} were made: what that rejected is gone. Give {made_with:g} or"
                " more, or make labels with the lower threshold in another --pseudo_dir"
            )
        levels = np.arange(SCORE_LEVELS + 1) / SCORE_LEVELS
        rejected = np.where(levels >= threshold, 0, IGNORE_INDEX).astype(np.uint8)
        self._rejected = rejected if threshold > made_with else None  # (256,), by level

    def __call__(self, item: Item) -> Tensor:
        """The label of an item.

        Raises:
            ValueError: if a file is missing or damaged or holds a value that is no class, naming
                the file and the value.
        """
        path = self.path(item)
        label = self.read(path, _read_label)
        bad = first_bad_value(label, len(self.classes))
        if bad is not None:
            raise ValueError(
                f"the pseudo label {path} holds the value {bad}; it has to hold train ids 0 to"
                f" {len(self.classes) - 1} of the {len(self.classes)} classes in {MANIFEST}, or"
                f" {IGNORE_INDEX} for a rejected pixel"
            )
        if self._rejected is not None:
            levels = self.read(self.score_path(item), _read_score)
            self._refuse_other_size(item, levels.shape, label.shape)
            label = np.maximum(label, cv2.LUT(levels, self._rejected))  # 255 is the greatest
        return torch.from_numpy(label)

    def score_path(self, item: Item) -> Path:
        """The file that says how sure the network was of an item's label."""
        return map_path(self.directory, item, SCORE_ENDING)

    def inspect(self, item: Item) -> Size:
        """(H, W) of the label of an item.

        Raises:
            ValueError: as a call does, though files of this program need no decoding for it.
        """
        size, classes = self.read(self.path(item), _inspect_label)
        if classes != len(self.classes):
            self(item)
        elif self._rejected is not None:
            self._refuse_other_size(item, self.read(self.score_path(item), score_size), size)
        return size

    def _refuse_other_size(self, item: Item, scores: tuple[int, ...], label: Size) -> None:
        if scores != label:
            raise ValueError(
                f"{self.score_path(item)} has {by(scores)} pixels, its label {self.path(item)} has"
                f" {by(label)}: {self.remedy()}"
            )

    def check(self, dataset: SegDataset) -> None:
        """Refuse labels that are missing, damaged or not of this data set, its size and classes.

        A file of another tool may hold anything and is decoded here; one of this program's only
        has its checksums compared.

        Args:
            dataset: opened without label files, with the classes of these labels.

        Raises:
            ValueError: saying what is wrong and which command makes the labels.
        """
        assert not dataset.reads_labels, "pseudo labels take the place of label files"
        self.refuse_other_origin(dataset)
        if dataset.class_names != names_of(self.classes):
            what = f"are of {_named(self.classes)}, training is on {_named(dataset.classes)}"
            raise self.of_other_origin(what, dataset)
        self.refuse_missing(dataset)
        self.refuse_damaged(dataset)

    def making_command(self, dataset: SegDataset) -> str:
        """The command that makes a data set's labels, but for the checkpoint."""
        return making_command(dataset, self.directory)


def making_command(dataset: SegDataset, directory: Path) -> str:
    """The command that makes a data set's pseudo labels, but for the checkpoint."""
    words = ["--ckpt", "CHECKPOINT", "--dataset", dataset.name, "--train_split", dataset.split]
    words += ["--data_root", str(dataset.root)] if dataset.needs_root else []
    words += ["--pseudo_dir", str(directory), "--make_pseudo_labels"]
    return shlex.join(["python", "main.py", *words])


def _classes_of(manifest: dict[str, Any], path: Path) -> tuple[SegClass, ...]:
    """The classes that a manifest names.

    Raises:
        ValueError: if it names none or has no threshold.
    """
    try:
        float(manifest["threshold"])
        return tuple(SegClass(one["name"], tuple(one["colour"])) for one in manifest["classes"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} is damaged (no classes or no threshold): delete it and remake the labels with"
            " --overwrite"
        ) from None


def _named(classes: tuple[SegClass, ...]) -> str:
    names = names_of(classes)
    return f"{len(names)} classes ({', '.join(names[:4])}{', ...' * (len(names) > 4)})"


def _read_label(path: Path) -> NDArray[np.uint8]:
    return decode_label(path.read_bytes())


def _read_score(path: Path) -> NDArray[np.uint8]:
    return decode_score(path.read_bytes())


def _inspect_label(path: Path) -> tuple[Size, int | None]:
    return inspect_label(path.read_bytes())
