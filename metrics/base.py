"""Metrics as sums: every batch adds, every process adds, one division at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from utils.distributed import all_gather_object, all_reduce_sum
from utils.types import Batch, ForwardVariant, Prediction

Sums = dict[str, Tensor]


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
    With several data sets, conditions and scenes are named ``dataset/condition``.

    Attributes:
        units: unit of each number by its name, such as "percent".
    """

    needs: frozenset[str] = frozenset()
    variant: ForwardVariant | None = None
    units: ClassVar[dict[str, str]] = {}

    def __init__(self, *, per_scene: bool = False) -> None:
        self.per_scene = per_scene
        self.sums: dict[Group, Sums] = {}

    @abstractmethod
    def sums_of(self, batch: Batch, prediction: Prediction) -> Sums:
        """What images of one group add: int64 or float64 tensors, alike in size every time."""

    @abstractmethod
    def finish(self, sums: Sums) -> dict[str, Any]:
        """The results that follow from sums over any set of images."""

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Add one batch, whose prediction has the size of ``batch["label"]``.

        Raises:
            ValueError: if the two sizes differ, naming the first image.
        """
        check_sizes(batch, prediction)
        for group, images in _runs(batch):
            added = self.sums_of(*_part(batch, prediction, images))
            self.sums[group] = _add(self.sums[group], added) if group in self.sums else added

    def all_reduce(self) -> None:
        """Add up over the processes, which may have seen different groups."""
        mine = {
            group: {name: (tuple(value.shape), value.dtype) for name, value in sums.items()}
            for group, sums in self.sums.items()
        }
        layout: dict[Group, dict[str, tuple[tuple[int, ...], torch.dtype]]] = {}
        for theirs in all_gather_object(mine):
            layout |= theirs
        device = self._device()
        for group in sorted(layout):
            own = self.sums.get(group, {})
            self.sums[group] = {
                name: all_reduce_sum(
                    own[name] if name in own else torch.zeros(shape, dtype=dtype, device=device)
                )
                for name, (shape, dtype) in layout[group].items()
            }

    def compute(self) -> dict[str, Any]:
        """The results; an empty dict when there was no image."""
        if not self.sums:
            return {}
        results = {"total": self.finish(_total(self.sums[group] for group in sorted(self.sums)))}
        for field in ("dataset", "condition", *(("scene",) if self.per_scene else ())):
            parts = _split(self.sums, field)
            if len(parts) > 1:
                results[field] = {name: self.finish(_total(sums)) for name, sums in parts.items()}
        return results

    def _device(self) -> torch.device:
        """Where the sums lie; a process that saw no image takes what the others would."""
        for sums in self.sums.values():
            return next(iter(sums.values())).device
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


def _add(sums: Sums, added: Sums) -> Sums:
    return {name: sums[name] + value for name, value in added.items()}


def _total(parts: Iterable[Sums]) -> Sums:
    first, *others = parts
    return reduce(_add, others, first)


def _split(sums: Mapping[Group, Sums], field: str) -> dict[str, list[Sums]]:
    """The sums by one field of their group, sorted by its value."""
    several = len({group.dataset for group in sums}) > 1 and field != "dataset"
    parts: dict[str, list[Sums]] = defaultdict(list)
    for group in sorted(sums):
        name: str = getattr(group, field)
        parts[f"{group.dataset}/{name}" if several else name].append(sums[group])
    return dict(sorted(parts.items()))
