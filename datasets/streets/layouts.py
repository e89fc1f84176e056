"""Writing streets to disk the way other data sets lie there, with their label encodings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.streets.look import CONDITIONS
from datasets.streets.paints import Surface
from datasets.streets.render import Picture, render
from datasets.streets.towns import TOWNS
from datasets.taxonomy import VOC
from utils.types import IGNORE_INDEX

_VOC_ID_BY_SURFACE = {
    Surface.BICYCLE: 2,
    Surface.BUS: 6,
    Surface.CAR: 7,
    Surface.MOTORCYCLE: 14,
    Surface.PERSON: 15,
    Surface.RIDER: 15,
    Surface.TRAIN: 19,
}


def write_layout(
    layout: str, root: Path | str, *, images_per_split: int, size: tuple[int, int], seed: int = 0
) -> None:
    """Write generated scenes as files of another data set.

    ``cityscapes`` (clear; label ids; the labels of test are void, as the official ones),
    ``acdc`` (four conditions, each with ``images_per_split`` images; train ids and label ids; no
    labels for test) or ``voc`` (JPEG images, palette labels of 21 classes with void borders).

    Args:
        layout: one of ``LAYOUTS``.
        root: becomes the ``--data_root`` of the data set; files of the same name are replaced.
        images_per_split: number of images in each split.
        size: (H, W).
        seed: of the scenes.

    Raises:
        ValueError: for an unknown layout, or a number of images below 1.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"streets cannot be written as {layout!r}, only as {', '.join(LAYOUTS)}")
    if images_per_split < 1:
        raise ValueError(f"images_per_split must be 1 or more, not {images_per_split}")
    LAYOUTS[layout](Path(root), images_per_split, size, seed)


def _write_cityscapes(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    for split, towns in TOWNS.items():
        for index in range(count):
            town = towns[index % len(towns)].name
            picture = render(seed, split, index, "clear", size)
            name = f"{town}_{index:06d}_000019"
            _save(root / "leftImg8bit" / split / town / f"{name}_leftImg8bit.png", picture)
            label = picture.label_ids
            if split == "test":
                label = np.where(label == Surface.EGO_VEHICLE, label, 0).astype(np.uint8)
            _save(root / "gtFine" / split / town / f"{name}_gtFine_labelIds.png", label)


def _write_acdc(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    for condition in CONDITIONS[1:]:
        for split, towns in TOWNS.items():
            for index in range(count):
                sequence = f"GOPR{100 * (index % len(towns)) + CONDITIONS.index(condition):04d}"
                picture = render(seed, split, index, condition, size)
                folder = Path(condition) / split / sequence
                name = f"{sequence}_frame_{index:06d}"
                _save(root / "rgb_anon" / folder / f"{name}_rgb_anon.png", picture)
                if split == "test":
                    continue
                gt = root / "gt" / folder
                _save(gt / f"{name}_gt_labelTrainIds.png", picture.train_ids)
                _save(gt / f"{name}_gt_labelIds.png", picture.label_ids)


def _write_voc(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    folder = root / "VOCdevkit" / "VOC2012"
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True, exist_ok=True)
    names: dict[str, list[str]] = {}
    for part, split in enumerate(("train", "val")):
        names[split] = [f"2012_{part * count + index:06d}" for index in range(count)]
        for index, name in enumerate(names[split]):
            picture = render(seed, split, index, "clear", size)
            _save(folder / "JPEGImages" / f"{name}.jpg", picture)
            _save_palette(folder / "SegmentationClass" / f"{name}.png", _voc_ids(picture.label_ids))
    names["trainval"] = names["train"] + names["val"]
    for split, listed in names.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in listed))


LAYOUTS: dict[str, Callable[[Path, int, tuple[int, int], int], None]] = {
    "cityscapes": _write_cityscapes,
    "acdc": _write_acdc,
    "voc": _write_voc,
}


def _voc_ids(label_ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """VOC's ids, void where two of them meet."""
    table = np.zeros(256, np.uint8)
    table[list(_VOC_ID_BY_SURFACE)] = list(_VOC_ID_BY_SURFACE.values())
    ids = table[label_ids]
    window = np.ones((3, 3), np.uint8)
    is_border = cv2.dilate(ids, window) != cv2.erode(ids, window)
    return np.where(is_border, np.uint8(IGNORE_INDEX), ids)


def _save(path: Path, content: Picture | NDArray[np.uint8]) -> None:
    """Write a picture's image or a label; the suffix decides about the format."""
    array = content.image.transpose(1, 2, 0) if isinstance(content, Picture) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array)).save(path)


def _save_palette(path: Path, ids: NDArray[np.uint8]) -> None:
    """Write a label as VOC does: a PNG whose palette holds the classes' colours."""
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(VOC)] = [entry.colour for entry in VOC]
    palette[IGNORE_INDEX] = 224, 224, 192
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    image.putpalette(palette.tobytes())
    image.save(path)
