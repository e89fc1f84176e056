"""One item of a data set, and how its parts are changed together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypedDict

import numpy as np
from torch import Tensor
from torchvision import tv_tensors


class Sample(TypedDict, total=False):
    """One item of a data set."""

    image: tv_tensors.Image  # (3, H, W), uint8
    label: tv_tensors.Mask  # (H, W), uint8, void 255
    weight: tv_tensors.Mask  # (H, W), float32; absent without weight maps
    ood: tv_tensors.Mask  # (H, W), uint8: 0 class, 1 out of distribution, 255 neither; or absent
    image_labels: Tensor  # (C,), float32, 1 where the class is in the image; absent without tags
    id: str
    dataset: str
    scene: str
    condition: str
    centre: tuple[int, int]  # (x, y) of the label that a crop has to show; or absent


class RandomTransform(Protocol):
    """A transform that draws from the generator it is given."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Transform image, label and weight map alike."""
        ...


def plain(values: Tensor) -> Tensor:
    """The same values as a tensor of no special kind."""
    return values.as_subclass(Tensor)


def with_image(sample: Sample, image: Tensor) -> Sample:
    """The sample with another image (3, H, W) uint8."""
    return Sample(**{**sample, "image": tv_tensors.Image(image)})


def map_parts(
    sample: Sample, image: Callable[[Tensor], Tensor], label: Callable[[Tensor], Tensor]
) -> Sample:
    """A sample with its image and its maps (label, weight, ood) transformed."""
    changed = Sample(**sample)
    changed["image"] = tv_tensors.Image(image(plain(sample["image"])))
    changed["label"] = tv_tensors.Mask(label(plain(sample["label"])))
    if "weight" in sample:
        changed["weight"] = tv_tensors.Mask(label(plain(sample["weight"])))
    if "ood" in sample:
        changed["ood"] = tv_tensors.Mask(label(plain(sample["ood"])))
    return changed
