"""Writing streets the way data sets of domain adaptation lie on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.streets.layout_files import save, save_palette
from datasets.streets.look import GAME
from datasets.streets.paints import Surface
from datasets.streets.render import render
from datasets.taxonomy import ROAD, ROAD_TRAIN_IDS, SegClass
from datasets.taxonomy_adaptation import (
    CITYSCAPES_ROBOTCAR_TRAIN_IDS,
    ROBOTCAR_TRAIN_IDS,
    SYNTHIA_16,
    SYNTHIA_LABEL_IDS,
)

_VOID = SegClass("void", (0, 0, 0))
_INSTANCES = (Surface.PERSON, Surface.RIDER, Surface.CAR, Surface.MOTORCYCLE, Surface.BICYCLE)
_TRAIN_SEQUENCES = (
    *("2015-05-29-09-36-29_07", "2015-07-24-14-17-50_01", "2015-07-24-14-36-47_05"),
)
_VAL_SEQUENCES = (*("2014-11-25-09-18-32_01", "2015-10-29-12-18-17_07", "2015-11-06-11-21-12_05"),)


def write_gta5(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """The look of a game; palette labels with the ids of Cityscapes."""
    colours = [
        _VOID if (train := ROAD_TRAIN_IDS[label]) >= len(ROAD) else ROAD[train]
        for label in range(34)
    ]
    for index in range(count):
        picture = render(seed, "train", index, GAME, size)
        name = f"{index + 1:05d}.png"
        save(root / "images" / name, picture)
        save_palette(root / "labels" / name, picture.label_ids, colours)


def write_synthia(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """The look of a game; labels with instances, in which classes that SYNTHIA lacks are void."""
    table = np.zeros(256, np.uint16)
    for train in SYNTHIA_16:
        table[train] = SYNTHIA_LABEL_IDS[train]
    for index in range(count):
        picture = render(seed, "train", index, GAME, size)
        name = f"{index:07d}.png"
        save(root / "RGB" / name, picture)
        things = np.isin(picture.label_ids, _INSTANCES).astype(np.uint8)
        instances = cv2.connectedComponents(things)[1].astype(np.uint16)
        ids = table[picture.train_ids]
        label = root / "GT" / "LABELS" / name
        label.parent.mkdir(parents=True, exist_ok=True)
        channels = np.dstack([np.zeros_like(ids), instances, ids])  # blue, green, red
        written = cv2.imwrite(str(label), channels)
        assert written, label


def write_robotcar(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """Sequences in the rain; train without labels, val with an id in the first of four channels."""
    annotation = {train: label for label, train in sorted(ROBOTCAR_TRAIN_IDS.items(), reverse=True)}
    table = np.zeros(256, np.uint8)
    for label, train in CITYSCAPES_ROBOTCAR_TRAIN_IDS.items():
        table[label] = annotation[train] if train in range(9) else 0
    for index in range(count):
        sequence = _TRAIN_SEQUENCES[index % len(_TRAIN_SEQUENCES)]
        picture = render(seed, "train", index, "rain", size)
        save(root / "train" / sequence / f"{index:06d}.png", picture)
        picture = render(seed, "val", index, "rain", size)
        name = f"{_VAL_SEQUENCES[index % len(_VAL_SEQUENCES)]}_{index:06d}.png"
        save(root / "val" / name, picture)
        _save_four_channels(root / "anno" / name, table[picture.label_ids])


def _save_four_channels(path: Path, ids: NDArray[np.uint8]) -> None:
    """Write ids (H, W) in the first of four channels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    other = np.zeros_like(ids)
    Image.fromarray(np.dstack([ids, other, other, np.full_like(ids, 255)])).save(path)
