"""Loaders: batches for training without end, batches for evaluation in order."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator, Sequence, Set
from functools import cache, partial
from multiprocessing.synchronize import Event
from typing import Any, cast

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from datasets.base import SampleKey, SegDataset
from datasets.epochs import EpochOrder, Permutations, StepSampler
from datasets.samples import Sample, plain
from utils.types import Batch

# OpenCV's threads do not survive a fork: a worker that touched their pool would wait for ever.
cv2.setNumThreads(1)

Batches = Generator[Batch, None, None]


def train_batches(  # noqa: PLR0913 - how a step is shared out
    dataset: SegDataset,
    *,
    batch_size: int,
    seed: int,
    num_workers: int,
    accumulation: int = 1,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    order: EpochOrder | None = None,
) -> Batches:
    """Micro-batches without end: ``accumulation`` of them make one optimizer step.

    The content of a step depends on (seed, step) alone, neither on the number of workers nor on
    where training was resumed; processes and micro-batches share a step without overlap.

    Args:
        dataset: what to draw from.
        batch_size: images per process and micro-batch.
        seed: of the order, if none is given.
        num_workers: processes that load; 0 loads in this one.
        accumulation: micro-batches per optimizer step.
        start_step: the first optimizer step.
        rank: this process's place among ``world_size``.
        world_size: number of processes.
        order: what each epoch shows, the same in every process; None shows every image once per
            epoch, in a new order.

    Raises:
        ValueError: if an epoch holds fewer images than one optimizer step takes.
    """
    sampler = StepSampler(
        order or Permutations(len(dataset), seed),
        batch_size,
        accumulation,
        start_step,
        rank,
        world_size,
    )
    return _stream(_loader(dataset, sampler, num_workers))


def eval_batches(
    dataset: SegDataset,
    *,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    only: Set[int] | None = None,
) -> EvalBatches:
    """This process's share of the batches, in order; every image is in exactly one batch.

    Neighbours of equal size share a batch, so a data set of mixed sizes needs no resize.

    Args:
        dataset: what to walk over.
        batch_size: images per batch and process.
        num_workers: processes that load; 0 loads in this one.
        rank: this process's place among ``world_size``.
        world_size: number of processes.
        only: leave out the batches that hold none of these items; the others stay as they are.
    """
    batches = _same_size_batches(dataset, batch_size)
    if only is not None:
        batches = [batch for batch in batches if not only.isdisjoint(batch)]
    return EvalBatches(_loader(dataset, batches[rank::world_size], num_workers))


class EvalBatches:
    """A sized, repeatable walk over batches; the workers stay between walks.

    Args:
        loader: yields batches, or the error that kept one from being made.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        """Number of batches in one walk."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        """All batches, in order."""
        return _stream(self._loader)


def paired(source: Iterator[Batch], target: Iterator[Batch]) -> Batches:
    """Join each source batch with a target batch, whose keys get the prefix ``target_``."""
    try:
        for batch, other in zip(source, target, strict=False):
            twins = {f"target_{key}": value for key, value in other.items()}
            yield cast(Batch, {**batch, **twins})
    finally:
        for batches in (source, target):
            if isinstance(batches, Generator):
                batches.close()


def _same_size_batches(dataset: SegDataset, batch_size: int) -> list[list[int]]:
    if batch_size == 1:
        return [[index] for index in range(len(dataset))]
    batches: list[list[int]] = []
    last_size = None
    for index in range(len(dataset)):
        size = dataset.size(index)
        if size != last_size or len(batches[-1]) == batch_size:
            batches.append([])
        batches[-1].append(index)
        last_size = size
    return batches


def _loader(dataset: SegDataset, batches: Any, num_workers: int) -> DataLoader[Any]:
    dataset.prepare()
    return DataLoader(
        _Reporting(dataset),
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=partial(_start_worker, _exiting()),
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # without one, each walk would draw from the global generator
    )


class _Reporting(Dataset[Sample | ValueError]):
    """A data set that returns the errors of bad data: raised in a worker, they lose their words."""

    def __init__(self, dataset: SegDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, key: int | SampleKey) -> Sample | ValueError:
        try:
            return self._dataset[key]
        except ValueError as error:
            return error


def _stream(loader: DataLoader[Any]) -> Batches:
    """The loader's batches; the workers of a walk that is closed early end with it."""
    for batch in loader:
        if isinstance(batch, ValueError):
            try:
                raise batch
            finally:
                del batch  # its traceback holds this frame: in a cycle the workers would live on
        yield batch


def _start_worker(exiting: Event, worker_id: int) -> None:  # noqa: ARG001
    """Leave signals to the main process, which saves first.

    A program that ends sends its workers SIGTERM and waits for them: that one they obey.
    """

    def on_terminate(*_: object) -> None:
        if exiting.is_set():
            os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, on_terminate)


@cache
def _exiting() -> Event:
    """Set when this program ends."""
    event = multiprocessing.Event()
    atexit.register(event.set)
    return event


def collate(samples: Sequence[Sample | ValueError]) -> Batch | ValueError:
    """Stack tensors, list texts; the first error among the samples takes the batch's place.

    Images become channels-last in memory, which is how they are decoded.
    """
    errors = [sample for sample in samples if isinstance(sample, ValueError)]
    if errors:
        return errors[0]
    good = cast(Sequence[dict[str, Any]], samples)
    batch: dict[str, Any] = {
        key: [sample[key] for sample in good] for key in ("id", "dataset", "scene", "condition")
    }
    images = torch.stack([plain(sample["image"]).permute(1, 2, 0) for sample in good])
    batch["image"] = images.permute(0, 3, 1, 2)
    for key in {"label", "weight", "ood", "image_labels"} & good[0].keys():
        batch[key] = torch.stack([plain(sample[key]) for sample in good])
    return cast(Batch, batch)
