"""Pseudo labels on disk: train ids that stand in the place of an image's own labels.

A network gave them to images, with how sure it was; or they are pseudo-masks, made from class
activation maps; or another program made them.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
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
    decode_score,
    first_bad_value,
    inspect_label_file,
    inspect_score,
    is_label,
    is_score,
    read_label,
    read_other_label,
)
from datasets.map_folders import (
    MANIFEST,
    MapFile,
    MapKind,
    MapReader,
    classes_of,
    map_path,
    words_of_data,
)
from datasets.png_files import Size
from datasets.taxonomy import SegClass, names_of
from utils.log import logger
from utils.types import IGNORE_INDEX


def label_size(path: Path) -> Size:
    """(H, W) of a pseudo label's file, after a check of every byte.

    Raises:
        DamagedMapError: if it is damaged.
    """
    return inspect_label_file(path)[0]


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


# The same kind for its readers, made otherwise: without scores, since no network was asked.
PSEUDO_MASKS = replace(
    LABELS,
    files=LABELS.files[:1],
    other_files=LABELS.files[1:],
    action_flag="make_pseudo_masks",
    identity=("cams", "crf", "threshold"),
)


class PseudoLabels(MapReader):
    """Reads pseudo labels: call it with an item for (H, W) uint8 train ids, 255 where rejected.

    They have the images' own sizes, which training and making have in common. A folder without a
    manifest may hold those of another program: ``ID.png`` for every image, grey or with a
    palette, whose values are train ids of the data set, or 255.

    Args:
        directory: where the labels are.
        threshold: least mean probability of the label at a pixel, in [0, 1]; 0 takes the labels as
            they were made. One above that of the making reads the score maps, which are rounded
            down: up to 1/255 less than the threshold of the making would reject is rejected, too.

    Attributes:
        classes: what the train ids stand for; of another program's labels known from ``check`` on.

    Raises:
        ValueError: if the folder holds no labels, its manifest is damaged or of something else, or
            the threshold is below that of the making, which nothing can bring back, or above 0
            where there are no score maps.
    """

    kind = LABELS

    def __init__(self, directory: Path | str, threshold: float = 0.0) -> None:
        super().__init__(directory)
        self.classes: tuple[SegClass, ...] | None = None
        made_with, scores = 0.0, False
        if self.manifest is not None:
            path = self.directory / MANIFEST
            self.classes = classes_of(self.manifest, path, self.kind)
            made_with = _threshold_of(self.manifest, path)
            scores = self.manifest.get("scores", True)
        elif not next(self.directory.rglob(f"*{LABEL_ENDING}"), None):
            raise self._no_labels()
        if not 0 <= threshold <= 1:
            raise ValueError(f"--pseudo_threshold {threshold:g} is no probability in [0, 1]")
        if 0 < threshold < made_with:
            raise ValueError(
                f"--pseudo_threshold {threshold:g} is below {made_with:g}, with which the labels in"
                f" {self.directory} were made: what that rejected is gone. Give {made_with:g} or"
                " more, or make labels with the lower threshold in another --pseudo_dir"
            )
        if threshold > made_with and not scores:
            raise ValueError(
                f"--pseudo_threshold {threshold:g} needs the probability of each pixel's label,"
                f" which the labels in {self.directory} do not have: leave the flag out"
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
        assert self.classes is not None, "labels of another program are checked before"
        path = self.path(item)
        label = self.read(path, read_other_label if self.manifest is None else read_label)
        bad = first_bad_value(label, len(self.classes))
        if bad is not None:
            source = "the data set" if self.manifest is None else MANIFEST
            raise ValueError(
                f"the pseudo label {path} holds the value {bad}; it has to hold train ids 0 to"
                f" {len(self.classes) - 1} of the {len(self.classes)} classes in {source}, or"
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
        if self.manifest is None:
            height, width = self(item).shape
            return height, width
        assert self.classes is not None
        size, classes = self.read(self.path(item), inspect_label_file)
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
        if self.manifest is None:
            self.classes = dataset.classes
        else:
            self.refuse_other_origin(dataset)
        assert self.classes is not None
        if dataset.class_names != names_of(self.classes):
            what = f"are of {_named(self.classes)}, training is on {_named(dataset.classes)}"
            raise self.of_other_origin(what, dataset)
        self.refuse_missing(dataset)
        self.refuse_damaged(dataset)
        if self.manifest is None:
            logger.warning(
                "the labels in %s have no %s: what they were made of is unknown, and their values"
                " are taken for the train ids of %s",
                self.directory,
                MANIFEST,
                dataset.name,
            )

    def remedy(self) -> str:
        """How to complete the folder."""
        if self.manifest is None:
            return (
                f"give every image a grey or palette PNG of train ids named ID{LABEL_ENDING}, or"
                " make labels in another --pseudo_dir"
            )
        return super().remedy()

    def making_command(self, dataset: SegDataset) -> str:
        """The command that makes a data set's labels, but for the checkpoint or the maps."""
        masks = self.manifest is not None and "cams" in self.manifest
        make = mask_making_command if masks else making_command
        return make(dataset, self.directory)

    def _no_labels(self) -> ValueError:
        """What to raise for a folder without labels."""
        return ValueError(
            f"training needs pseudo labels: {listing(self.directory)}. Name their folder (with a"
            f" {MANIFEST}, or ID{LABEL_ENDING} of another program) with --pseudo_dir, or make them"
            " with\n  python main.py --ckpt CHECKPOINT --dataset NAME --data_root DIR --pseudo_dir"
            f" {shlex.quote(str(self.directory))} --make_pseudo_labels"
        )


def making_command(dataset: SegDataset, directory: Path) -> str:
    """The command that makes a data set's pseudo labels, but for the checkpoint."""
    words = ["--ckpt", "CHECKPOINT", *_words_of(dataset, directory), "--make_pseudo_labels"]
    return shlex.join(["python", "main.py", *words])


def mask_making_command(dataset: SegDataset, directory: Path) -> str:
    """The command that makes a data set's pseudo-masks, but for the class activation maps."""
    words = ["--cam_dir", "MAPS", *_words_of(dataset, directory), "--make_pseudo_masks"]
    return shlex.join(["python", "main.py", *words])


def _words_of(dataset: SegDataset, directory: Path) -> list[str]:
    """The flags that name a data set and a folder of labels."""
    return [*words_of_data(dataset), "--pseudo_dir", str(directory)]


def _threshold_of(manifest: dict[str, Any], path: Path) -> float:
    """The threshold that a manifest's labels were made with.

    Raises:
        ValueError: if it names none.
    """
    try:
        return float(manifest["threshold"])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} is damaged (no threshold): delete it and remake the labels with --overwrite"
        ) from None


def _named(classes: tuple[SegClass, ...]) -> str:
    names = names_of(classes)
    return f"{len(names)} classes ({', '.join(names[:4])}{', ...' * (len(names) > 4)})"


def _read_score(path: Path) -> NDArray[np.uint8]:
    return decode_score(path.read_bytes())
