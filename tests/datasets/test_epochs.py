from collections import Counter
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pytest

from datasets.epochs import Permutations, StepSampler, epoch_of, epoch_steps
from datasets.items import SampleKey


@dataclass(frozen=True)
class Lengths:
    """Epochs of given lengths, the last of them for ever."""

    lengths: tuple[int, ...]

    @property
    def shortest(self):
        return min(self.lengths)

    def length(self, epoch):
        return self.lengths[min(epoch, len(self.lengths) - 1)]

    def keys(self, epoch):
        return [SampleKey(epoch, index) for index in range(self.length(epoch))]


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (1, 6), (2, 3), (3, 1), (3, 2)])
def test_processes_and_micro_batches_share_a_step(world_size, accumulation):
    """However six images are shared out, a step sees the same six."""
    order = Permutations(20, 9)
    share = 6 // world_size // accumulation
    samplers = [
        iter(StepSampler(order, share, accumulation, 0, rank, world_size))
        for rank in range(world_size)
    ]
    for whole in islice(StepSampler(order, 6), 7):
        parts = [key for s in samplers for _ in range(accumulation) for key in next(s)]
        assert Counter(parts) == Counter(whole)
        assert len(set(parts)) == 6


def test_an_incomplete_step_is_dropped():
    keys = list(islice(StepSampler(Permutations(10, 1), 4), 4))
    assert [{key.epoch for key in batch} for batch in keys] == [{0}, {0}, {1}, {1}]
    assert len({key.index for batch in keys[:2] for key in batch}) == 8


@pytest.mark.parametrize(("rank", "world_size", "accumulation"), [(0, 1, 1), (1, 2, 2), (2, 3, 1)])
def test_permutations_are_dealt_as_they_always_were(rank, world_size, accumulation):
    def expected(start):
        in_step = 2 * accumulation * world_size
        epoch, step = divmod(start, 25 // in_step)
        while True:
            seeds = np.random.SeedSequence(3, spawn_key=(epoch,))
            order = np.random.default_rng(seeds).permutation(25)
            for first in range(step, 25 // in_step):
                entries = order[first * in_step :][:in_step]
                shares = entries.reshape(accumulation, world_size, 2)
                for micro_batch in shares[:, rank].tolist():
                    yield [(epoch, index, None, None) for index in micro_batch]
            epoch, step = epoch + 1, 0

    for start in (0, 1, 7, 30):
        sampler = StepSampler(Permutations(25, 3), 2, accumulation, start, rank, world_size)
        assert list(islice(sampler, 40)) == list(islice(expected(start), 40))


def test_steps_of_an_epoch_and_the_epoch_of_a_step():
    assert [epoch_steps(length, 4) for length in (4, 7, 8)] == [1, 1, 2]
    order = Lengths((9, 4, 13))
    places = [epoch_of(step, order, 4) for step in range(10)]
    assert places == [(0, 0), (0, 1), (1, 0), *((2 + n // 3, n % 3) for n in range(7))]
    assert all(epoch_of(step, Permutations(11), 3) == divmod(step, 3) for step in range(20))


def test_epochs_of_different_length_are_dealt_and_resumed_exactly():
    order = Lengths((9, 4, 13))
    whole = list(islice(StepSampler(order, 2, 2), 30))
    assert Counter(key.epoch for batch in whole[:12] for key in batch) == {0: 8, 1: 4, 2: 12}
    for start in range(12):
        assert list(islice(StepSampler(order, 2, 2, start), 6)) == whole[2 * start :][:6]


def test_the_shortest_epoch_has_to_hold_a_step():
    with pytest.raises(ValueError, match="takes 6 images, an epoch has 4; --batch_size 3 fits"):
        StepSampler(Lengths((9, 4)), 2, 3)
