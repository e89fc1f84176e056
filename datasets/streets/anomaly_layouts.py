"""Writing streets with unknown obstacles the way test sets of unknown objects lie on disk."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from datasets.streets.layout_files import save
from datasets.streets.look import CONDITIONS
from datasets.streets.paints import Surface
from datasets.streets.render import Picture, render
from datasets.streets.towns import TOWNS
from utils.files import write_json
from utils.types import IGNORE_INDEX

_LOST_ROAD, _LOST_FIRST, _LOST_POST = 1, 2, 33  # label ids of Lost and Found
_LOST_LAST = 30  # of the hazards that no other id lies between


def write_lost_and_found(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """Sequences of train and test; street furniture stands for posts, which are no hazards."""
    for split in ("train", "test"):
        towns = TOWNS[split]
        for index in range(count):
            town = index % len(towns)
            sequence = f"{town + 1:02d}_{towns[town].name.capitalize()}_{town}"
            name = f"{sequence}/{sequence}_{index:06d}_000030"
            picture = _with_obstacles(seed, split, index, "clear", size)
            save(root / "leftImg8bit" / split / f"{name}_leftImg8bit.png", picture)
            gt = root / "gtCoarse" / split
            save(gt / f"{name}_gtCoarse_labelIds.png", _lost_label_ids(picture))
            save(gt / f"{name}_gtCoarse_labelTrainIds.png", _lost_train_ids(picture))


def _lost_label_ids(picture: Picture) -> NDArray[np.uint8]:
    """0 beside the road, 1 free road, one id for each obstacle, 33 posts."""
    surface = picture.label_ids
    ids = np.where(surface == Surface.ROAD, _LOST_ROAD, 0)
    is_obstacle = (surface == Surface.OBSTACLE).astype(np.uint8)
    component = cv2.connectedComponents(is_obstacle, connectivity=8)[1]
    kinds = _LOST_LAST - _LOST_FIRST + 1
    ids = np.where(is_obstacle > 0, _LOST_FIRST + (component - 1) % kinds, ids)
    return np.where(surface == Surface.STATIC, _LOST_POST, ids).astype(np.uint8)


def _lost_train_ids(picture: Picture) -> NDArray[np.uint8]:
    """0 objects that are no hazards, 1 free road, 2 hazards, 255 void."""
    return _by_surface(
        picture, {Surface.STATIC: 0, Surface.ROAD: 1, Surface.OBSTACLE: 2}, IGNORE_INDEX
    )


def write_road_anomaly(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """As its authors publish it: 0 known, 2 unknown."""
    names = [f"obstacles{index:02d}_streets.jpg" for index in range(count)]
    for index, name in enumerate(names):
        picture = _with_obstacles(seed, "test", index, "clear", size)
        save(root / "frames" / name, picture)
        label = _by_surface(picture, {Surface.OBSTACLE: 2}, 0)
        save(root / "frames" / Path(name).with_suffix(".labels") / "labels_semantic.png", label)
    write_json(root / "frame_list.json", names)


def write_road_anomaly_repackaged(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """As others publish it again: 0 known, 1 unknown."""
    for index in range(count):
        name = f"obstacles{index:02d}_streets"
        picture = _with_obstacles(seed, "test", index, "clear", size)
        save(root / "original" / f"{name}.jpg", picture)
        save(root / "labels" / f"{name}.png", _by_surface(picture, {Surface.OBSTACLE: 1}, 0))


def write_smiyc_anomaly(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """Unknown is every obstacle, void the ego vehicle, known all else."""
    values = {Surface.OBSTACLE: 1, Surface.EGO_VEHICLE: IGNORE_INDEX}
    for index in range(count):
        picture = _with_obstacles(seed, "val", index, "clear", size)
        _save_labelled(root, f"validation{index:04d}", picture, _by_surface(picture, values, 0))
        unlabelled = _with_obstacles(seed, "test", index, "clear", size)
        save(root / "images" / f"streets{index:04d}.jpg", unlabelled)


def write_smiyc_obstacle(root: Path, count: int, size: tuple[int, int], seed: int) -> None:
    """In all conditions in turn; known is the road alone, what lies outside it is void."""
    values = {Surface.OBSTACLE: 1, Surface.ROAD: 0}
    for index in range(count):
        condition = CONDITIONS[index % len(CONDITIONS)]
        picture = _with_obstacles(seed, "val", index, condition, size)
        label = _by_surface(picture, values, IGNORE_INDEX)
        _save_labelled(root, f"validation_{index + 1}", picture, label)
        unlabelled = _with_obstacles(seed, "test", index, condition, size)
        save(root / "images" / f"streets_{index + 1}.jpg", unlabelled)


def _save_labelled(root: Path, name: str, picture: Picture, label: NDArray[np.uint8]) -> None:
    save(root / "images" / f"{name}.jpg", picture)
    save(root / "labels_masks" / f"{name}_labels_semantic.png", label)


def _with_obstacles(
    seed: int, split: str, index: int, condition: str, size: tuple[int, int]
) -> Picture:
    return render(seed, split, index, condition, size, has_obstacles=True)


def _by_surface(picture: Picture, values: dict[Surface, int], other: int) -> NDArray[np.uint8]:
    """A value for each label id (H, W) uint8."""
    table = np.full(256, other, np.uint8)
    table[list(values)] = list(values.values())
    return table[picture.label_ids]
