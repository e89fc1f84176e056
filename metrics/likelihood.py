"""Negative log likelihood of the labels, image by image."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from metrics.base import StreamingMetric, Sums
from utils.types import IGNORE_INDEX, Batch, Prediction


def image_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the labelled pixels of every image, in nats.

    Args:
        logits: (N, C, H, W), unnormalised; gradients pass.
        labels: (N, H, W), train ids or void 255, any integer type.

    Returns:
        (N,), float32; zero, without gradient, for an image that is void everywhere.
    """
    pixels = F.cross_entropy(
        logits.float(), labels.long(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return pixels.sum((1, 2)) / labelled_pixels(labels).clamp(min=1)


def labelled_pixels(labels: Tensor) -> Tensor:
    """How many pixels of every image are not void, (N,) int64, from labels (N, H, W)."""
    return (labels != IGNORE_INDEX).sum((1, 2))


class ImageLikelihood(StreamingMetric):
    """Mean over the images of their ``image_nll``; images without a label are left out.

    An image of few labelled pixels counts as much as any other, as in the validation of local
    temperature scaling (Ding et al. 2021, as the reliability study runs it).
    """

    units: ClassVar[dict[str, str]] = {"nll": "nats, mean over images"}

    @torch.no_grad()
    def sums_of(self, batch: Batch, prediction: Prediction) -> Sums:
        """The sum over the images, and their number."""
        labels = batch["label"]
        return {
            "nll": image_nll(prediction.logits, labels).sum(dtype=torch.float64),
            "images": (labelled_pixels(labels) > 0).sum(),
        }

    def finish(self, sums: Sums) -> dict[str, Any]:
        """The mean in nats, None without a labelled image."""
        images = sums["images"].item()
        return {"nll": sums["nll"].item() / images if images else None}
