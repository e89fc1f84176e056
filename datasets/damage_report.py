"""How far damaged labels are from those of the files."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from datasets.base import SegDataset
from datasets.damage import DamagedLabels
from datasets.parallel import threaded
from utils.statistics import iou_percent


class DamageReport(NamedTuple):
    """What damage does to the labels of a split.

    Attributes:
        changed: of the labelled pixels, in percent.
        miou: of the damaged labels against those of the files, in percent.
    """

    changed: float
    miou: float

    def __str__(self) -> str:
        return (
            f"damaged labels: {self.changed:.1f} % of the labelled pixels changed; against the"
            f" files their mIoU is {self.miou:.1f} %"
        )


def report_damage(dataset: SegDataset, damage: DamagedLabels) -> DamageReport:
    """Damage every label of a split, as training would, and compare.

    Args:
        dataset: with its label files.
        damage: what is done to them.

    Raises:
        ValueError: if a label is bad, naming the file.
    """
    classes = dataset.num_classes

    def count(index: int) -> NDArray[np.int64]:
        """Pixels by class in the file and class after the damage, (C, C)."""
        label = dataset.read(index)[1]
        after = damage(label, dataset.originals[index].id, dataset.background)
        known = label < classes
        pairs = label[known].long() * classes + after[known].long()
        return torch.bincount(pairs, minlength=classes**2).view(classes, classes).numpy()

    counted = threaded(count, len(dataset), f"damage of {dataset.split}")
    matrix = sum(counted, np.zeros((classes, classes), np.int64)).astype(float)
    hits = matrix.diagonal()
    miou = float(iou_percent(hits, matrix.sum(1), matrix.sum(0))[-1])
    return DamageReport(100 * (1 - hits.sum() / matrix.sum()), miou)
