"""Uncertainty masks on disk: one file for each image, a manifest, and their reader."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import SegDataset
from datasets.files import listing
from datasets.items import Item, by, safe_name
from datasets.map_folders import MANIFEST, MapFile, MapKind, MapReader, map_path
from datasets.mask_files import ENDING, decode_mask, inspect_mask, is_mask
from datasets.png_files import DamagedMapError, Size
from utils.log import logger

PUBLISHED_ENDING = "_uncertainty_mask.npy"


def mask_size(path: Path) -> Size:
    """(H, W) of a mask file, after a check of every byte.

    Raises:
        DamagedMapError: if it is damaged.
    """
    return inspect_mask(path.read_bytes())[0]


MASKS = MapKind(
    content="uncertainty masks",
    files=(MapFile(ENDING, mask_size, is_mask),),
    folder_flag="mask_dir",
    action_flag="make_uncertainty_masks",
    identity=("scale",),
    superseded=f"*{PUBLISHED_ENDING}",
)


def mask_path(directory: Path, item: Item) -> Path:
    """Where the mask of an item lies; the slashes of its id are folders."""
    return map_path(directory, item, ENDING)


def published_path(directory: Path, item: Item) -> Path:
    """Where the published program puts the mask of an item: by the image file's name alone."""
    stem = item.image.stem if item.image is not None else safe_name(item.id)
    return directory / f"{stem}{PUBLISHED_ENDING}"


class UncertaintyMasks(MapReader):
    """Reads masks: call it with an item for (H, W) float32, in nats.

    Masks of this program lie in a folder with a manifest. The published form is read, too:
    float32 arrays, ``STEM_uncertainty_mask.npy`` for an image ``STEM.png``, all in one folder and
    without a manifest, so that nothing says what they were made of.

    Args:
        directory: where the masks are.

    Raises:
        ValueError: if the manifest is damaged or of another format.
    """

    kind = MASKS

    def __call__(self, item: Item) -> Tensor:
        """The mask of an item.

        Raises:
            ValueError: if the file is missing or damaged, naming it.
        """
        read = _read_published if self.manifest is None else _read_mask
        return torch.from_numpy(self.read(self.path(item), read))

    def path(self, item: Item) -> Path:
        """The file that holds the mask of an item."""
        return published_path(self.directory, item) if self.manifest is None else super().path(item)

    def check(self, dataset: SegDataset) -> None:
        """Refuse masks that are missing, damaged or not of this data set and size.

        Of the published form, existence and size are checked here, the values when they are read.

        Raises:
            ValueError: saying what is wrong and which command makes the masks.
        """
        if self.manifest is not None:
            self.refuse_other_origin(dataset)
        elif not next(self.directory.glob(f"*{PUBLISHED_ENDING}"), None):
            raise ValueError(
                f"training needs uncertainty masks: {listing(self.directory)}. Name their folder"
                f" (with a {MANIFEST} or *{PUBLISHED_ENDING}) with --mask_dir, or make them with"
                f"\n  {self.making_command(dataset)}"
            )
        self.refuse_missing(dataset)
        self.refuse_damaged(dataset)
        if self.manifest is None:
            logger.warning(
                "the masks in %s have no %s: what they were made of is unknown",
                self.directory,
                MANIFEST,
            )

    def inspect(self, item: Item) -> Size:
        """(H, W) of the mask of an item, in either form.

        Raises:
            ValueError: if its file is missing or damaged, naming it.
        """
        if self.manifest is None:
            return self.read(self.path(item), _published_size)
        return super().inspect(item)

    def remedy(self) -> str:
        """How to complete the folder."""
        if self.manifest is None:
            return "put it back, or make masks in another --mask_dir (--make_uncertainty_masks)"
        return super().remedy()

    def making_command(self, dataset: SegDataset) -> str:
        """The command that makes a data set's masks, but for the checkpoints."""
        return making_command(dataset, self.directory)


def making_command(dataset: SegDataset, directory: Path) -> str:
    """The command that makes a data set's masks, but for the checkpoints."""
    size = dataset.transform.size
    words = ["--model", "deep_ensemble", "--weight", "CHECKPOINT", "--weight", "CHECKPOINT"]
    words += ["--dataset", dataset.name, "--train_split", dataset.split]
    words += [] if dataset.name == "streets" else ["--data_root", str(dataset.root)]
    words += ["--crop_size", by(size)] if size else ["--train_transform", "scale_crop"]
    words += ["--mask_dir", str(directory), "--make_uncertainty_masks"]
    return shlex.join(["python", "main.py", *words])


def _read_mask(path: Path) -> NDArray[np.float32]:
    return decode_mask(path.read_bytes())


def _open_published(path: Path) -> NDArray[Any]:
    """The array (H, W) of a file, mapped; leading axes of length one are dropped."""
    try:
        values = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise DamagedMapError(str(error)) from None
    shape = values.shape
    if len(shape) < 2 or any(length != 1 for length in shape[:-2]) or values.dtype.kind != "f":
        raise DamagedMapError(f"it holds {values.dtype} of shape {shape}, not floats (H, W)")
    return values.reshape(shape[-2:])


def _published_size(path: Path) -> Size:
    height, width = _open_published(path).shape
    return height, width


def _read_published(path: Path) -> NDArray[np.float32]:
    values = np.array(_open_published(path), np.float32)
    if not (np.isfinite(values) & (values >= 0)).all():
        raise DamagedMapError("it has values that are no uncertainty: below 0 or not finite")
    return values
