"""Image-level labels: which classes an image shows, and nothing about where."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import SegDataset
from datasets.files import locked
from datasets.items import Item
from datasets.parallel import threaded
from datasets.statistics import scan_label
from datasets.tag_files import ClassNames, read_annotation, read_tag_file
from utils.files import open_atomically
from utils.log import logger, progress

MASKS, XML = "masks", "xml"


class ImageTags:
    """The image-level labels of a split: call it with an item for (C,) float32 in {0, 1}.

    Where there is a background its entry is always 1. All tags are read at once, so that whatever
    is wrong with them is known before training.

    Args:
        source: ``masks`` for the classes with a pixel in the label files (or drawn labels) at
            their native size; ``xml`` for the objects in ``Annotations/ID.xml`` beside the folder
            of the images, as VOC has them; else a .csv or .json file (see ``tag_files``).
        dataset: the split; for ``masks`` opened with its labels.
        cache_dir: where what was found in masks is kept until the files change; None: nowhere.

    Raises:
        ValueError: if an image of the split has no tags, or tags make no sense, naming the file.
    """

    def __init__(
        self, source: Path | str, dataset: SegDataset, cache_dir: Path | str | None = None
    ) -> None:
        classes = ClassNames(dataset.class_names, dataset.background, dataset.name)
        if source == MASKS:
            self._rows = _from_masks(dataset, None if cache_dir is None else Path(cache_dir))
        elif source == XML:
            self._rows = _from_annotations(dataset, classes)
        else:
            self._rows = _from_file(Path(source), dataset, classes)
        self._places = {item.id: place for place, item in enumerate(dataset.originals)}
        self._source = source
        shown: NDArray[np.bool_] = np.any(self._rows, axis=0)
        if not shown.all():
            absent = [name for name, one in zip(dataset.class_names, shown, strict=True) if not one]
            logger.warning("no image of %s is tagged %s", dataset.split, ", ".join(absent))

    def __call__(self, item: Item) -> Tensor:
        """The labels (C,) float32 of an item.

        Raises:
            ValueError: if it is not of the split that the tags were read for.
        """
        if item.id not in self._places:
            raise ValueError(f"--image_tags {self._source} has no tags for {item.id}")
        return torch.from_numpy(self._rows[self._places[item.id]].astype(np.float32))

    def fingerprint(self) -> str:
        """SHA-256 over the tags of all images, for manifests of what is made with them."""
        digest = hashlib.sha256("\n".join(self._places).encode())
        digest.update(np.packbits(self._rows, axis=1).tobytes())
        return digest.hexdigest()


def _from_masks(dataset: SegDataset, cache_dir: Path | None) -> NDArray[np.bool_]:
    """Which classes each label shows, (N, C), from the cache if it is there."""
    assert dataset.reads_labels, "tags from masks need a data set with its labels"
    if cache_dir is None:
        return _scan_masks(dataset)
    path = cache_dir / f"{dataset.name}_{dataset.split}_tags_{dataset.content_key()}.npy"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        if not path.is_file():
            rows = _scan_masks(dataset)
            with open_atomically(path) as file:
                np.save(file, rows)
    return np.load(path)


def _scan_masks(dataset: SegDataset) -> NDArray[np.bool_]:
    rows = np.zeros((len(dataset), dataset.num_classes), np.bool_)
    scans = threaded(partial(scan_label, dataset, False), len(dataset), "Tags from masks")
    for row, scan in zip(rows, scans, strict=True):
        if scan.problems:
            raise ValueError(f"{scan.problems[0]} (--check_data lists all such files)")
        row[:] = scan.pixels[: dataset.num_classes] > 0
    if dataset.background is not None:
        rows[:, dataset.background] = True
    return rows


def _from_annotations(dataset: SegDataset, classes: ClassNames) -> NDArray[np.bool_]:
    rows = np.zeros((len(dataset), dataset.num_classes), np.bool_)
    for row, item in zip(rows, progress(dataset.originals, desc="Annotations"), strict=True):
        if item.image is None:
            raise ValueError(
                f"--image_tags xml reads Annotations/ID.xml beside the images, and {dataset.name}"
                " has no files: give masks, or a .csv or .json file"
            )
        folder = item.image.parent.parent / "Annotations"
        row[:] = read_annotation(folder / f"{item.image.stem}.xml", classes)
    return rows


def _from_file(path: Path, dataset: SegDataset, classes: ClassNames) -> NDArray[np.bool_]:
    found = read_tag_file(path, classes)
    missing = [item.id for item in dataset.originals if item.id not in found]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ValueError(
            f"--image_tags {path} has no tags for {missing[0]}{more}, an image of split"
            f" {dataset.split} of {dataset.name}: every id needs an entry, be it an empty one"
        )
    return np.array([found[item.id] for item in dataset.originals])
