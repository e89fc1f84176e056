"""ACDC: driving in fog, at night, in rain and in snow, 19 classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from datasets.base import Item, SegDataset
from datasets.files import by_key, image_files, pair
from datasets.taxonomy import ROAD, ROAD_TRAIN_IDS, same_ids

CONDITIONS = ("fog", "night", "rain", "snow")


class ACDC(SegDataset):
    """Adverse Conditions Dataset with Correspondences, 1080x1920, 1600 train and 406 val images.

    The scene of an item is its sequence. The official archives' own top folders
    (``rgb_anon_trainvaltest``, ``gt_trainval``) may be kept. Labels are read from the train ids
    or, where those are missing, from the label ids. The server takes train ids.

    Args:
        root: the folder that holds the data.
        split: train or val; the labels of test are not public.
        condition: fog, night, rain or snow; None for all of them.
        common: what every data set takes (see ``SegDataset``).

    Raises:
        ValueError: for an unknown condition, missing folders, or files that do not pair.
    """

    name = "acdc"
    splits = ("train", "val")
    defaults: ClassVar[dict[str, Any]] = {"crop_size": (768, 768), "train_transform": "resize"}
    layout = """\
  rgb_anon/fog/train/GOPR0475/GOPR0475_frame_000041_rgb_anon.png ...
  gt/fog/train/GOPR0475/GOPR0475_frame_000041_gt_labelTrainIds.png ...  (or _gt_labelIds.png)
  (val, and night, rain and snow alike)"""
    classes = ROAD

    def __init__(
        self, root: Path | str | None, split: str, *, condition: str | None = None, **common: Any
    ) -> None:
        if condition not in (None, *CONDITIONS):
            raise ValueError(
                f"acdc has no condition {condition!r}; its conditions are {', '.join(CONDITIONS)}"
            )
        self.conditions = CONDITIONS if condition is None else (condition,)
        super().__init__(root, split, **common)

    def files(self) -> list[Item]:
        """The pairs of every condition and sequence of the split."""
        images = self._top("rgb_anon", "rgb_anon_trainvaltest")
        labels = self._top("gt", "gt_trainval")
        found = {}
        for condition in self.conditions:
            found[condition] = (
                image_files(self.require(images / condition / self.split), "*/*"),
                image_files(self.require(labels / condition / self.split), "*/*"),
            )
        has_train_ids = any(
            label.stem.endswith("_gt_labelTrainIds")
            for _, files in found.values()
            for label in files
        )
        self.train_ids = same_ids(ROAD) if has_train_ids else ROAD_TRAIN_IDS
        suffix = "_gt_labelTrainIds" if has_train_ids else "_gt_labelIds"
        items: list[Item] = []
        for condition, (image_paths, label_paths) in found.items():
            pairs = pair(
                by_key(image_paths, images / condition / self.split, "_rgb_anon"),
                by_key(label_paths, labels / condition / self.split, suffix),
            )
            items += [
                Item(Path(key).name, image, label, key.split("/")[0], condition)
                for key, image, label in pairs
            ]
        return items

    def _top(self, folder: str, archive: str) -> Path:
        """The folder, directly below the root or below its archive's own folder."""
        inside = self.root / archive / folder
        return inside if inside.is_dir() else self.require(self.root / folder)
