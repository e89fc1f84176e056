"""Balancing of classes and choice of hard pixels beside the published way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import Row, Settings
from benchmarks.timing import interleave, ratio
from losses.class_balance import MOMENTUM, percentile
from methods.two_heads import TwoHeadLoss
from utils.types import IGNORE_INDEX

TOLERANCE = 1e-6  # of thresholds, relative


class Maps(NamedTuple):
    """What the balancing of a batch is given, each (N, H, W)."""

    labels: Tensor  # uint8
    losses: tuple[Tensor, Tensor]  # of the main and of the auxiliary head


class Balanced(NamedTuple):
    """What it gives back."""

    class_weights: Tensor  # (C,)
    labels: list[Tensor]  # of each head, (N, H, W), void where a pixel is too easy


class PublishedBalancing:
    """Class weights and hard pixels in the published way.

    Args:
        ours: whose flags are to be followed, and whose running vector is the first one.
    """

    def __init__(self, ours: TwoHeadLoss) -> None:
        self.opts, self.num_classes = ours.opts, ours.num_classes
        self.often = ours.balance.often_weights.clone()

    def __call__(self, maps: Maps) -> Balanced:
        """Both for one batch."""
        weights = self.class_weights(maps.labels)
        return Balanced(weights, [self.hardest(loss, maps.labels) for loss in maps.losses])

    def class_weights(self, labels: Tensor) -> Tensor:
        """A comparison of all pixels for every class, whose count the host waits for."""
        small, absent = torch.ones(2, self.num_classes)
        for number in range(self.num_classes):
            count = int((labels == number).sum())
            if count < self.opts.small_object_pixels * len(labels):
                small[number] = self.opts.max_value
            if count == 0:
                absent[number] = self.opts.max_value
        self.often = self.often.lerp(absent.to(labels.device), MOMENTUM)
        return small.to(labels.device) * self.often

    def threshold(self, loss: Tensor) -> float:
        """The percentile of a loss map (N, H, W), found on the host."""
        return float(np.percentile(loss.cpu().numpy(), self.opts.only_hard_label))

    def hardest(self, loss: Tensor, labels: Tensor) -> Tensor:
        """The labels with void below the threshold."""
        kept = labels.clone()
        kept[loss < self.threshold(loss)] = IGNORE_INDEX
        return kept


def our_balancing(loss: TwoHeadLoss, maps: Maps) -> Balanced:
    """What the method does with a batch."""
    weights = loss.class_weights(maps.labels)
    return Balanced(weights, [loss.hardest(each, maps.labels) for each in maps.losses])


def check_equal(loss: TwoHeadLoss, maps: Maps) -> None:
    """Assert that both ways find the same weights, batch after batch, thresholds and pixels."""
    published = PublishedBalancing(loss)
    for _ in range(3):
        mine, theirs = our_balancing(loss, maps), published(maps)
        assert torch.equal(mine.class_weights, theirs.class_weights), "the class weights differ"
    for each, chosen, wanted in zip(maps.losses, mine.labels, theirs.labels, strict=True):
        threshold = float(percentile(each, loss.opts.only_hard_label))
        reference = published.threshold(each)
        margin = TOLERANCE * reference  # pixels that close may fall on either side
        assert abs(threshold - reference) <= margin, "the thresholds differ"
        at_threshold = (each - reference).abs() <= margin
        assert ((chosen == wanted) | at_threshold).all(), "the hard pixels differ"


def compare(loss: TwoHeadLoss, maps: Maps, settings: Settings) -> list[Row]:
    """Time of the balancing and of its halves, in both ways, which are checked to agree."""
    check_equal(loss, maps)
    published = PublishedBalancing(loss)
    calls: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "class weights": (
            partial(loss.class_weights, maps.labels),
            partial(published.class_weights, maps.labels),
        ),
        "hard pixels": (
            lambda: [loss.hardest(each, maps.labels) for each in maps.losses],
            lambda: [published.hardest(each, maps.labels) for each in maps.losses],
        ),
        "both": (partial(our_balancing, loss, maps), partial(published, maps)),
    }
    rows: list[Row] = []
    for name, (mine, theirs) in calls.items():
        samples = interleave(
            {"ours": mine, "published": theirs},
            repeats=settings.rounds(9),
            warmup=2,
            device=settings.device,
        )
        row: Row = {"of the balancing": name}
        row |= {f"{way}, ms": timed.median * 1000 for way, timed in samples.items()}
        row["times faster"] = ratio(samples["published"], samples["ours"])
        rows.append(row)
    return rows
