"""ACDC: driving in fog, at night, in rain and in snow, 19 classes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from datasets.base import Item, SegDataset
from datasets.files import image_files, pair
from datasets.taxonomy import ROAD, ROAD_TRAIN_IDS, same_ids

CONDITIONS = ("fog", "night", "rain", "snow")


_FOLDERS = {"train": "train", "val": "val", "relis_cal": "val", "relis_test": "train"}
_SUFFIXES = ("_gt_labelTrainIds", "_gt_labelIds")


class ACDC(SegDataset):
    """Adverse Conditions Dataset with Correspondences, 1080x1920, 1600 train and 406 val images.

    The scene of an item is its sequence. The official archives' own top folders
    (``rgb_anon_trainvaltest``, ``gt_trainval``) may be kept. Labels are read from the train ids
    or, where those are missing, from the label ids; if there are ids that count as out of
    distribution, it is the other way round. The server takes train ids. ``relis_cal`` is val,
    ``relis_test`` is train.

    Args:
        root: the folder that holds the data.
        split: train, val, relis_cal or relis_test; the labels of test are not public.
        condition: fog, night, rain or snow; None for all of them.
        common: what every data set takes (see ``SegDataset``).

    Raises:
        ValueError: for an unknown condition, missing folders, or files that do not pair.
    """

    name = "acdc"
    splits = tuple(_FOLDERS)
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
        folders = [Path(condition, _FOLDERS[self.split]) for condition in self.conditions]
        suffix = self._label_suffix(labels, folders)
        items: list[Item] = []
        for condition, folder in zip(self.conditions, folders, strict=True):
            pairs = pair(
                self.images_in(images / folder, "*/*", "_rgb_anon"),
                self.labels_in(labels / folder, "*/*", suffix),
            )
            items += [
                Item(Path(key).name, image, label, key.split("/")[0], condition)
                for key, image, label in pairs
            ]
        return items

    def _label_suffix(self, labels: Path, folders: Iterable[Path]) -> str:
        """How the names of the labels end that are read, whose ids become ``train_ids``."""
        preferred, other = _SUFFIXES[::-1] if self.ood_ids else _SUFFIXES
        if not self.reads_labels:
            return preferred
        found = [image_files(self.require(labels / folder), "*/*") for folder in folders]
        stems = [path.stem for paths in found for path in paths]
        suffix = preferred if any(stem.endswith(preferred) for stem in stems) else other
        if self.ood_ids and suffix != preferred:
            raise ValueError(
                f"{labels} holds train ids, in which every unknown object is void: to tell some of"
                f" them apart, put the files *{preferred}.png there, too"
            )
        self.train_ids = dict(same_ids(ROAD) if suffix == _SUFFIXES[0] else ROAD_TRAIN_IDS)
        return suffix

    def _top(self, folder: str, archive: str) -> Path:
        """The folder, directly below the root or below its archive's own folder."""
        inside = self.root / archive / folder
        return inside if inside.is_dir() else self.root / folder
