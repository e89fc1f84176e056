"""Transforms that act on an image and all of its maps together, on uint8 values.

Nothing here touches a global generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from datasets.crops import (
    IMAGENET_MEAN,
    Size,
    middle_of_image,
    middle_of_map,
    resize_image,
    resize_map,
)
from datasets.cuts import CutSettings, Kind, build_cut
from datasets.items import by
from datasets.photometric import Blur, ColourJitter, PhotometricDistortion, RandomBlur
from datasets.resize_crop import RandomResizeCrop
from datasets.samples import RandomTransform, Sample, map_parts

IMAGENET_STD = (0.229, 0.224, 0.225)

Fit = Literal["stretch", "middle"]


@dataclass(frozen=True)
class Transform:
    """A resize that is the same every time, then random transforms.

    Attributes:
        size: (H, W) after the resize, None for the native size. A cache holds this stage.
        random: applied in order after the resize.
        fit: how ``size`` is reached: ``stretch`` does not keep the aspect ratio; ``middle`` scales
            to its height, keeping it, and cuts or pads the middle of the width (image padded with
            the ImageNet mean, maps with void, weights with 0).
    """

    size: Size | None = None
    random: tuple[RandomTransform, ...] = ()
    fit: Fit = "stretch"

    @property
    def stage(self) -> str:
        """The resize in one word, for the name of a cache."""
        if self.size is None:
            return "native"
        return f"{self.size[0]}x{self.size[1]}" + "_middle" * (self.fit == "middle")

    @property
    def seen_size(self) -> Size | None:
        """(H, W) that images have to have for what is seen of them; None for their own."""
        starts = (each.input_size for each in self.random if isinstance(each, RandomResizeCrop))
        return self.size or next(starts, None)

    def resize_image(self, image: Tensor) -> Tensor:
        """An image (3, H, W) uint8 after the resize."""
        if self.size is None:
            return image
        return (middle_of_image if self.fit == "middle" else resize_image)(image, self.size)

    def resize_map(self, values: Tensor) -> Tensor:
        """A map (H, W) of any type after the resize."""
        if self.size is None:
            return values
        return (middle_of_map if self.fit == "middle" else resize_map)(values, self.size)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Resize the sample, then transform it at random."""
        resized = map_parts(sample, self.resize_image, self.resize_map)
        return self.randomise(resized, rng)

    def randomise(
        self, sample: Sample, rng: np.random.Generator, centre: tuple[int, int] | None = None
    ) -> Sample:
        """Apply the random transforms to a sample that is resized already.

        Args:
            sample: is not changed.
            rng: what they draw from.
            centre: (x, y) of a pixel at native size that a crop has to show.
        """
        if centre is not None:
            sample = Sample(**{**sample, "centre": centre})
        for transform in self.random:
            sample = transform(sample, rng)
        sample.pop("centre", None)
        return sample


def train_transform(
    kind: Kind,
    size: Size,
    *,
    flip: float = 0.0,
    colour_jitter: float = 0.0,
    hue: float = 0.0,
    distortion: bool = False,
    blur: Blur = "none",
    **settings: Any,
) -> Transform:
    """The training transform: resize or crop, then colours, flip and blur, then padding if any.

    Args:
        kind: ``resize`` brings every image to ``size`` and does not keep the aspect ratio;
            ``scale_crop`` scales at random and cuts ``size`` out (``RandomScaleCrop``);
            ``resize_crop`` resizes to a fixed size times a random factor before
            (``RandomResizeCrop``); ``fit_crop`` keeps the aspect ratio and avoids crops of one
            class (``FitCrop``); ``long_side_crop`` draws the longer side (``RandomLongSide``);
            ``multi_crop`` stretches boxes and labels them (``MultiCrop``).
        size: (H, W) of every sample.
        flip: probability of a horizontal flip.
        colour_jitter: strength s; brightness, contrast and saturation factors lie in [1-s, 1+s].
        hue: strength a in [0, 0.5]; the hue moves by up to a of its circle, as one of the colour
            jitter's adjustments, whose order is random.
        distortion: whether colours are changed as by ``PhotometricDistortion``.
        blur: of every image: ``gaussian`` with sigma in [0.15, 1.3] pixels, or ``bilateral`` with
            sigma in [0.05, 0.75].
        settings: of ``CutSettings``.

    Raises:
        ValueError: if an argument is out of range, a crop larger than the smallest resize, or
            ``multi_crop`` has no heat maps or is not square.
    """
    chosen = CutSettings(**settings)
    _refuse_out_of_range(size, flip, colour_jitter, hue, chosen.scale_range)
    first, last = build_cut(kind, size, chosen)
    random = list(first)
    if colour_jitter or hue:
        random.append(ColourJitter(colour_jitter, hue))
    if distortion:
        random.append(PhotometricDistortion())
    if flip:
        random.append(RandomFlip(flip))
    if blur != "none":
        random.append(RandomBlur(blur))
    return Transform(size if kind == "resize" else None, (*random, *last))


def _refuse_out_of_range(
    size: Size,
    flip: float,
    colour_jitter: float,
    hue: float,
    scale_range: tuple[float, float],
) -> None:
    """Check what ``train_transform`` is given."""
    if min(size) < 1:
        raise ValueError(f"a sample of {by(size)} pixels is empty")
    if not 0 <= flip <= 1:
        raise ValueError(f"the probability of a flip must lie in [0, 1], not {flip}")
    if colour_jitter < 0:
        raise ValueError(
            f"the strength of the colour jitter must be 0 or more, not {colour_jitter}"
        )
    if not 0 <= hue <= 0.5:
        raise ValueError(f"the strength of the hue's shift must lie in [0, 0.5], not {hue}")
    if not 0 < scale_range[0] <= scale_range[1]:
        raise ValueError(f"the scale range must be 0 < least <= greatest, not {scale_range}")


def target_transform(
    crop_size: Size, input_size: Size | None, *, flip: float = 0.0, autoaug: bool = False
) -> Transform:
    """The training transform of target images; nothing in it depends on a label.

    Args:
        crop_size: (H, W) that is cut out at one random place.
        input_size: (H, W) of the resize before, which does not keep the aspect ratio; None for
            each image's own size.
        flip: probability of a horizontal flip.
        autoaug: whether AutoAugment changes the colours.

    Raises:
        ValueError: if the crop is larger than the resize or the probability out of range.
    """
    return train_transform(
        "resize_crop",
        crop_size,
        flip=flip,
        scale_range=(1.0, 1.0),
        input_size=input_size,
        autoaug=autoaug,
    )


def eval_transform(size: Size | None, centre: Size | None = None) -> Transform:
    """Resize to (H, W), or leave every image as it is.

    Args:
        size: does not keep the aspect ratio.
        centre: instead of ``size``: scale to this height, keeping the aspect ratio, and cut or
            pad the middle of the width, as Mapillary is validated.
    """
    assert size is None or centre is None
    return Transform(size) if centre is None else Transform(centre, fit="middle")


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right with a probability."""

    probability: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Mirror every part, or none."""
        if rng.random() >= self.probability:
            return sample
        return map_parts(sample, functional.horizontal_flip, functional.horizontal_flip)


def normalize(images: Tensor) -> Tensor:
    """ImageNet's normalisation of uint8 (N, 3, H, W) or (3, H, W): float32 (x/255 - mean) / std."""
    mean, std = _channel_constants(images.device)
    return (images * (1 / (255 * std))).sub_(mean / std)


def denormalize(images: Tensor) -> Tensor:
    """Undo ``normalize``: float32 (N, 3, H, W) or (3, H, W) to uint8."""
    mean, std = _channel_constants(images.device)
    return ((images * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


@cache  # a new constant on a GPU would wait for the device
def _channel_constants(device: torch.device) -> tuple[Tensor, Tensor]:
    return (
        torch.tensor(IMAGENET_MEAN, device=device).view(3, 1, 1),
        torch.tensor(IMAGENET_STD, device=device).view(3, 1, 1),
    )
