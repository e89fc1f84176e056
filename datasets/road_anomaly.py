"""RoadAnomaly: photographs of roads with unexpected things on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from datasets.anomalies import ANOMALY_SIZES, KNOWN, UNKNOWN, AnomalyDataset
from datasets.base import Item
from datasets.files import pair
from utils.types import IGNORE_INDEX

_AS_PUBLISHED = MappingProxyType({0: KNOWN, 2: UNKNOWN, IGNORE_INDEX: IGNORE_INDEX})
_REPACKAGED = MappingProxyType({**dict.fromkeys(range(256), IGNORE_INDEX), 0: KNOWN, 1: UNKNOWN})


class RoadAnomaly(AnomalyDataset):
    """RoadAnomaly, 60 images, 720x1280, of animals, rocks, cones, tyres and odd vehicles on roads.

    Whatever is no anomaly is known, on the road and beside it. Both public layouts are read: the
    authors' one (``frames``; 0 known, 2 unknown) and the re-packaged one (``original``; 0 known,
    1 unknown, all else void). Where there is a ``frame_list.json``, it says which frames count.
    """

    name = "road_anomaly"
    splits = ("test",)
    component_sizes: ClassVar[tuple[int, int]] = ANOMALY_SIZES
    layout = """\
  frames/animals31_deer.jpg ...   (.jpg, .webp or .png)
  frames/animals31_deer.labels/labels_semantic.png ...
  frame_list.json
  or original/animals31_deer.jpg ... and labels/animals31_deer.png ..."""

    def files(self) -> list[Item]:
        """The pairs of the layout that is there."""
        frames = self.root / "frames"
        if frames.is_dir():
            self.ood_values = dict(_AS_PUBLISHED)
            images = self.images_in(frames)
            labels = labels_of_frames(frames) if self.reads_labels else None
            if (path := self.root / "frame_list.json").is_file():
                names = read_frame_list(path, images)
                images = {name: images[name] for name in names}
                labels = labels and {name: labels[name] for name in names if name in labels}
        else:
            self.ood_values = dict(_REPACKAGED)
            images = self.images_in(self.root / "original")
            labels = self.labels_in(self.root / "labels")
        return [Item(key, image, label) for key, image, label in pair(images, labels)]


def labels_of_frames(frames: Path) -> dict[str, Path]:
    """``NAME.labels/labels_semantic.png`` in a folder by NAME."""
    return {
        path.parent.name.removesuffix(".labels"): path
        for path in frames.glob("*.labels/labels_semantic.png")
    }


def read_frame_list(path: Path, images: Mapping[str, Path]) -> list[str]:
    """The stems of the images that a JSON list names.

    Args:
        path: the list.
        images: the images that are there, by stem.

    Raises:
        ValueError: if it is no list of names, or an image is missing.
    """
    try:
        names = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} must be a list of names of images")
    for name in names:
        if Path(name).stem not in images:
            raise ValueError(
                f"{path} lists {name}, which is not in {path.parent / 'frames'}: put it there, or"
                " take it off the list"
            )
    return [Path(name).stem for name in names]
