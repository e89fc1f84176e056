"""Writing streets the way data sets of objects lie on disk: VOC and COCO in its layout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.streets.layout_files import save, save_palette
from datasets.streets.paints import Surface
from datasets.streets.render import render
from datasets.taxonomy import VOC, SegClass, voc_colour
from datasets.taxonomy_coco import COCO
from utils.types import IGNORE_INDEX

_VOC_NAMES = {
    Surface.BICYCLE: "bicycle",
    Surface.BUS: "bus",
    Surface.CAR: "car",
    Surface.MOTORCYCLE: "motorbike",
    Surface.PERSON: "person",
    Surface.RIDER: "person",
    Surface.TRAIN: "train",
}
_COCO_NAMES = {
    **_VOC_NAMES,
    Surface.MOTORCYCLE: "motorcycle",
    Surface.TRUCK: "truck",
    Surface.TRAFFIC_LIGHT: "traffic light",
}
_VOC_VOID = (224, 224, 192)


def write_voc(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """The scenes of ``streets``; labels have void borders, the list trainaug is that of train."""
    _write_voc(root, count, size, seed, few_objects=False)


def write_voc_objects(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """The same files with the scenes of ``streets_objects``."""
    _write_voc(root, count, size, seed, few_objects=True)


def write_coco14(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """The scenes of ``streets_objects``; labels hold COCO's category ids and no void."""
    table = _table(_COCO_NAMES, COCO)
    first = 0
    for split in ("train", "val"):
        names = [f"COCO_{split}2014_{first + index:012d}" for index in range(count)]
        first += count
        for index, name in enumerate(names):
            picture = render(seed, split, index, "clear", size, few_objects=True)
            save(root / "images" / f"{name}.jpg", picture)
            label = root / "voc_format" / "class_labels" / f"{name}.png"
            save_palette(label, table[picture.label_ids], COCO, voc_colour(IGNORE_INDEX))
        _write_list(root / "voc_format" / f"{split}.txt", names)


def _write_voc(
    root: Path, count: int, size: tuple[int, int], seed: int, *, few_objects: bool
) -> None:
    folder = root / "VOCdevkit" / "VOC2012"
    table = _table(_VOC_NAMES, VOC)
    names: dict[str, list[str]] = {}
    for part, split in enumerate(("train", "val")):
        names[split] = [f"2012_{part * count + index:06d}" for index in range(count)]
        for index, name in enumerate(names[split]):
            picture = render(seed, split, index, "clear", size, few_objects=few_objects)
            save(folder / "JPEGImages" / f"{name}.jpg", picture)
            ids = table[picture.label_ids]
            label = folder / "SegmentationClass" / f"{name}.png"
            save_palette(label, _with_void_borders(ids), VOC, _VOC_VOID)
            _write_annotation(folder / "Annotations" / f"{name}.xml", name, picture.label_ids)
    names["trainval"] = names["train"] + names["val"]
    names["trainaug"] = names["train"]
    for split, listed in names.items():
        _write_list(folder / "ImageSets" / "Segmentation" / f"{split}.txt", listed)


def _table(names: Mapping[Surface, str], classes: Sequence[SegClass]) -> NDArray[np.uint8]:
    """The id of every surface in a data set whose ids are the places of its classes."""
    places = {entry.name: place for place, entry in enumerate(classes)}
    table = np.zeros(256, np.uint8)
    table[list(names)] = [places[name] for name in names.values()]
    return table


def _with_void_borders(ids: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The ids, void where two of them meet."""
    window = np.ones((3, 3), np.uint8)
    is_border = cv2.dilate(ids, window) != cv2.erode(ids, window)
    return np.where(is_border, np.uint8(IGNORE_INDEX), ids)


def _write_list(path: Path, names: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names))


def _write_annotation(path: Path, name: str, label_ids: NDArray[np.uint8]) -> None:
    """The file and the boxes of its objects: those parts of a surface that hang together."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "folder").text = "VOC2012"
    ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
    sizes = ElementTree.SubElement(root, "size")
    for key, value in zip(("height", "width", "depth"), (*label_ids.shape, 3), strict=True):
        ElementTree.SubElement(sizes, key).text = str(value)
    for kind, box in _boxes(label_ids):
        entry = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(entry, "name").text = kind
        edges = ElementTree.SubElement(entry, "bndbox")
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            ElementTree.SubElement(edges, key).text = str(value)
    ElementTree.indent(root, "\t")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ElementTree.tostring(root) + b"\n")


def _boxes(label_ids: NDArray[np.uint8]) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Name, first and last column and row, from 1, of every object."""
    for surface, kind in _VOC_NAMES.items():
        mask = (label_ids == surface).view(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for left, top, width, height, _ in stats[1:].tolist():
            yield kind, (left + 1, top + 1, left + width, top + height)
