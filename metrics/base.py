"""Metrics as sums: every batch adds, every process adds, one division at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from itertools import groupby
from operator import add
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from metrics.bootstrap import Bootstrap, percentile_intervals
from utils.distributed import all_gather_object, all_reduce_sum
from utils.types import Batch, ForwardVariant, Prediction

# Tensors, and whatever else adds up in any order and can be sent between processes.
Sums = dict[str, Any]


class Group(NamedTuple):
    """What an image's sums are kept under."""

    dataset: str
    scene: str
    condition: str


class StreamingMetric(ABC):
    """A consumer that keeps sums of fixed size per (data set, scene, condition) of the images.

    A subclass says what one batch adds (``sums_of``) and what the sums mean (``finish``). The
    sums stay on the device and nothing waits for it before ``compute``. Counts are int64 and so
    independent of batch size, order and number of processes; other sums are float64 and equal up
    to its rounding.

    Results: ``total`` over all images and, where there are several, ``dataset``, ``condition``
    and (if asked for) ``scene``, each a dict from the name to the same content for that part.
    With several data sets, conditions and scenes are named ``dataset/condition``. With a
    bootstrap each part also has ``intervals``, [low, high] by the dotted name of each number.

    Args:
        per_scene: also report every scene.
        bootstrap: resampling of the images; the sums of the resamples are kept beside the others.

    Attributes:
        units: unit of each number by its name, such as "percent".
    """

    needs: frozenset[str] = frozenset()
    variant: ForwardVariant | None = None
    units: ClassVar[dict[str, str]] = {}

    def __init__(self, *, per_scene: bool = False, bootstrap: Bootstrap | None = None) -> None:
        self.per_scene = per_scene
        self.bootstrap = bootstrap
        self.sums: dict[Group, Sums] = {}
        self.resamples: dict[Group, Sums] = {}  # with the resamples as the first axis

    @abstractmethod
    def sums_of(self, batch: Batch, prediction: Prediction) -> Sums:
        """What images of one group add: int64 or float64 tensors, alike in size every time."""

    @abstractmethod
    def finish(self, sums: Sums) -> dict[str, Any]:
        """The results that follow from sums over any set of images."""

    def resampled(self, sums: Sums) -> Sums:
        """What a bootstrap keeps of the sums of an image: tensors that ``finish`` understands."""
        return sums

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Add one batch, whose prediction has the size of ``batch["label"]``.

        Raises:
            ValueError: if the two sizes differ, naming the first image.
        """
        check_sizes(batch, prediction)
        for group, images in _runs(batch):
            if self.bootstrap is None:
                merge_sums(self.sums, group, self.sums_of(*_part(batch, prediction, images)))
                continue
            for index in range(images.start, images.stop):
                added = self.sums_of(*_part(batch, prediction, slice(index, index + 1)))
                merge_sums(self.sums, group, added)
                drawn = self.bootstrap.weigh(self.resampled(added), batch["id"][index])
                merge_sums(self.resamples, group, drawn)

    def all_reduce(self) -> None:
        """Add up over the processes, which may have seen different groups."""
        device = self._device()
        for kept in (self.sums, self.resamples):
            _all_reduce(kept, device)

    def compute(self) -> dict[str, Any]:
        """The results; an empty dict when there was no image."""
        if not self.sums:
            return {}
        results: dict[str, Any] = {"total": self._finish_part(sorted(self.sums))}
        for field in ("dataset", "condition", *(("scene",) if self.per_scene else ())):
            parts = _split(self.sums, field)
            if len(parts) > 1:
                results[field] = {name: self._finish_part(mine) for name, mine in parts.items()}
        return results

    def _finish_part(self, groups: Sequence[Group]) -> dict[str, Any]:
        """The results over some groups and, with a bootstrap, their intervals."""
        sums = _total(self.sums[group] for group in groups)
        results = self.finish(sums)
        if self.bootstrap is not None:
            resamples = _total(self.resamples[group] for group in groups)
            results["intervals"] = percentile_intervals(
                (
                    self.finish({name: value[index] for name, value in resamples.items()})
                    for index in range(self.bootstrap.resamples)
                ),
                kept=self.finish(self.resampled(sums)),
                whole=results,
            )
        return results

    def _device(self) -> torch.device:
        """Where the sums lie; a process that saw no image takes what the others would."""
        for sums in self.sums.values():
            for value in sums.values():
                if isinstance(value, Tensor):
                    return value.device
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def check_sizes(batch: Batch, prediction: Prediction) -> None:
    """Refuse a label and a prediction of different size.

    Raises:
        ValueError: naming the first image of the batch.
    """
    label, predicted = batch["label"].shape[-2:], prediction.logits.shape[-2:]
    if label != predicted:
        name = batch["id"][0] if batch.get("id") else "an image without id"
        raise ValueError(
            f"{name}: the label has {label[0]}x{label[1]} pixels (height x width) and the "
            f"prediction {predicted[0]}x{predicted[1]}; they must be equal"
        )


def _runs(batch: Batch) -> Iterator[tuple[Group, slice]]:
    """Consecutive images of one group."""
    count = len(batch["label"])
    unnamed = [""] * count
    groups = [
        Group(*names)
        for names in zip(
            batch.get("dataset", unnamed),
            batch.get("scene", unnamed),
            batch.get("condition", unnamed),
            strict=True,
        )
    ]
    start = 0
    for group, run in groupby(groups):
        stop = start + len(list(run))
        yield group, slice(start, stop)
        start = stop


def _part(batch: Batch, prediction: Prediction, images: slice) -> tuple[Batch, Prediction]:
    """Views of some images of a batch; members keep their axis in front."""
    if images == slice(0, len(batch["label"])):
        return batch, prediction
    part = {key: value[images] for key, value in batch.items()}  # type: ignore[index]
    fields = {
        name: value[:, images] if name.startswith("member_") else value[images]
        for name, value in prediction._asdict().items()
        if value is not None
    }
    return part, Prediction(**fields)  # type: ignore[return-value]


def merge_sums(kept: dict[Group, Sums], group: Group, added: Sums) -> None:
    """Add sums to those of their group, in place."""
    kept[group] = _add(kept[group], added) if group in kept else added


def _add(sums: Sums, added: Sums) -> Sums:
    return {name: sums[name] + value for name, value in added.items()}


def _total(parts: Iterable[Sums]) -> Sums:
    first, *others = parts
    return reduce(_add, others, first)


def _all_reduce(kept: dict[Group, Sums], device: torch.device) -> None:
    """Add the sums of every group up over the processes, in place."""
    mine = {
        group: {
            name: (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else None
            for name, value in sums.items()
        }
        for group, sums in kept.items()
    }
    layout: dict[Group, dict[str, tuple[tuple[int, ...], torch.dtype] | None]] = {}
    for theirs in all_gather_object(mine):
        layout |= theirs
    for group in sorted(layout):
        own = kept.get(group, {})
        kept[group] = {
            name: _reduced(own.get(name), tensor, device) for name, tensor in layout[group].items()
        }


def _reduced(
    own: Any, tensor: tuple[tuple[int, ...], torch.dtype] | None, device: torch.device
) -> Any:
    """One value added up over the processes; a process may have none of it."""
    if tensor is None:
        return reduce(add, (theirs for theirs in all_gather_object(own) if theirs is not None))
    shape, dtype = tensor
    return all_reduce_sum(torch.zeros(shape, dtype=dtype, device=device) if own is None else own)


def _split(sums: Iterable[Group], field: str) -> dict[str, list[Group]]:
    """The groups by one of their fields, sorted by its value."""
    groups = sorted(sums)
    several = len({group.dataset for group in groups}) > 1 and field != "dataset"
    parts: dict[str, list[Group]] = defaultdict(list)
    for group in groups:
        name: str = getattr(group, field)
        parts[f"{group.dataset}/{name}" if several else name].append(group)
    return dict(sorted(parts.items()))
