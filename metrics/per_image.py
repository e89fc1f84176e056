"""Counts of every image apart, for intervals from resampled images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.base import check_sizes
from metrics.segmentation import count_pairs
from utils.distributed import all_gather_object
from utils.files import open_atomically
from utils.softmax import most_likely
from utils.types import Batch, ForwardVariant, Prediction

CHUNK = 256  # images


class PerImageCounts:
    """Hits, label pixels and predicted pixels of every class in every image.

    They are the diagonal, the row sums and the column sums of the image's confusion matrix with
    void left out; their sums over the images are those of ``SegmentationMetrics``. The counts
    stay on the device, and nothing waits for it before ``all_reduce``.

    Args:
        class_names: names by train id, at most 255.
    """

    needs: frozenset[str] = frozenset()
    variant: ForwardVariant | None = None

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = tuple(class_names)
        self.ids: list[str] = []
        # (CHUNK, 3, C) int64 each: many small tensors between large ones would scatter the memory
        self.chunks: list[Tensor] = []
        self.counts: NDArray[np.int64] | None = None  # (N, 3, C), sorted by id, of all processes

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Count the images of one batch.

        Raises:
            ValueError: if prediction and label differ in size, naming the first image.
        """
        check_sizes(batch, prediction)
        num_classes = len(self.class_names)
        assert prediction.logits.shape[1] == num_classes, "predictions are over the scored classes"
        predicted = most_likely(prediction.logits)
        for name, label, classes in zip(batch["id"], batch["label"], predicted, strict=True):
            pairs = count_pairs(label, classes, num_classes)[:num_classes]
            place = len(self.ids) % CHUNK
            if place == 0:
                self.chunks.append(pairs.new_empty(CHUNK, 3, num_classes))
            torch.stack((pairs.diagonal(), pairs.sum(1), pairs.sum(0)), out=self.chunks[-1][place])
            self.ids.append(name)

    def all_reduce(self) -> None:
        """Bring the images of all processes together, sorted by id."""
        empty = torch.zeros(0, 3, len(self.class_names), dtype=torch.int64)
        mine = torch.cat([empty, *(chunk.cpu() for chunk in self.chunks)])[: len(self.ids)].numpy()
        gathered = all_gather_object((self.ids, mine))
        ids = [image for part, _ in gathered for image in part]
        assert len(set(ids)) == len(ids), "every image is evaluated once"
        order = sorted(range(len(ids)), key=ids.__getitem__)
        self.ids = [ids[index] for index in order]
        self.counts = np.concatenate([part for _, part in gathered])[order]

    def compute(self) -> dict[str, Any]:
        """Nothing for the result file: the counts go into a file of their own."""
        return {}

    def save(self, path: str | Path) -> None:
        """Write the counts as a compressed ``npz``; call it on one process, after ``all_reduce``.

        It holds ``ids`` (N,) and ``classes`` (C,) as texts, ``hits``, ``in_label`` and
        ``in_prediction`` (N, C) as int64.

        Raises:
            WriteError: if the file cannot be written.
        """
        assert self.counts is not None, "all_reduce comes first"
        hits, in_label, in_prediction = self.counts.transpose(1, 0, 2)
        with open_atomically(path) as file:
            np.savez_compressed(
                file,
                ids=np.array(self.ids, dtype=np.str_),
                classes=np.array(self.class_names, dtype=np.str_),
                hits=hits,
                in_label=in_label,
                in_prediction=in_prediction,
            )
