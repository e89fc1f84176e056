"""What each epoch of training shows, and how its steps are shared out among processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch.utils.data import Sampler

from datasets.items import SampleKey


class EpochOrder(Protocol):
    """What each epoch shows and in which order: the same in every process and after a restart."""

    @property
    def shortest(self) -> int:
        """The number of images in the shortest epoch."""
        ...

    def length(self, epoch: int) -> int:
        """The number of images in an epoch."""
        ...

    def keys(self, epoch: int) -> list[SampleKey]:
        """The images of an epoch, in their order."""
        ...


@dataclass(frozen=True)
class Permutations:
    """Every image once per epoch, in an order drawn from (seed, epoch).

    Attributes:
        shortest: the number of images.
        seed: of the permutations.
    """

    shortest: int
    seed: int = 0

    def length(self, epoch: int) -> int:
        """The number of images."""
        return self.shortest

    def keys(self, epoch: int) -> list[SampleKey]:
        """The images of an epoch, in their order."""
        seeds = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
        order = np.random.default_rng(seeds).permutation(self.shortest)
        return [SampleKey(epoch, index) for index in order.tolist()]


def epoch_steps(length: int, images_per_step: int) -> int:
    """Optimizer steps in an epoch of that many images; an incomplete last step is dropped."""
    return length // images_per_step


def epoch_of(step: int, order: EpochOrder, images_per_step: int) -> tuple[int, int]:
    """The epoch that an optimizer step belongs to, and its place there, both from 0."""
    epoch = 0
    while step >= (steps := epoch_steps(order.length(epoch), images_per_step)):
        assert steps > 0
        step -= steps
        epoch += 1
    return epoch, step


class StepSampler(Sampler[list[SampleKey]]):
    """The items of every micro-batch of one process, without end.

    An optimizer step takes the next ``batch_size * accumulation * world_size`` entries of its
    epoch, and an incomplete last step is dropped. Epochs may differ in length.

    Args:
        order: what each epoch shows.
        batch_size: images per process and micro-batch.
        accumulation: micro-batches per optimizer step.
        start_step: the first optimizer step.
        rank: this process's place among ``world_size``.
        world_size: number of processes.

    Raises:
        ValueError: if there are fewer images in an epoch than one optimizer step takes.
    """

    def __init__(
        self,
        order: EpochOrder,
        batch_size: int,
        accumulation: int = 1,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        assert 0 <= rank < world_size
        self.order = order
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size
        shares = accumulation * world_size
        self.images_per_step = batch_size * shares
        if self.images_per_step > order.shortest:
            fitting = order.shortest // shares * shares
            advice = f"--batch_size {fitting} fits" if fitting else "give it more images"
            what = "the training split" if isinstance(order, Permutations) else "an epoch"
            raise ValueError(
                f"one step takes {self.images_per_step} images, {what} has {order.shortest}; "
                f"{advice}"
            )

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """The keys of one micro-batch after the other."""
        epoch, step = epoch_of(self.start_step, self.order, self.images_per_step)
        while True:
            keys = self.order.keys(epoch)
            for first in range(step, epoch_steps(len(keys), self.images_per_step)):
                for micro_batch in range(self.accumulation):
                    share = (first * self.accumulation + micro_batch) * self.world_size + self.rank
                    yield keys[share * self.batch_size :][: self.batch_size]
            epoch, step = epoch + 1, 0
