"""Writing streets to disk the way other data sets lie there, with their label encodings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from datasets.streets.adaptation_layouts import write_gta5, write_robotcar, write_synthia
from datasets.streets.anomaly_layouts import (
    write_lost_and_found,
    write_road_anomaly,
    write_road_anomaly_repackaged,
    write_smiyc_anomaly,
    write_smiyc_obstacle,
)
from datasets.streets.layout_files import save, save_palette
from datasets.streets.look import CONDITIONS
from datasets.streets.object_layouts import write_coco14, write_voc, write_voc_objects
from datasets.streets.paints import Surface
from datasets.streets.render import render
from datasets.streets.towns import TOWNS
from datasets.taxonomy_mapillary import MAPILLARY, MAPILLARY_UNLABELLED
from utils.files import write_json

_MAPILLARY_NAMES = {
    Surface.EGO_VEHICLE: "Ego Vehicle",
    Surface.DYNAMIC: "Trash Can",
    Surface.ROAD: "Road",
    Surface.SIDEWALK: "Sidewalk",
    Surface.BUILDING: "Building",
    Surface.WALL: "Wall",
    Surface.FENCE: "Fence",
    Surface.POLE: "Pole",
    Surface.TRAFFIC_LIGHT: "Traffic Light",
    Surface.TRAFFIC_SIGN: "Traffic Sign (Front)",
    Surface.VEGETATION: "Vegetation",
    Surface.TERRAIN: "Terrain",
    Surface.SKY: "Sky",
    Surface.PERSON: "Person",
    Surface.RIDER: "Bicyclist",
    Surface.CAR: "Car",
    Surface.TRUCK: "Truck",
    Surface.BUS: "Bus",
    Surface.TRAIN: "On Rails",
    Surface.MOTORCYCLE: "Motorcycle",
    Surface.BICYCLE: "Bicycle",
}


def write_layout(
    layout: str, root: Path | str, *, images_per_split: int, size: tuple[int, int], seed: int = 0
) -> None:
    """Write generated scenes as files of another data set.

    ``cityscapes`` (clear; label ids; the labels of test are void, as the official ones),
    ``acdc`` (four conditions, each with ``images_per_split`` images; train ids and label ids; no
    labels for test), ``mapillary`` (JPEG images, palette labels of 22 of the 66 labels,
    ``config.json``), ``voc`` (JPEG images, palette labels of 21 classes with void borders, XML
    annotations, the list trainaug), ``voc_objects`` (the same with the scenes of
    ``streets_objects``) or ``coco14`` (those scenes with palette labels of COCO's ids). For
    domain adaptation: ``gta5`` (look of a game, palette labels) and ``synthia`` (the same look,
    16-bit labels in which terrain, truck and train are void), which have one split, and
    ``robotcar`` (rain; train without labels, nine classes). With unknown obstacles:
    ``lost_and_found``, ``road_anomaly`` (as published), its other layout
    ``road_anomaly_repackaged``, ``smiyc_anomaly`` and ``smiyc_obstacle`` (validation images, and
    as many without a label).

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
            save(root / "leftImg8bit" / split / town / f"{name}_leftImg8bit.png", picture)
            label = picture.label_ids
            if split == "test":
                label = np.where(label == Surface.EGO_VEHICLE, label, 0).astype(np.uint8)
            save(root / "gtFine" / split / town / f"{name}_gtFine_labelIds.png", label)


def _write_acdc(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    for condition in CONDITIONS[1:]:
        for split, towns in TOWNS.items():
            for index in range(count):
                sequence = f"GOPR{100 * (index % len(towns)) + CONDITIONS.index(condition):04d}"
                picture = render(seed, split, index, condition, size)
                folder = Path(condition) / split / sequence
                name = f"{sequence}_frame_{index:06d}"
                save(root / "rgb_anon" / folder / f"{name}_rgb_anon.png", picture)
                if split == "test":
                    continue
                gt = root / "gt" / folder
                save(gt / f"{name}_gt_labelTrainIds.png", picture.train_ids)
                save(gt / f"{name}_gt_labelIds.png", picture.label_ids)


def _write_mapillary(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    labels = (*MAPILLARY, MAPILLARY_UNLABELLED)
    places = {entry.name: place for place, entry in enumerate(labels)}
    table = np.full(256, places[MAPILLARY_UNLABELLED.name], np.uint8)
    table[list(_MAPILLARY_NAMES)] = [places[name] for name in _MAPILLARY_NAMES.values()]
    for split, part in (("train", "training"), ("val", "validation")):
        for index in range(count):
            picture = render(seed, split, index, "clear", size)
            name = f"streets_{split}_{index:06d}"
            save(root / part / "images" / f"{name}.jpg", picture)
            save_palette(root / part / "labels" / f"{name}.png", table[picture.label_ids], labels)
    described = [{"readable": entry.name, "color": entry.colour} for entry in labels]
    write_json(root / "config.json", {"version": 1.1, "labels": described})


LAYOUTS: dict[str, Callable[[Path, int, tuple[int, int], int], None]] = {
    "cityscapes": _write_cityscapes,
    "acdc": _write_acdc,
    "voc": write_voc,
    "voc_objects": write_voc_objects,
    "coco14": write_coco14,
    "mapillary": _write_mapillary,
    "gta5": write_gta5,
    "synthia": write_synthia,
    "robotcar": write_robotcar,
    "lost_and_found": write_lost_and_found,
    "road_anomaly": write_road_anomaly,
    "road_anomaly_repackaged": write_road_anomaly_repackaged,
    "smiyc_anomaly": write_smiyc_anomaly,
    "smiyc_obstacle": write_smiyc_obstacle,
}
