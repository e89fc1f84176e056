"""Uncertainty masks on disk: one file for each image, a manifest, and their reader."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import Item, SegDataset, by, safe_name
from datasets.files import listing
from datasets.mask_files import ENDING, DamagedMaskError, Size, decode_mask, inspect_mask
from datasets.parallel import threaded
from utils.log import logger

FORMAT = 1
CONTENT = "uncertainty masks"
MANIFEST = "manifest.json"
PUBLISHED_ENDING = "_uncertainty_mask.npy"
NATIVE = "native"  # the size in a manifest of masks that have their images' own sizes


def mask_path(directory: Path, item: Item) -> Path:
    """Where the mask of an item lies; the slashes of its id are folders."""
    return directory / f"{safe_name(item.id)}{ENDING}"


def published_path(directory: Path, item: Item) -> Path:
    """Where the published program puts the mask of an item: by the image file's name alone."""
    stem = item.image.stem if item.image is not None else safe_name(item.id)
    return directory / f"{stem}{PUBLISHED_ENDING}"


def read_manifest(directory: Path) -> dict[str, Any] | None:
    """What the masks in a folder were made of; None without a manifest.

    Raises:
        ValueError: if the file is damaged or of another format.
    """
    path = directory / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): delete it and remake the masks with --overwrite"
        ) from None
    if (
        not isinstance(manifest, dict)
        or manifest.get("format") != FORMAT
        or manifest.get("content") != CONTENT
    ):
        raise ValueError(
            f"{path} is no manifest of uncertainty masks in format {FORMAT}: choose another"
            " --mask_dir"
        )
    return manifest


class UncertaintyMasks:
    """Reads masks: call it with an item for (H, W) float32, in nats.

    Masks of this program lie in a folder with a manifest. The published form is read, too:
    float32 arrays, ``STEM_uncertainty_mask.npy`` for an image ``STEM.png``, all in one folder and
    without a manifest, so that nothing says what they were made of.

    Args:
        directory: where the masks are.

    Raises:
        ValueError: if the manifest is damaged or of another format.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.manifest = read_manifest(self.directory)

    def __call__(self, item: Item) -> Tensor:
        """The mask of an item.

        Raises:
            ValueError: if the file is missing or damaged, naming it.
        """
        path = self.path(item)
        if not path.is_file():
            raise ValueError(f"the uncertainty mask {path} does not exist: {self._remedy()}")
        try:
            read = _read_published if self.manifest is None else _read_mask
            return torch.from_numpy(read(path))
        except DamagedMaskError as error:
            raise self._damaged(path, error) from None

    def path(self, item: Item) -> Path:
        """The file that holds the mask of an item."""
        place = published_path if self.manifest is None else mask_path
        return place(self.directory, item)

    def check(self, dataset: SegDataset) -> None:
        """Refuse masks that are missing, damaged or not of this data set and size.

        Of the published form, existence and size are checked here, the values when they are read.

        Raises:
            ValueError: saying what is wrong and which command makes the masks.
        """
        command = making_command(dataset, self.directory)
        if self.manifest is not None:
            self._refuse_other_origin(dataset, command)
        elif not next(self.directory.glob(f"*{PUBLISHED_ENDING}"), None):
            raise ValueError(
                f"training needs uncertainty masks: {listing(self.directory)}. Name their folder"
                f" (with a {MANIFEST} or *{PUBLISHED_ENDING}) with --mask_dir, or make them with"
                f"\n  {command}"
            )
        missing = [item for item in dataset.items if not self.path(item).is_file()]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(dataset)} uncertainty masks are missing from"
                f" {self.directory}, the first is {self.path(missing[0]).name} (of"
                f" {missing[0].id}): {self._remedy()}"
            )
        for index, found in enumerate(threaded(self._size_at(dataset), len(dataset), "Masks")):
            wanted = dataset.size(index)
            if found != wanted:
                raise ValueError(
                    f"{self.path(dataset.items[index])} has {by(found)} pixels, training sees"
                    f" {by(wanted)}: make masks of that size in another --mask_dir\n  {command}"
                )
        if self.manifest is None:
            logger.warning(
                "the masks in %s have no %s: what they were made of is unknown",
                self.directory,
                MANIFEST,
            )

    def _refuse_other_origin(self, dataset: SegDataset, command: str) -> None:
        assert self.manifest is not None
        size = dataset.transform.size
        here = {
            "dataset": dataset.name,
            "split": dataset.split,
            "size": list(size) if size else NATIVE,
            "fingerprint": dataset.fingerprint(),
        }
        for name, value in here.items():
            there = self.manifest.get(name)
            if there == value:
                continue
            if name == "fingerprint":
                what = f"are stale: the files of {dataset.name} {dataset.split} have changed since"
            else:
                what = f"are of {name} {_text(there)}, training is on {_text(value)}"
            raise ValueError(
                f"the uncertainty masks in {self.directory} {what}. Make them anew, with"
                f" --overwrite or in another --mask_dir\n  {command}"
            )

    def _size_at(self, dataset: SegDataset) -> Any:
        """A function from an index to the size of its mask."""

        def size(index: int) -> Size:
            """(H, W) of the mask of an item."""
            path = self.path(dataset.items[index])
            try:
                if self.manifest is None:
                    height, width = _open_published(path).shape
                    return height, width
                return inspect_mask(path.read_bytes())[0]
            except DamagedMaskError as error:
                raise self._damaged(path, error) from None

        return size

    def _damaged(self, path: Path, error: DamagedMaskError) -> ValueError:
        return ValueError(f"the uncertainty mask {path} is damaged, {error}: {self._remedy()}")

    def _remedy(self) -> str:
        """How to complete the folder."""
        if self.manifest is None:
            return "put it back, or make masks in another --mask_dir (--make_uncertainty_masks)"
        command = self.manifest["command"]
        return f"this makes those that are missing or damaged and keeps the others\n  {command}"


def making_command(dataset: SegDataset, directory: Path) -> str:
    """The command that makes a data set's masks, but for the checkpoints."""
    size = dataset.transform.size
    words = ["--model", "deep_ensemble", "--weight", "CHECKPOINT", "--weight", "CHECKPOINT"]
    words += ["--dataset", dataset.name, "--train_split", dataset.split]
    words += [] if dataset.name == "streets" else ["--data_root", str(dataset.root)]
    words += ["--crop_size", by(size)] if size else ["--train_transform", "scale_crop"]
    words += ["--mask_dir", str(directory), "--make_uncertainty_masks"]
    return shlex.join(["python", "main.py", *words])


def _text(value: Any) -> str:
    return by(value) if isinstance(value, list) else str(value)


def _read_mask(path: Path) -> NDArray[np.float32]:
    return decode_mask(path.read_bytes())


def _open_published(path: Path) -> NDArray[Any]:
    """The array (H, W) of a file, mapped; leading axes of length one are dropped."""
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise DamagedMaskError(str(error)) from None
    shape = values.shape
    if len(shape) < 2 or any(length != 1 for length in shape[:-2]) or values.dtype.kind != "f":
        raise DamagedMaskError(f"it holds {values.dtype} of shape {shape}, not floats (H, W)")
    return values.reshape(shape[-2:])


def _read_published(path: Path) -> NDArray[np.float32]:
    values = np.array(_open_published(path), np.float32)
    if not (np.isfinite(values) & (values >= 0)).all():
        raise DamagedMaskError("it has values that are no uncertainty: below 0 or not finite")
    return values
