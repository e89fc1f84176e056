"""Labelled pixels in the form that every fit of a calibrator reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.class_map import class_map
from utils.log import logger
from utils.types import IGNORE_INDEX

CHUNK = 1 << 15  # pixels: 2.5 MB of float32 at 19 classes, which stays in a core's cache


@dataclass(frozen=True)
class Chunk:
    """Some labelled pixels, class by class so that neighbouring pixels lie side by side.

    Attributes:
        gaps: (C, m) float32, highest logit minus logit; 0 for the predicted class, else >= 0.
        label_gaps: (m,) float32, the gap of the labelled class.
        correct: (m,) float32, 1 where the predicted class is the label, else 0.
    """

    gaps: Tensor
    label_gaps: Tensor
    correct: Tensor


@dataclass(frozen=True)
class Pixels:
    """All labelled pixels, cut into chunks; neither gaps nor correctness depend on temperature.

    Attributes:
        chunks: the pixels in their order.
        count: pixels in all chunks.
        num_classes: C.
        accuracy: share of the pixels predicted right, in [0, 1]; 0 without pixels.
    """

    chunks: list[Chunk]
    count: int
    num_classes: int
    accuracy: float


def prepare(logits: Tensor, labels: Tensor) -> Pixels:
    """Shift logits by their maximum and compare the predicted classes with the labels.

    Args:
        logits: (n, C), float32 or float16, finite.
        labels: (n,) integers from 0 to C - 1; void pixels (255) are left out.

    Raises:
        ValueError: as ``check_pixels``.
    """
    check_pixels(logits, labels)
    chunks = [prepare_chunk(*part) for part in labelled_chunks(logits, labels)]
    count = sum(chunk.correct.numel() for chunk in chunks)
    right = sum(float(chunk.correct.sum(dtype=torch.float64)) for chunk in chunks)
    return Pixels(chunks, count, logits.shape[1], right / max(count, 1))


def prepare_chunk(logits: Tensor, labels: Tensor) -> Chunk:
    """The gaps of labelled pixels (m, C)."""
    planes = logits.float().T.contiguous()
    predicted = class_map(planes[None, :, None])[0, 0]
    gaps = planes.amax(0) - planes
    label_gaps = gaps.gather(0, labels[None])[0]
    return Chunk(gaps, label_gaps, (predicted == labels).float())


def labelled_chunks(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (m, C) and labels (m,) int64 of the pixels that are not void, chunk by chunk."""
    for start in range(0, len(labels), CHUNK):
        part = labels[start : start + CHUNK]
        known = part != IGNORE_INDEX
        if known.any():
            yield logits[start : start + CHUNK][known], part[known].long()


def check_pixels(logits: Tensor, labels: Tensor) -> None:
    """Refuse pixels that nothing can be fitted to.

    Raises:
        ValueError: if logits (n, C) and labels (n,) do not belong together, a logit is not finite,
            or a label is neither void nor a class.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(
            f"a calibrator is fitted to logits (n, C) and labels (n,); these are "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    unknown = (labels != IGNORE_INDEX) & ((labels < 0) | (labels >= logits.shape[1]))
    if unknown.any():
        raise ValueError(
            f"label {int(labels[unknown][0])} at {int(unknown.sum())} pixels: the network has "
            f"{logits.shape[1]} classes, 0 to {logits.shape[1] - 1}, and {IGNORE_INDEX} is void"
        )
    broken = sum(
        int((~part[known].isfinite()).any(1).sum())
        for part, known in zip(
            logits.split(CHUNK), (labels != IGNORE_INDEX).split(CHUNK), strict=True
        )
        if not part.sum(
            dtype=torch.float32
        ).isfinite()  # much faster, and finite but for NaN, inf and overflow
    )
    if broken:
        raise ValueError(
            f"the logits of {broken} of {len(labels)} pixels are not finite; "
            "a calibrator needs finite logits"
        )


def warn_of_void(what: str) -> None:
    """Say that there was nothing to fit to, and that logits therefore stay as they are."""
    logger.warning(
        "no labelled pixel to fit %s to, all are void (%d): it changes nothing", what, IGNORE_INDEX
    )
