"""The one map from the ids in label files to train ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.types import IGNORE_INDEX

_UNKNOWN = 254  # in the lookup table: an id outside the map


class LabelMap:
    """Raw ids to train ids, with an explanation of every id that is not in it.

    Attributes:
        table: (256,) uint8, the train id of every raw id, 254 for those outside the map.
        class_names: in the order of the train ids.

    Args:
        train_ids: raw id (0..255) -> train id, or 255 for void.
        class_names: in the order of the train ids, at most 254.
        dataset: the data set's name, for messages.
    """

    def __init__(
        self, train_ids: Mapping[int, int], class_names: Sequence[str], dataset: str
    ) -> None:
        assert len(class_names) <= _UNKNOWN
        assert all(
            train in {*range(len(class_names)), IGNORE_INDEX} for train in train_ids.values()
        )
        self.train_ids = dict(train_ids)
        self.class_names = tuple(class_names)
        self._dataset = dataset
        self.table = np.full(256, _UNKNOWN, np.uint8)
        for raw, train in train_ids.items():
            self.table[raw] = train

    def encode(self, raw: Tensor, path: Path) -> Tensor:
        """Train ids (H, W) uint8 of raw ids (H, W) uint8.

        Raises:
            ValueError: if a value is not in the map, naming the file and the values.
        """
        encoded = cv2.LUT(raw.numpy(), self.table)
        if (encoded == _UNKNOWN).any():
            raise ValueError(f"{path}: {self.problem(np.unique(raw.numpy()).tolist())}")
        return torch.from_numpy(encoded)

    def ood_table(self, ood_ids: Iterable[int]) -> NDArray[np.uint8]:
        """For every raw id: 1 if it is out of distribution, 0 if it is of a class, else 255.

        Args:
            ood_ids: raw ids of unknown objects.

        Returns:
            (256,) uint8.

        Raises:
            ValueError: if an id stands for a class or is none of the data set's label ids.
        """
        table = np.full(256, IGNORE_INDEX, np.uint8)
        table[self.table < len(self.class_names)] = 0
        for raw in ood_ids:
            train = self.train_ids.get(raw)
            if train is None:
                raise ValueError(
                    f"{raw} cannot be out of distribution in {self._dataset}: its label ids are "
                    f"{self}"
                )
            if train != IGNORE_INDEX:
                raise ValueError(
                    f"{raw} cannot be out of distribution in {self._dataset}: {raw} is class "
                    f"{self.class_names[train]}, a known class; its ids of no class are "
                    f"{ranges(self.raw_ids(IGNORE_INDEX)) or 'none'}"
                )
            table[raw] = 1
        return table

    def problem(self, present: Iterable[int]) -> str:
        """What is wrong with a label that holds these raw ids; empty where all are in the map."""
        present = set(present)
        unknown = sorted(present - self.train_ids.keys())
        if not unknown:
            return ""
        values = f"value{'s' * (len(unknown) > 1)} {ranges(unknown)}"
        return (
            f"label {values} outside the classes of {self._dataset}, whose ids are {self}"
            f"{self.binary_hint(present)}"
        )

    def binary_hint(self, present: Iterable[int]) -> str:
        """Advice where labels of many classes hold nothing but 0 and 255, else nothing."""
        looks_binary = set(present) == {0, 255} and len(self.class_names) > 2
        return _BINARY_HINT if looks_binary else ""

    def raw_ids(self, train: int) -> list[int]:
        """The raw ids that become a train id, or void (255)."""
        return sorted(raw for raw, mapped in self.train_ids.items() if mapped == train)

    def __str__(self) -> str:
        parts = [
            f"{ranges(self.raw_ids(train))} = {name}"
            for train, name in enumerate(self.class_names)
            if self.raw_ids(train)
        ]
        void = self.raw_ids(IGNORE_INDEX)
        return "; ".join(parts + [f"{ranges(void)} = void"] * bool(void))


_BINARY_HINT = (
    ". It looks like the mask of one object: use a data set of two classes (--dataset folder"
    " with the ids 0 and 255 in classes.json, or kvasir)"
)


def ranges(values: Sequence[int]) -> str:
    """Ascending integers as text, with runs of three or more shortened: 0-3, 7, 9."""
    parts: list[str] = []
    start = 0
    for end in range(1, len(values) + 1):
        if end < len(values) and values[end] == values[end - 1] + 1:
            continue
        run = values[start:end]
        parts.append(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)))
        start = end
    return ", ".join(parts)
