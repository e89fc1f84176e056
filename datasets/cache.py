"""Decoded, resized images and labels in one memory-mapped file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.files import locked
from datasets.parallel import threaded
from utils.files import open_atomically, remove_leftovers

Read = Callable[[int], tuple[Tensor, Tensor]]


class ArrayCache:
    """Pairs of image (3, H, W) and label (H, W), both uint8, read from a file without copying.

    The data file holds, item after item, the image's pixels as (H, W, 3) and the label's as
    (H, W); the index, an int64 array of (offset, H, W), is written last, so that a file with an
    index is complete. Sizes may differ from item to item.

    Args:
        stem: path of the two files without their suffixes.
    """

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._index: NDArray[np.int64] = np.load(_index_file(stem))
        self._pixels: NDArray[np.uint8] | None = None

    @classmethod
    def open(cls, folder: Path, name: str, count: int, read: Read) -> ArrayCache:
        """Open the cache of this name, building it first if need be.

        Another process that opens it meanwhile waits. What is left of an interrupted build is
        never used.

        Args:
            folder: where caches lie; created if missing.
            name: of the cache; whatever changes the content must change it.
            count: number of items.
            read: decodes the item at an index; called from several threads.

        Raises:
            ValueError: if ``read`` finds bad data.
            WriteError: if the folder cannot be written or the disk is full.
        """
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / name
        if not _index_file(stem).is_file():
            with locked(folder / f"{name}.lock"):
                if not _index_file(stem).is_file():
                    remove_leftovers(_data_file(stem))
                    _build(stem, count, read)
        return cls(stem)

    def __len__(self) -> int:
        """Number of items."""
        return len(self._index)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image and label; writing to them changes no file."""
        if self._pixels is None:  # opened in each process: a map does not travel to workers
            self._pixels = np.memmap(_data_file(self._stem), np.uint8, mode="c")
        offset, height, width = self._index[index].tolist()
        area = height * width
        pixels = torch.from_numpy(self._pixels[offset : offset + 4 * area])
        image = pixels[: 3 * area].view(height, width, 3).permute(2, 0, 1)
        return image, pixels[3 * area :].view(height, width)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pixels": None}


def _build(stem: Path, count: int, read: Read) -> None:
    index = np.zeros((count, 3), np.int64)
    with open_atomically(_data_file(stem)) as file:
        offset = 0
        for i, (image, label) in enumerate(threaded(read, count, f"Caching {stem.name}")):
            index[i] = offset, *label.shape
            for part in (image.permute(1, 2, 0), label):
                offset += file.write(part.contiguous().numpy().data)
    with open_atomically(_index_file(stem)) as file:
        np.save(file, index)


def _data_file(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.bin")


def _index_file(stem: Path) -> Path:
    return stem.with_name(f"{stem.name}.index.npy")
