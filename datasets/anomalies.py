"""What data sets of unknown objects share: labels that say known, unknown or neither."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import SegDataset
from datasets.labels import LabelMap
from utils.types import IGNORE_INDEX

KNOWN, UNKNOWN = 0, 1  # values of a sample's "ood"
ANOMALY_SIZES = (500, 100)  # limits of SegmentMeIfYouCan's anomaly track (arXiv 2104.14812),
OBSTACLE_SIZES = (50, 10)  # and of its obstacle track


class AnomalyDataset(SegDataset):
    """Test images whose labels tell known from unknown pixels and name no class.

    Every pixel of a sample's "label" is void; its "ood" (0 known, 1 unknown, 255 neither) comes
    from the label file. Ids in ``ood_ids`` are void ids of the label files that count as unknown,
    too; those that are unknown anyway may be among them.

    Attributes:
        ood_values: id in a label file -> 0 known, 1 unknown or 255 neither; ``files`` may set it.
        component_sizes: pixels of the smallest predicted and of the smallest true object that
            metrics of whole objects count.

    Raises:
        ValueError: as ``SegDataset`` does, and for ids in ``ood_ids`` that are known or no ids of
            the label files.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "val_split": "test",
        "val_batch_size": 1,
        "metrics": ["ood", "components"],
    }
    ood_values: Mapping[int, int] = {}
    component_sizes: ClassVar[tuple[int, int]]

    @cached_property
    def label_map(self) -> LabelMap:
        """The map from the ids in label files to 0 known, 1 unknown and 255 neither."""
        published = LabelMap(self.ood_values, ("known", "unknown"), self.name)
        refused = [i for i in self.ood_ids if self.ood_values.get(i) not in (UNKNOWN, IGNORE_INDEX)]
        if refused:
            raise ValueError(
                f"{refused[0]} cannot be out of distribution in {self.name}, whose label ids are"
                f" {published}: name ids that are void there"
            )
        named = dict.fromkeys(self.ood_ids, UNKNOWN)
        return LabelMap({**self.ood_values, **named}, published.class_names, self.name)

    def ood_table(self) -> NDArray[np.uint8]:
        """For every id of the label files 1 if unknown, 0 if known, else 255; (256,) uint8."""
        return self.label_map.table

    def encode_label(self, raw: Tensor, path: Path) -> Tensor:
        """All void (H, W) uint8, for ids (H, W) uint8 that are in the map.

        Raises:
            ValueError: if a value is outside ``ood_values``, naming the file and the values.
        """
        return torch.full_like(self.label_map.encode(raw, path), IGNORE_INDEX)
