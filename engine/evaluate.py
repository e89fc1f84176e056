"""The evaluation pass: the only one, for everything that is measured, written or fitted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from datasets.taxonomy import ClassMapping
from engine.memory import memory_advice
from uncertainty.calibrators import Calibrator
from utils.types import IGNORE_INDEX, Batch, Consumer, ForwardVariant, Predict, Prediction

LOGIT_FIELDS = ("logits", "member_logits", "aux_logits", "main_logits", "member_aux_logits")
MAP_FIELDS = (*LOGIT_FIELDS, "temperature", "member_temperatures")


class PredictionSource(ABC):
    """Predictions that do not come from the images, such as logits in files."""

    @abstractmethod
    def of_batch(self, batch: Batch) -> Prediction:
        """The prediction of a batch on its device, at any size."""


@runtime_checkable
class Cancellable(Protocol):
    """A consumer that goes on with what it took in after ``update`` has returned."""

    def cancel(self) -> None:
        """Begin nothing any more, and wait for what is under way."""
        ...


class Forward(NamedTuple):
    """One forward pass over a batch and who reads it."""

    run: Callable[[Batch], Prediction]
    readers: list[Consumer]


@torch.no_grad()  # not inference_mode: what a consumer keeps may be trained on later
def run_pass(
    predict: Predict | PredictionSource,
    network: nn.Module,
    loader: Iterable[Batch],
    consumers: Sequence[Consumer],
    *,
    prepare: Callable[[Batch], Batch],
    mapping: ClassMapping | None = None,
    calibrator: Calibrator | None = None,
) -> dict[str, Any]:
    """Predict every batch once per distinct forward variant and hand it to the consumers.

    Each prediction is calibrated, resized to the label (to the image without labels) and mapped
    to the common classes, in this order. The network is in evaluation mode during the pass. Where
    anything is raised, an interrupt too, ``Cancellable`` consumers are cancelled first.

    Args:
        predict: images to a prediction at their size, see ``engine.predict``; or a source of
            predictions that asks for no images.
        network: the deployable network, for variants that change it.
        loader: yields every image once; a progress report may be wrapped around it.
        consumers: metrics, writers, samplers.
        prepare: moves a batch to the device and normalises its images.
        mapping: brings the network's and the data set's classes together, None if they are equal.
        calibrator: applied to every prediction.

    Returns:
        The consumers' results, dicts of the same name merged.

    Raises:
        ValueError: if a consumer needs what the predictions lack, or as the consumers do.
        MemoryShortageError: naming the flags to change.
    """
    forwards = plan(predict, network, consumers, calibrator.needs if calibrator else frozenset())
    with memory_advice("evaluate"), evaluating(network), cancelling(consumers):
        for batch in map(prepare, loader):
            images = batch["image"]
            if "label" in batch and mapping is not None:
                batch = Batch(**{**batch, "label": map_labels(batch["label"], mapping)})
            size = batch.get("label", images).shape[-2:]
            for forward in forwards:
                prediction = forward.run(batch)
                refuse_missing(prediction, forward.readers)
                if calibrator is not None:
                    prediction = calibrator(prediction, images)
                prediction = resize(prediction, size)
                if mapping is not None:
                    prediction = map_prediction(prediction, mapping)
                for consumer in forward.readers:
                    consumer.update(batch, prediction)
                del prediction  # before the next one is made
        results: dict[str, Any] = {}
        for consumer in consumers:
            consumer.all_reduce()
            merge(results, consumer.compute())
    return results


def plan(
    predict: Predict | PredictionSource,
    network: nn.Module,
    consumers: Sequence[Consumer],
    needs: frozenset[str] = frozenset(),
) -> list[Forward]:
    """The distinct forward passes of the consumers, each giving all that its readers need.

    Args:
        predict: see ``run_pass``.
        network: see ``run_pass``.
        consumers: who reads the predictions.
        needs: fields that every prediction must have beside what its readers need.

    Raises:
        ValueError: if a consumer reads a forward variant and there is no network to run.
    """
    variants: dict[str | None, ForwardVariant | None] = {}
    readers: dict[str | None, list[Consumer]] = {}
    for consumer in consumers:
        name = consumer.variant.name if consumer.variant else None
        variants.setdefault(name, consumer.variant)
        readers.setdefault(name, []).append(consumer)
    forwards = []
    for name, variant in variants.items():
        wanted = needs.union(*(reader.needs for reader in readers[name]))
        forwards.append(Forward(_bound(predict, network, variant, wanted), readers[name]))
    return forwards


def _bound(
    predict: Predict | PredictionSource,
    network: nn.Module,
    variant: ForwardVariant | None,
    wanted: frozenset[str],
) -> Callable[[Batch], Prediction]:
    """One forward pass as a function of the batch, with its readers' needs filled in."""
    if isinstance(predict, PredictionSource):
        if variant is not None:
            raise ValueError(f"{variant.name} runs the network, and there are only its logits")
        return predict.of_batch

    def plain(images: Tensor, needs: frozenset[str] = frozenset()) -> Prediction:
        """The plain forward pass, which a variant may call."""
        return predict(images, wanted | needs)

    run = plain if variant is None else partial(variant.run, plain, network)
    return lambda batch: run(batch["image"])


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a network; every module gets its own mode back."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def cancelling(consumers: Iterable[Consumer]) -> Iterator[None]:
    """Cancel those consumers that can be cancelled where anything is raised, an interrupt too."""
    with ExitStack() as stack:
        for consumer in consumers:
            if isinstance(consumer, Cancellable):
                stack.callback(consumer.cancel)
        yield
        stack.pop_all()


def refuse_missing(prediction: Prediction, readers: Iterable[Consumer]) -> None:
    """Check that a prediction has what its readers need.

    Raises:
        ValueError: naming the reader and the field.
    """
    for reader in readers:
        for field in sorted(reader.needs):
            if getattr(prediction, field) is None:
                raise ValueError(
                    f"{type(reader).__name__} needs {field}, which this model does not give"
                )


def resize(
    prediction: Prediction, size: Sequence[int], *, align_corners: bool = False
) -> Prediction:
    """Resize all maps of a prediction to (H, W), bilinear."""
    if tuple(prediction.logits.shape[-2:]) == tuple(size):
        return prediction
    change = partial(resize_maps, size=size, align_corners=align_corners)
    return replace_fields(prediction, MAP_FIELDS, change)


def resize_maps(maps: Tensor, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """Resize (..., C, h, w) to (..., C, H, W), bilinear."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    flat = maps.reshape(-1, *maps.shape[-3:])
    resized = F.interpolate(flat, size=tuple(size), mode="bilinear", align_corners=align_corners)
    return resized.view(*maps.shape[:-2], *size)


def map_labels(labels: Tensor, mapping: ClassMapping) -> Tensor:
    """Train ids (N, H, W) of the data set to indices of ``mapping.names``; the rest is void."""
    return _label_table(mapping.label, labels.device)[labels.int()]


@cache  # a table made anew for every batch would wait for the device each time
def _label_table(targets: tuple[int, ...], device: torch.device) -> Tensor:
    table = torch.full((256,), IGNORE_INDEX, dtype=torch.uint8)
    table[: len(targets)] = torch.tensor(targets, dtype=torch.uint8)
    return table.to(device)


def map_prediction(prediction: Prediction, mapping: ClassMapping) -> Prediction:
    """Logits over the model's classes to logits over ``mapping.names``.

    The logit of a scored class is the logsumexp over the model classes that stand for it, so its
    probability is the sum of theirs. A model class mapped to void (255) is left out: the
    distribution is then that of the model given that the pixel is one of the scored classes.
    """
    if mapping.prediction == tuple(range(len(mapping.names))):  # the mapping is one of labels
        return prediction
    sources = [
        [source for source, target in enumerate(mapping.prediction) if target == index]
        for index in range(len(mapping.names))
    ]
    assert all(sources), "every scored class needs a class of the model"
    return replace_fields(prediction, LOGIT_FIELDS, lambda logits: _merge_classes(logits, sources))


def _merge_classes(logits: Tensor, sources: list[list[int]]) -> Tensor:
    """(..., C, H, W) to (..., K, H, W) by logsumexp over each group of classes."""
    merged = []
    for first, *others in sources:
        joined = logits.select(-3, first)
        for other in others:
            joined = torch.logaddexp(joined, logits.select(-3, other))
        merged.append(joined)
    return torch.stack(merged, dim=-3)


def replace_fields(
    prediction: Prediction, fields: Iterable[str], change: Callable[[Tensor], Tensor]
) -> Prediction:
    """A prediction with some fields changed, where they are present."""
    present = {name: getattr(prediction, name) for name in fields}
    return prediction._replace(
        **{name: change(value) for name, value in present.items() if value is not None}
    )


def merge(results: dict[str, Any], more: dict[str, Any]) -> None:
    """Add results to others in place; dicts of the same name are merged, too."""
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(results.get(name), dict):
            merge(results[name], value)
        else:
            assert name not in results, f"two consumers report {name}"
            results[name] = value
