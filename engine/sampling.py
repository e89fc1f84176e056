"""A sample of pixels with their logits, drawn during the evaluation pass."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.base import check_sizes
from utils.distributed import all_gather_object
from utils.types import FEATURES, Batch, ForwardVariant, Prediction

ALL_PIXELS = -1


class Sampled(NamedTuple):
    """Pixels of one image, on the CPU."""

    logits: Tensor  # (n, C), float32
    labels: Tensor  # (n,), uint8, void 255
    features: Tensor | None  # (D,), float32


class PixelSample(NamedTuple):
    """Pixels of many images, one image after the other by their ids, on the CPU."""

    ids: tuple[str, ...]
    logits: Tensor  # (n, C), float32
    labels: Tensor  # (n,), uint8, void 255
    image_of_pixel: Tensor  # (n,), int64, index into ids
    features: Tensor | None  # (images, D), float32


class PixelSampler:
    """Keeps the logits and labels of a random sample of every image's pixels, void included.

    The sample follows from (seed, image id) alone, so neither order nor processes change it.

    Args:
        count: pixels of an image, without repetition; -1 takes all of them.
        seed: of the samples.
        features: also keep the pooled features of every image.
    """

    variant: ForwardVariant | None = None

    def __init__(self, count: int, seed: int, *, features: bool = False) -> None:
        self.count = count
        self.seed = seed
        self.needs = frozenset({FEATURES}) if features else frozenset[str]()
        self.images: dict[str, Sampled] = {}

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Draw from the images of one batch.

        Raises:
            ValueError: if an image has fewer pixels than are asked for, if logits are not finite,
                or if prediction and label differ in size; naming the image.
        """
        check_sizes(batch, prediction)
        logits = prediction.logits.float().flatten(2)
        for index, name in enumerate(batch["id"]):
            places = sample_indices(self.count, logits.shape[2], self.seed, name)
            chosen = torch.from_numpy(places).to(logits.device)
            drawn = logits[index].index_select(1, chosen).t().cpu()
            if not torch.isfinite(drawn).all():
                raise ValueError(f"the logits of {name} are not finite: nothing can be fitted")
            self.images[name] = Sampled(
                drawn.contiguous(),
                batch["label"][index].flatten()[chosen].cpu(),
                None if prediction.features is None else prediction.features[index].float().cpu(),
            )

    def all_reduce(self) -> None:
        """Bring the images of all processes together."""
        for images in all_gather_object(self.images):
            self.images |= images

    def compute(self) -> dict[str, Any]:
        """No numbers."""
        return {}

    def sample(self) -> PixelSample:
        """All that was drawn, by image id; call it after ``all_reduce``."""
        ids = tuple(sorted(self.images))
        drawn = [self.images[name] for name in ids]
        counts = torch.tensor([len(image.labels) for image in drawn])
        features = [image.features for image in drawn if image.features is not None]
        return PixelSample(
            ids,
            torch.cat([image.logits for image in drawn]),
            torch.cat([image.labels for image in drawn]),
            torch.repeat_interleave(torch.arange(len(ids)), counts),
            torch.stack(features) if features else None,
        )


def sample_indices(count: int, pixels: int, seed: int, name: str) -> NDArray[np.int64]:
    """Which pixels of an image are drawn: ascending, without repetition, from (seed, name) alone.

    Args:
        count: how many, or -1 for all.
        pixels: in the image, row by row.
        seed: of the run.
        name: of the image.

    Raises:
        ValueError: if the image has fewer pixels.
    """
    if count == ALL_PIXELS:
        return np.arange(pixels)
    if count > pixels:
        raise ValueError(
            f"requested {count} pixels, image {name} has {pixels}: lower --samples_per_image, or"
            f" give {ALL_PIXELS} for all"
        )
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
    return np.sort(rng.choice(pixels, count, replace=False))
