"""Accuracies, IoU and dice from one confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.base import StreamingMetric, Sums
from metrics.bootstrap import Bootstrap
from utils.softmax import most_likely
from utils.types import IGNORE_INDEX, Batch, Prediction

NOTHING: Mapping[str, Set[str]] = MappingProxyType({})
NO_SUBSETS: Mapping[str, Sequence[int]] = MappingProxyType({})
LABEL_VALUES = 256  # a row for every value a uint8 label can have, so that nothing needs a mask
EXACT_IN_FLOAT32 = 1 << 24  # OpenCV returns counts as float32


def count_pairs(labels: Tensor, predictions: Tensor, num_classes: int) -> Tensor:
    """How often each label value meets each predicted class.

    Args:
        labels: uint8, any shape; every value is counted, void and unknown ones too.
        predictions: the same shape, any integer type, values below ``num_classes``.
        num_classes: at most 255.

    Returns:
        (256, num_classes), int64, on the device of the labels, without waiting for it.
    """
    bins = LABEL_VALUES * num_classes
    if labels.is_cuda:  # bincount would wait for the device to learn the largest value
        codes = labels.int().mul_(num_classes).add_(predictions).flatten()
        counts = torch.histc(codes, bins, 0, bins).long()
    else:
        codes = predictions.to(torch.int16).add_(labels, alpha=num_classes).flatten()
        counts = torch.zeros(bins, dtype=torch.int64, device=labels.device)
        for part in codes.cpu().split(EXACT_IN_FLOAT32):
            row = part.numpy().view(np.uint16)[None]  # codes may exceed int16, never uint16
            histogram = cv2.calcHist([row], [0], None, [bins], [0, bins])
            counts += torch.from_numpy(histogram).flatten().to(counts)
    return counts.view(LABEL_VALUES, num_classes)


class SegmentationMetrics(StreamingMetric):
    """Overall, mean-class and frequency-weighted accuracy, IoU and dice, class by class.

    With the confusion matrix n (rows label, columns prediction, void left out), the row sums t
    and the column sums p: overall accuracy sum n_cc / sum t, class accuracy n_cc / t_c, IoU
    n_cc / (t_c + p_c - n_cc), dice 2 n_cc / (t_c + p_c). The mean accuracy is over the classes
    in the labels; mIoU and mean dice are over the classes in labels or predictions, as published.
    The frequency-weighted accuracy is that of the published code, sum t_c IoU_c / sum t.
    ``miou_NAME`` is the mIoU over a subset of the classes, whose IoUs stay those of all classes: a
    pixel of a class outside it that is taken for one inside lowers the latter's.
    All in percent; what is undefined (a class that occurs nowhere) is None, never nan.

    Args:
        class_names: names by train id, at most 255.
        unannotated: by data set, the classes that its labels never show although the scenes do;
            what they cover is void there. Over such a data set alone their scores are None.
        subsets: train ids of the classes of further means, by what follows ``miou_``.
        per_scene: also report every scene.
        bootstrap: resampling of the images, see ``StreamingMetric``.
    """

    units: ClassVar[dict[str, str]] = {
        "overall_accuracy": "percent",
        "mean_accuracy": "percent",
        "frequency_weighted_accuracy": "percent",
        "miou": "percent",
        "mean_dice": "percent",
        "class_accuracy": "percent",
        "class_iou": "percent",
        "class_dice": "percent",
        "classes_seen": "classes",
        "pixels": "pixels",
    }

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        unannotated: Mapping[str, Set[str]] = NOTHING,
        subsets: Mapping[str, Sequence[int]] = NO_SUBSETS,
        per_scene: bool = False,
        bootstrap: Bootstrap | None = None,
    ) -> None:
        super().__init__(per_scene=per_scene, bootstrap=bootstrap)
        assert len(class_names) <= IGNORE_INDEX, "train ids are uint8 and 255 is void"
        self.class_names = tuple(class_names)
        self.unannotated = {name: frozenset(classes) for name, classes in unannotated.items()}
        self.subsets = {f"miou_{name}": list(ids) for name, ids in subsets.items()}
        assert all(max(ids) < len(class_names) for ids in self.subsets.values())
        # of this instance alone: which means there are depends on the data
        self.units = {**self.units, **dict.fromkeys(self.subsets, "percent")}  # type: ignore[misc]

    def sums_of(self, batch: Batch, prediction: Prediction) -> Sums:
        """Counts of (label value, predicted class)."""
        labels, num_classes = batch["label"], prediction.logits.shape[1]
        pairs = count_pairs(labels, most_likely(prediction.logits), num_classes)
        missing = self.unannotated.get(batch["dataset"][0]) if "dataset" in batch else None
        if not missing:
            return {"pairs": pairs, "annotated": torch.ones_like(pairs[0])}
        return {
            "pairs": pairs,
            "annotated": pairs.new_tensor([name not in missing for name in self.class_names]),
        }

    def finish(self, sums: Sums) -> dict[str, Any]:
        """The numbers of the class docstring.

        Raises:
            ValueError: if labels hold values that are neither a class nor void.
        """
        pairs = sums["pairs"].cpu().numpy()
        self._refuse_unknown(pairs.sum(axis=1))
        confusion = pairs[: len(self.class_names)].astype(np.float64)
        hits, in_label, in_prediction = np.diag(confusion), confusion.sum(1), confusion.sum(0)
        accuracy = _percent(hits, in_label)
        iou = _percent(hits, in_label + in_prediction - hits)
        dice = _percent(2 * hits, in_label + in_prediction)
        never = sums["annotated"].cpu().numpy() == 0
        for scores in (accuracy, iou, dice):
            scores[never] = np.nan
        return {
            "overall_accuracy": _mean(accuracy, in_label),
            "mean_accuracy": _mean(accuracy),
            "frequency_weighted_accuracy": _mean(iou, in_label),
            "miou": _mean(iou),
            **{name: _mean(iou[ids]) for name, ids in self.subsets.items()},
            "mean_dice": _mean(dice),
            "classes_seen": int((in_label > 0).sum()),
            "pixels": int(in_label.sum()),
            "class_accuracy": self._by_class(accuracy),
            "class_iou": self._by_class(iou),
            "class_dice": self._by_class(dice),
        }

    def _refuse_unknown(self, counts: NDArray[np.int64]) -> None:
        """Raise when a label value is neither a class nor void."""
        values = np.flatnonzero(counts[:IGNORE_INDEX])
        unknown = values[values >= len(self.class_names)]
        if unknown.size:
            listed = ", ".join(f"{value} ({counts[value]} pixels)" for value in unknown)
            raise ValueError(
                f"label values outside the {len(self.class_names)} classes: {listed}; expected "
                f"0..{len(self.class_names) - 1} or {IGNORE_INDEX} for void (--check_data names "
                "the files)"
            )

    def _by_class(self, values: NDArray[np.float64]) -> dict[str, float | None]:
        return {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(self.class_names, values, strict=True)
        }


def _percent(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """100 part / whole, nan where there is no whole."""
    return np.divide(100 * part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> float | None:
    """Mean of the values that exist, None where there is none."""
    known = ~np.isnan(values)
    shares = np.ones_like(values) if weights is None else weights
    total = shares[known].sum()
    return float(values[known] @ shares[known] / total) if total else None
