"""The confusion matrix of one full-size map against the upstream project's way."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import Samples, interleave, ratio
from metrics.segmentation import SegmentationMetrics, count_pairs
from utils.types import IGNORE_INDEX, Batch, Prediction

NUM_CLASSES = 19
SIZE = (1024, 2048)
QUICK_SIZE = (64, 128)
VOID = 0.05  # share of the pixels
BLOCK = 32  # side of the squares of one class, so that counts are as uneven as in real maps
TARGET = 5.0

METHOD = """\
One image of 1024x2048 (height x width), 19 classes, 5 % void. The yardstick is the upstream's way:
labels and predictions as int64 NumPy arrays, a loop over the images, a boolean mask of the
labelled pixels, and one bincount of `classes * label + prediction`. `pairs` is `count_pairs` on a
uint8 label and the int64 classes that the maximum over the logits returns. `update` goes from the
logits: maximum, transfer and count there, `SegmentationMetrics.update` here. Both ways give equal
counts, which is checked first."""


class MaskedBincount:
    """Confusion matrix image by image, as the upstream project counts it."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.matrix = np.zeros((num_classes, num_classes))

    def update(self, labels: Iterable[NDArray], predictions: Iterable[NDArray]) -> None:
        """Add images of (H, W), int64."""
        for label, prediction in zip(labels, predictions, strict=True):
            self.matrix += self.count(label.flatten(), prediction.flatten())

    def count(self, label: NDArray, prediction: NDArray) -> NDArray:
        """The (C, C) counts of flat maps."""
        known = (label >= 0) & (label < self.num_classes)
        codes = self.num_classes * label[known].astype(int) + prediction[known]
        counts = np.bincount(codes, minlength=self.num_classes**2)
        return counts.reshape(self.num_classes, self.num_classes)

    def update_from_logits(self, logits: Tensor, labels: Tensor) -> None:
        """Add a batch as its validation loop does: labels int64 on the device first."""
        predicted = logits.detach().max(dim=1)[1].cpu().numpy()
        self.update(labels.to(dtype=torch.long).cpu().numpy(), predicted)


def run(settings: Settings) -> Section:
    """Counting alone, then the update from the logits."""
    section = Section("Confusion matrix", METHOD)
    labels, logits = maps(QUICK_SIZE if settings.quick else SIZE, settings.device)
    classes = logits.max(1).indices
    check_equal(labels, classes)
    rows: list[Row] = []
    for what, samples in (
        ("pairs", measure_counting(labels, classes, settings)),
        ("update", measure_update(labels, logits, settings)),
    ):
        faster = ratio(samples["upstream's way"], samples["ours"])
        rows.append(
            {
                "part": what,
                "upstream's way, ms": samples["upstream's way"].median * 1000,
                "ours, ms": samples["ours"].median * 1000,
                "times faster": faster,
            }
        )
        if what == "pairs":
            name = "confusion matrix, times faster than the upstream's way"
            section.targets.append(Target(name, faster.median, TARGET, at_most=False))
    section.tables.append(Table("Milliseconds per image:", rows))
    return section


def maps(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """A label (1, H, W), uint8, and logits (1, C, H, W) that are mostly right and smooth."""
    generator = torch.Generator().manual_seed(0)
    coarse = (size[0] // BLOCK, size[1] // BLOCK)
    blocks = torch.randint(0, NUM_CLASSES, coarse, generator=generator, dtype=torch.uint8)
    labels = blocks.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[None]
    small = torch.randn(1, NUM_CLASSES, size[0] // 4, size[1] // 4, generator=generator)
    hits = labels[:, None, ::4, ::4].long()
    small.scatter_add_(1, hits, torch.full(hits.shape, 4.0))
    logits = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
    labels = labels.masked_fill(torch.rand(labels.shape, generator=generator) < VOID, IGNORE_INDEX)
    return labels.to(device), logits.to(device)


def check_equal(labels: Tensor, classes: Tensor) -> None:
    """Assert that both ways count alike."""
    upstream = MaskedBincount(NUM_CLASSES)
    upstream.update(labels.long().cpu().numpy(), classes.cpu().numpy())
    counted = count_pairs(labels, classes, NUM_CLASSES)[:NUM_CLASSES].cpu().numpy()
    assert (upstream.matrix == counted).all(), "the two ways disagree"


def measure_counting(labels: Tensor, classes: Tensor, settings: Settings) -> dict[str, Samples]:
    """From label and prediction to counts; the yardstick's arrays lie on the CPU."""
    upstream = MaskedBincount(NUM_CLASSES)
    label_array, class_array = labels.long().cpu().numpy(), classes.cpu().numpy()
    ours = {"ours": lambda: count_pairs(labels, classes, NUM_CLASSES)}
    return interleave(
        {"upstream's way": lambda: upstream.update(label_array, class_array), **ours},
        repeats=settings.rounds(31),
        warmup=3,
        calls=1 if settings.quick else 3,
        device=settings.device,
    )


def measure_update(labels: Tensor, logits: Tensor, settings: Settings) -> dict[str, Samples]:
    """From logits on the device to counts."""
    upstream = MaskedBincount(NUM_CLASSES)
    metric = SegmentationMetrics([f"class{index}" for index in range(NUM_CLASSES)])
    batch, prediction = Batch(label=labels, id=["image"]), Prediction(logits)
    return interleave(
        {
            "upstream's way": lambda: upstream.update_from_logits(logits, labels),
            "ours": lambda: metric.update(batch, prediction),
        },
        repeats=settings.rounds(15),
        warmup=2,
        device=settings.device,
    )
