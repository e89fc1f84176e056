"""Class-uniform sampling: a share of every epoch shows each class equally often."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import SegDataset
from datasets.files import locked
from datasets.items import SampleKey
from datasets.parallel import threaded
from utils.files import open_atomically
from utils.log import logger

Centroids = list[NDArray[np.int32]]  # by class (K, 3): rows as ``Centroid`` names them

_VALUES = 256  # of a train id, void among them


class Centroid(NamedTuple):
    """Where a class is in a tile of an image: its centre of mass there."""

    index: int  # type: ignore[assignment]  # of the item; shadows tuple.index, which none needs
    x: int  # column at native size
    y: int  # row


def tile_centroids(label: Tensor, tile: int, num_classes: int) -> Iterator[tuple[int, int, int]]:
    """(class, x, y) of every class in every tile of a label, row of tiles by row of tiles.

    A tile is as wide and as high as the label at most; incomplete tiles at the right and at the
    bottom are left out. The centre of mass is truncated to whole pixels, as published.

    Args:
        label: (H, W) uint8, train ids.
        tile: edge of a tile in pixels.
        num_classes: train ids from there on count as void.
    """
    height, width = min(tile, label.shape[0]), min(tile, label.shape[1])
    num_columns = label.shape[1] // width
    x = torch.arange(num_columns * width)
    y = torch.arange(height)
    for top in range(0, label.shape[0] - height + 1, height):
        band = label[top : top + height, : len(x)].long() + x // width * _VALUES
        codes, bins = band.flatten(), num_columns * _VALUES
        counts = torch.bincount(codes, minlength=bins)
        sums = [
            torch.bincount(codes, each.expand_as(band).flatten().double(), bins).long()
            for each in (x, y[:, None])
        ]
        present = torch.nonzero(counts)[:, 0]
        present = present[present % _VALUES < num_classes]
        centres = torch.stack([present % _VALUES, *(each[present] for each in sums)], 1)
        centres[:, 1:] //= counts[present, None]
        centres[:, 2] += top
        yield from map(tuple, centres.tolist())


def find_centroids(dataset: SegDataset, tile: int, cache_dir: Path) -> Centroids:
    """The centroids of each class, in the order of the images; measured once and kept in a file.

    The file's name holds the edge of the tiles and what the labels follow from
    (``SegDataset.content_key``); a damaged file is replaced. Labels from elsewhere, which that does
    not know, are measured each time.

    Args:
        dataset: a data set of files or of drawn images, not one that joins others.
        tile: edge of a tile in pixels, at the labels' native size.
        cache_dir: where the file lies; created if missing.

    Returns:
        For each class (K, 3) int32, one ``Centroid`` a row.

    Raises:
        ValueError: if the tiles are empty or a label is bad.
        WriteError: if the folder cannot be written or the disk is full.
    """
    if tile < 1:
        raise ValueError(f"a tile of class-uniform sampling has 1 pixel or more, not {tile}")
    if dataset.label_source is not None:
        return _measure(dataset, tile)
    name = f"{dataset.name}_{dataset.split}_centroids_{tile}_{dataset.content_key()}.npz"
    path = cache_dir / name
    cache_dir.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        found = _read(path, dataset)
        if found is None:
            found = _measure(dataset, tile)
            with open_atomically(path) as file:
                np.savez(file, rows=np.concatenate(found), counts=[len(rows) for rows in found])
    return found


def _measure(dataset: SegDataset, tile: int) -> Centroids:
    found: list[list[Centroid]] = [[] for _ in dataset.classes]
    scans = threaded(
        partial(_scan, dataset, tile), len(dataset), f"class centroids of {dataset.split}"
    )
    for index, centres in enumerate(scans):
        for train_id, x, y in centres:
            found[train_id].append(Centroid(index, x, y))
    return [np.array(rows, np.int32).reshape(-1, 3) for rows in found]


def _scan(dataset: SegDataset, tile: int, index: int) -> list[tuple[int, int, int]]:
    """The centroids of one image; of an image in a file the label alone is read."""
    path = dataset.items[index].label
    if not dataset.reads_labels:
        label = dataset.other_label(index)
    elif path is None:
        label = dataset.read(index)[1]
    else:
        label = dataset.encode_label(dataset.read_raw_label(index), path)
    return list(tile_centroids(dataset.damaged(label, index), tile, dataset.num_classes))


def _read(path: Path, dataset: SegDataset) -> Centroids | None:
    """What a file holds; None, with a warning, if it is damaged, and None if there is none."""
    try:
        with np.load(path) as stored:
            rows, counts = stored["rows"], stored["counts"]
    except FileNotFoundError:
        return None
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        logger.warning("%s is damaged (%s): its centroids are measured again", path, error)
        return None
    fits = (
        rows.dtype == np.int32
        and rows.shape == (counts.sum(), 3)
        and len(counts) == dataset.num_classes
        and (rows >= 0).all()
        and (rows[:, 0] < len(dataset)).all()
    )
    if not fits:
        logger.warning("%s is of other images: its centroids are measured again", path)
        return None
    return np.split(rows, np.cumsum(counts)[:-1])


class ClassUniform:
    """What each epoch shows: a share of it by class, the rest images drawn at random.

    An epoch of N images in C classes takes n = floor(N share / C) centroids of each class from
    that class's shuffled list, over and over if it is short, and N - n C images without
    repetition, all in random order. A class without centroids adds nothing, so that the epoch is
    shorter. Everything follows from (seed, epoch) and is the same in every process.

    Args:
        num_images: N; they are the first items of the data set that is sampled.
        centroids: of those images, as ``find_centroids`` gives them.
        share: of an epoch that is drawn by class, in [0, 1].
        seed: of the draws.
        boost: centroids of further images, as ``find_centroids`` gives them; the data set that is
            sampled has these after the first ``num_images``. They are shown for their centroids
            only, never at random.
        boost_classes: train ids of the classes that ``boost`` adds to.
        max_epoch: from this epoch on without ``boost``; None: always with it.

    Raises:
        ValueError: if the share is out of range or a class of ``boost_classes`` does not exist.
    """

    def __init__(
        self,
        num_images: int,
        centroids: Sequence[NDArray[np.int32]],
        share: float,
        seed: int,
        *,
        boost: Sequence[NDArray[np.int32]] | None = None,
        boost_classes: Sequence[int] = (),
        max_epoch: int | None = None,
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"the class-uniform share of an epoch lies in [0, 1], not {share}")
        num_classes = len(centroids)
        for train_id in boost_classes:
            if not 0 <= train_id < num_classes:
                raise ValueError(
                    f"class {train_id} cannot be boosted: the train ids are 0 to {num_classes - 1}"
                )
        self.num_images = num_images
        self.seed = seed
        self.max_epoch = max_epoch
        self.per_class = int(num_images * share / num_classes)
        self.centroids = list(centroids)
        self.boosted = list(centroids)
        if boost is not None:
            assert len(boost) == num_classes
            for train_id in set(boost_classes):
                further = boost[train_id] + np.array([num_images, 0, 0], np.int32)
                self.boosted[train_id] = np.concatenate([centroids[train_id], further])

    def in_epoch(self, epoch: int) -> Centroids:
        """The centroids of each class that an epoch draws from."""
        late = self.max_epoch is not None and epoch >= self.max_epoch
        return self.centroids if late else self.boosted

    def length(self, epoch: int) -> int:
        """The number of images in an epoch."""
        without = sum(not len(rows) for rows in self.in_epoch(epoch))
        return self.num_images - self.per_class * without

    @property
    def shortest(self) -> int:
        """The number of images in the shortest epoch."""
        return min(self.length(0), self.length(self.max_epoch or 0))

    def keys(self, epoch: int) -> list[SampleKey]:
        """The images of an epoch, in their order; those drawn by class with their centroid."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        num_random = self.num_images - self.per_class * len(self.centroids)
        drawn: list[tuple[int, tuple[int, int] | None]]
        drawn = [(index, None) for index in rng.permutation(self.num_images)[:num_random].tolist()]
        for rows in self.in_epoch(epoch):
            if len(rows):
                chosen = np.resize(rng.permutation(len(rows)), self.per_class)
                drawn += [(index, (x, y)) for index, x, y in rows[chosen].tolist()]
        order = rng.permutation(len(drawn)).tolist()
        return [
            SampleKey(epoch, index, centre, place)
            for place, (index, centre) in enumerate(drawn[which] for which in order)
        ]
