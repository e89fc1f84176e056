"""What scores know of data with known classes: maximum logits by class, penultimate features.

Gathered in one pass over a split without looking at its labels (``--fit_score``). All are sums, so
the result depends on batches, order and number of processes by rounding only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from uncertainty.activations import HeadStatistics, HeadSums, class_heads
from uncertainty.combination import mean_logits, member_count, members_of
from uncertainty.logit_maps import top_logit
from utils.distributed import all_gather_object, all_reduce_sum
from utils.types import Batch, ForwardVariant, Prediction

LEAST_VARIANCE = 1e-6  # of maximum logits, so that standardised ones stay finite


@dataclass(frozen=True, eq=False)
class ClassMoments:
    """Count, sum and sum of squares of the maximum logit, by the class that it predicts.

    Attributes:
        count: (C,), int64, pixels predicted each class.
        total: (C,), float64.
        squares: (C,), float64.
    """

    count: Tensor
    total: Tensor
    squares: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of each class, (C,) float64; of all pixels for a class of fewer than two."""
        return self._filled(self.total, self.count)

    @property
    def variance(self) -> Tensor:
        """Variance with n in the divisor, (C,) float64, at least ``LEAST_VARIANCE``.

        A class that fewer than two pixels are predicted has that of all pixels together.
        """
        mean = self.mean
        return (self._filled(self.squares, self.count) - mean.square()).clamp(min=LEAST_VARIANCE)

    def _filled(self, total: Tensor, count: Tensor) -> Tensor:
        """Sums over counts, for rare classes those of all pixels."""
        overall = total.sum() / count.sum()
        return torch.where(count < 2, overall, total / count.clamp(min=1))


@dataclass(frozen=True, eq=False)
class ScoreStatistics:
    """What sml, react and dice are fitted on.

    Attributes:
        members: maximum logits of each member, or of the one network.
        joint: those of the mean of the members' logits; of one member its own.
        heads: of each class head in the order of ``class_heads``; none for a network without.
        manifest: what they were made from; ``classes`` and ``network`` tell whether they fit.
    """

    members: tuple[ClassMoments, ...]
    joint: ClassMoments
    heads: tuple[HeadStatistics, ...] = ()
    manifest: dict[str, Any] = field(default_factory=dict)

    def moments(self, place: int | None, members: int) -> ClassMoments:
        """The maximum logits of a member by its place, or of the mean of the logits by None.

        Those of a single network also serve its samples of dropout.

        Args:
            place: of the member.
            members: how many the prediction has.

        Raises:
            ValueError: if the prediction has another number of members.
        """
        if len(self.members) not in {1, members}:
            raise ValueError(
                f"the statistics of sml were made with {len(self.members)} members and this "
                f"prediction has {members}: make them again with the flags of this run"
            )
        if place is None:
            return self.joint
        return self.members[place if len(self.members) > 1 else 0]


class StatisticsCollector:
    """A consumer that gathers ``ScoreStatistics`` from the plain forward pass.

    What the heads see is counted by hooks, so the pass runs inside ``with collector.attached()``
    and without forward variants. A network that is run several times for an image (windows, scales,
    samples) is counted every time.

    Args:
        network: the deployable network; None where there are only predictions.
    """

    needs: frozenset[str] = frozenset()
    variant: ForwardVariant | None = None

    def __init__(self, network: nn.Module | None) -> None:
        self.heads = class_heads(network) if network is not None else []
        self.members: list[MomentSums] = []
        self.joint: MomentSums | None = None
        self.seen = [HeadSums(head) for head in self.heads]

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Count what the heads see meanwhile."""
        hooks = [
            cast(nn.Module, head).register_forward_pre_hook(seen.hook)
            for head, seen in zip(self.heads, self.seen, strict=True)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Take in one batch.

        Raises:
            ValueError: if the number of members or classes changes on the way.
        """
        count, classes = member_count(prediction), prediction.logits.shape[1]
        if not self.members:
            self._begin(count, classes, prediction.logits.device)
        known = len(self.members), len(self.members[0].count)
        if known != (count, classes):
            raise ValueError(
                f"predictions of {known[0]} members over {known[1]} classes are followed by one of "
                f"{count} over {classes}; statistics are of one model"
            )
        for sums, member in zip(self.members, members_of(prediction), strict=True):
            sums.add(member.logits)
        if self.joint is not None:
            self.joint.add(mean_logits(prediction).logits)

    def all_reduce(self) -> None:
        """Add up over the processes, some of which may have seen no image."""
        own = (len(self.members), len(self.members[0].count)) if self.members else None
        for sizes in all_gather_object(own):
            if sizes is not None and not self.members:
                device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
                self._begin(sizes[0], sizes[1], device)
        for moments in self._moments():
            all_reduce_sum(moments.count)
            all_reduce_sum(moments.sums)
        for seen in self.seen:
            seen.all_reduce()

    def compute(self) -> dict[str, Any]:
        """An empty dict: the result is ``statistics``."""
        return {}

    def statistics(self, manifest: dict[str, Any] | None = None) -> ScoreStatistics:
        """What was gathered, on the CPU.

        Raises:
            ValueError: if there was no image.
        """
        if not self.members:
            raise ValueError("statistics of scores need at least one image, and there was none")
        found = [moments.result() for moments in self._moments()]
        return ScoreStatistics(
            members=tuple(found[: len(self.members)]),
            joint=found[-1],
            heads=tuple(seen.result() for seen in self.seen),
            manifest=dict(manifest or {}),
        )

    def _begin(self, members: int, classes: int, device: torch.device) -> None:
        """Start counting for that many members and classes."""
        self.members = [MomentSums.empty(classes, device) for _ in range(members)]
        self.joint = MomentSums.empty(classes, device) if members > 1 else None

    def _moments(self) -> list[MomentSums]:
        """Of the members, then of their mean logits where there are several."""
        return [*self.members, *([self.joint] if self.joint is not None else [])]


@dataclass
class MomentSums:
    """Running ``ClassMoments`` on the device of the logits."""

    count: Tensor  # (C,), int64
    sums: Tensor  # (2, C), float64: of values and of squares

    @classmethod
    def empty(cls, classes: int, device: torch.device) -> MomentSums:
        """Zeros for that many classes."""
        count = torch.zeros(classes, dtype=torch.int64, device=device)
        return cls(count, torch.zeros(2, classes, dtype=torch.float64, device=device))

    def add(self, logits: Tensor) -> None:
        """Count the highest logits of a map (N, C, H, W)."""
        classes, highest = top_logit(logits)
        index, values = classes.flatten().int(), highest.flatten().double()
        self.count.index_add_(0, index, torch.ones_like(index, dtype=torch.int64))
        self.sums[0].index_add_(0, index, values)
        self.sums[1].index_add_(0, index, values.square())

    def result(self) -> ClassMoments:
        """What was counted, on the CPU."""
        return ClassMoments(self.count.cpu(), *self.sums.cpu())
