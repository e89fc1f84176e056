"""Transforms that act on an image and all of its maps together, on uint8 values.

Image resizing is bilinear with antialiasing, as Pillow's and the published recipes'; maps (label,
weight, ood) take the value at the nearest pixel centre. Nothing here touches a global generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, Protocol, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from utils.types import IGNORE_INDEX

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Size = tuple[int, int]  # (H, W)
Kind = Literal["resize", "scale_crop"]


class Sample(TypedDict, total=False):
    """One item of a data set."""

    image: tv_tensors.Image  # (3, H, W), uint8
    label: tv_tensors.Mask  # (H, W), uint8, void 255
    weight: tv_tensors.Mask  # (H, W), float32; absent without weight maps
    ood: tv_tensors.Mask  # (H, W), uint8: 0 class, 1 out of distribution, 255 neither; or absent
    id: str
    dataset: str
    scene: str
    condition: str


class RandomTransform(Protocol):
    """A transform that draws from the generator it is given."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Transform image, label and weight map alike."""
        ...


@dataclass(frozen=True)
class Transform:
    """A resize that is the same every time, then random transforms.

    Attributes:
        size: (H, W) after the resize, None for the native size. A cache holds this stage.
        random: applied in order after the resize.
    """

    size: Size | None = None
    random: tuple[RandomTransform, ...] = ()

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Resize the sample, then transform it at random."""
        return self.randomise(resize_sample(sample, self.size), rng)

    def randomise(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Apply the random transforms to a sample that is resized already."""
        for transform in self.random:
            sample = transform(sample, rng)
        return sample


def train_transform(
    kind: Kind,
    size: Size,
    *,
    flip: float = 0.0,
    colour_jitter: float = 0.0,
    scale_range: tuple[float, float] = (0.5, 2.0),
) -> Transform:
    """The training transform.

    Args:
        kind: ``resize`` brings every image to ``size`` and does not keep the aspect ratio;
            ``scale_crop`` scales at random within ``scale_range`` and cuts ``size`` out at random.
        size: (H, W) of every sample.
        flip: probability of a horizontal flip.
        colour_jitter: strength s; brightness, contrast and saturation factors lie in [1-s, 1+s].
        scale_range: least and greatest scale.

    Raises:
        ValueError: if an argument is out of range.
    """
    if min(size) < 1:
        raise ValueError(f"a sample of {size[0]}x{size[1]} pixels is empty")
    if not 0 <= flip <= 1:
        raise ValueError(f"the probability of a flip must lie in [0, 1], not {flip}")
    if colour_jitter < 0:
        raise ValueError(
            f"the strength of the colour jitter must be 0 or more, not {colour_jitter}"
        )
    if not 0 < scale_range[0] <= scale_range[1]:
        raise ValueError(f"the scale range must be 0 < least <= greatest, not {scale_range}")
    random: list[RandomTransform] = []
    if kind == "scale_crop":
        random.append(RandomScaleCrop(size, scale_range))
    if colour_jitter:
        random.append(ColourJitter(colour_jitter))
    if flip:
        random.append(RandomFlip(flip))
    return Transform(size if kind == "resize" else None, tuple(random))


def eval_transform(size: Size | None) -> Transform:
    """Resize to (H, W), or leave every image as it is."""
    return Transform(size)


def resize_image(image: Tensor, size: Size) -> Tensor:
    """Resize (3, H, W) uint8, bilinear with antialiasing."""
    if tuple(image.shape[-2:]) == size:
        return image
    return functional.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)


def resize_map(label: Tensor, size: Size) -> Tensor:
    """Resize (H, W) of any type to the value at the nearest pixel centre."""
    if tuple(label.shape[-2:]) == size:
        return label
    rows = _nearest(0, size[0], label.shape[0] / size[0], label.shape[0])
    columns = _nearest(0, size[1], label.shape[1] / size[1], label.shape[1])
    return torch.from_numpy(label.numpy()[rows][:, columns])


def resize_sample(sample: Sample, size: Size | None) -> Sample:
    """Resize image, label and weight map to (H, W); None leaves the sample as it is."""
    if size is None:
        return sample
    return _map_parts(sample, lambda x: resize_image(x, size), lambda x: resize_map(x, size))


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left and right with a probability."""

    probability: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Mirror every part, or none."""
        if rng.random() >= self.probability:
            return sample
        return _map_parts(sample, functional.horizontal_flip, functional.horizontal_flip)


@dataclass(frozen=True)
class ColourJitter:
    """Change brightness, contrast and saturation by factors in [1-s, 1+s], in random order."""

    strength: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Change the image; label and weight map stay."""
        image = sample["image"]
        factors = rng.uniform(max(0.0, 1 - self.strength), 1 + self.strength, size=3)
        for which in rng.permutation(3):
            image = _ADJUSTMENTS[which](image, float(factors[which]))
        return Sample(**{**sample, "image": tv_tensors.Image(image)})


_ADJUSTMENTS = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
)


@dataclass(frozen=True)
class RandomScaleCrop:
    """Scale by a random factor, pad what is too small, cut a random window out.

    Only the part of the image that the window shows is resampled; the result is that of scaling
    the whole image first. The padding is the ImageNet mean, void, and weight 0.

    Attributes:
        size: (H, W) of the window.
        scale_range: the scale is uniform between the two.
    """

    size: Size
    scale_range: tuple[float, float] = (0.5, 2.0)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Cut the same window out of every part."""
        height, width = sample["label"].shape[-2:]
        scale = rng.uniform(*self.scale_range)
        rows = _window(height, scale, self.size[0], rng)
        columns = _window(width, scale, self.size[1], rng)

        def crop_map(values: Tensor) -> Tensor:
            fill = 0 if values.is_floating_point() else IGNORE_INDEX
            cut = values.numpy()[rows.nearest()][:, columns.nearest()]
            return torch.from_numpy(_padded(cut, rows, columns, fill))

        def crop_image(image: Tensor) -> Tensor:
            cut = _resample(image.permute(1, 2, 0).numpy(), rows, columns)
            return torch.from_numpy(_padded(cut, rows, columns, _MEAN_PIXEL)).permute(2, 0, 1)

        return _map_parts(sample, crop_image, crop_map)


_MEAN_PIXEL = np.array([round(255 * mean) for mean in IMAGENET_MEAN], np.uint8)


class _Window(NamedTuple):
    """Where a window lies along one axis of a scaled image."""

    length: int  # of the source
    scaled: int  # length after scaling
    start: int  # first scaled pixel in the window
    shown: int  # scaled pixels in the window
    before: int  # padding before them
    total: int  # length of the window

    @property
    def ratio(self) -> float:
        """Source pixels per scaled pixel."""
        return self.length / self.scaled

    def nearest(self) -> NDArray[np.intp]:
        """The source pixel under the centre of every scaled pixel."""
        return _nearest(self.start, self.shown, self.ratio, self.length)


def _window(length: int, scale: float, total: int, rng: np.random.Generator) -> _Window:
    """A window at a random place; a shorter image lies in its middle."""
    scaled = max(1, round(length * scale))
    start = int(rng.integers(0, max(0, scaled - total) + 1))
    shown = min(scaled, total)
    return _Window(length, scaled, start, shown, (total - shown) // 2, total)


def _nearest(start: int, count: int, ratio: float, length: int) -> NDArray[np.intp]:
    centres = (np.arange(start, start + count) + 0.5) * ratio
    return np.minimum(centres.astype(np.intp), length - 1)


def _resample(image: NDArray[np.uint8], rows: _Window, columns: _Window) -> NDArray[np.uint8]:
    """The window's part of the scaled image (H, W, 3), read from the source pixels it needs."""
    spans = []
    for axis in (rows, columns):
        support = math.ceil(max(1.0, axis.ratio)) + 1  # the antialiasing filter's half width
        first, last = axis.start * axis.ratio, (axis.start + axis.shown) * axis.ratio
        low = max(0, math.floor(first) - support)
        high = min(axis.length, math.ceil(last) + support)
        spans.append((low, high, first - low, min(last, axis.length) - low))
    (top, bottom, y0, y1), (left, right, x0, x1) = spans
    part = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    size = (columns.shown, rows.shown)
    return np.asarray(part.resize(size, Image.Resampling.BILINEAR, box=(x0, y0, x1, y1)))


def _padded(
    values: NDArray, rows: _Window, columns: _Window, fill: int | NDArray[np.uint8]
) -> NDArray:
    """Put the values in the middle of a window filled with ``fill``."""
    window = np.empty((rows.total, columns.total, *values.shape[2:]), values.dtype)
    if (rows.shown, columns.shown) != window.shape[:2]:
        window[:] = fill
    inside = slice(rows.before, rows.before + rows.shown)
    window[inside, columns.before : columns.before + columns.shown] = values
    return window


def _map_parts(
    sample: Sample, image: Callable[[Tensor], Tensor], label: Callable[[Tensor], Tensor]
) -> Sample:
    """A sample with its image and its maps (label, weight, ood) transformed."""
    changed = Sample(**sample)
    changed["image"] = tv_tensors.Image(image(_plain(sample["image"])))
    changed["label"] = tv_tensors.Mask(label(_plain(sample["label"])))
    if "weight" in sample:
        changed["weight"] = tv_tensors.Mask(label(_plain(sample["weight"])))
    if "ood" in sample:
        changed["ood"] = tv_tensors.Mask(label(_plain(sample["ood"])))
    return changed


def _plain(values: Tensor) -> Tensor:
    return values.as_subclass(Tensor)


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
