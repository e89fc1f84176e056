"""Changes of an image's colours and sharpness, on uint8 values, and their random variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional

from datasets.samples import Sample, plain, with_image

Blur = Literal["none", "gaussian", "bilateral"]
Pixels = NDArray[np.uint8]

_BILATERAL_DIAMETER = 5
_HUES = 180  # OpenCV's levels of the 8-bit hue, two degrees each


def adjust_colours(image: Tensor, amounts: Sequence[float], order: Sequence[int]) -> Tensor:
    """Apply some of four adjustments to an image (3, H, W) uint8, one after the other.

    Args:
        image: the pixels.
        amounts: factors of brightness, contrast and saturation, 0 or more with 1 for no change,
            and, if ``order`` holds 3, the shift of the hue, in [-0.5, 0.5] of the circle.
        order: which of the four, by their places in ``amounts``.
    """
    for which in order:
        image = _ADJUSTMENTS[which](image, amounts[which])
    return image


_ADJUSTMENTS = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur (3, H, W) uint8 by a Gaussian of ``sigma`` pixels, cut off at four sigma.

    The border pixels are repeated beyond the border. OpenCV's weights are multiples of 1/256,
    which is within two levels of the exact result, rounded.
    """
    width = 2 * int(4 * sigma + 0.5) + 1
    pixels = _rows_of_pixels(image)
    blurred = cv2.GaussianBlur(pixels, (width, width), sigma, borderType=cv2.BORDER_REPLICATE)
    return torch.from_numpy(blurred).permute(2, 0, 1)


def bilateral_blur(image: Tensor, sigma: float) -> Tensor:
    """Blur (3, H, W) uint8 but for edges, by OpenCV's bilateral filter.

    A neighbour within two pixels weighs exp(-d^2 / (2 sigma^2)) of its distance d, times
    exp(-c^2 / (2 s^2)), where c is the sum over the channels of the absolute differences and s
    the standard deviation of all values of the image. The published recipes take the Euclidean
    distance of the colours and black beyond the border, which is mirrored here.
    """
    pixels = _rows_of_pixels(image)
    spread = float(pixels.std())
    blurred = cv2.bilateralFilter(pixels, _BILATERAL_DIAMETER, spread, sigma)
    return torch.from_numpy(blurred).permute(2, 0, 1)


def _rows_of_pixels(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def scale_levels(values: Pixels, factor: float, offset: float = 0.0) -> Pixels:
    """Each uint8 value times a factor plus an offset, cut to [0, 255] and rounded down."""
    levels = np.arange(256, dtype=np.float32) * np.float32(factor) + np.float32(offset)
    return np.asarray(cv2.LUT(values, levels.clip(0, 255).astype(np.uint8)), np.uint8)


def change_saturation(pixels: Pixels, factor: float) -> Pixels:
    """Multiply OpenCV's 8-bit saturation of (H, W, 3) RGB by a factor, cut to [0, 255]."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hsv[..., 1] = scale_levels(np.ascontiguousarray(hsv[..., 1]), factor)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def turn_hue(pixels: Pixels, steps: int) -> Pixels:
    """Move the hue of (H, W, 3) RGB by steps of two degrees round the circle."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + steps) % _HUES
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


@dataclass(frozen=True)
class ColourJitter:
    """Change brightness, contrast and saturation, and the hue if asked to, in random order.

    Attributes:
        strength: s; the factors lie in [1-s, 1+s].
        hue: a; the hue's shift lies in [-a, a] of its circle. 0 leaves that step out.
    """

    strength: float = 0.5
    hue: float = 0.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Change the image; label and weight map stay."""
        amounts = rng.uniform(max(0.0, 1 - self.strength), 1 + self.strength, size=3).tolist()
        if self.hue:
            amounts.append(rng.uniform(-self.hue, self.hue))
        order = rng.permutation(len(amounts)).tolist()
        return with_image(sample, adjust_colours(sample["image"], amounts, order))


@dataclass(frozen=True)
class RandomBlur:
    """Blur every image, by a sigma that is uniform within limits (those of AbeT's training)."""

    kind: Blur

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Change the image; label and weight map stay."""
        image = plain(sample["image"])
        if self.kind == "gaussian":
            return with_image(sample, gaussian_blur(image, 0.15 + 1.15 * rng.random()))
        return with_image(sample, bilateral_blur(image, rng.uniform(0.05, 0.75)))


@dataclass(frozen=True)
class PhotometricDistortion:
    """Brightness, contrast, saturation and hue, each changed with probability 1/2.

    The published distortion of SSD as mmsegmentation has it: the brightness moves by up to 32
    levels, the contrast is scaled by [0.5, 1.5] before or after the other two, which is a coin's
    choice, the saturation by [0.5, 1.5], the hue moves by -18 to 17 steps of two degrees. After
    each the values are cut to 8 bits, rounded down.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Change the image; label and weight map stay."""
        pixels = _rows_of_pixels(plain(sample["image"]))
        if _coin(rng):
            pixels = scale_levels(pixels, 1.0, rng.uniform(-32, 32))
        contrast_first = _coin(rng)
        if contrast_first and _coin(rng):
            pixels = scale_levels(pixels, rng.uniform(0.5, 1.5))
        if _coin(rng):
            pixels = change_saturation(pixels, rng.uniform(0.5, 1.5))
        if _coin(rng):
            pixels = turn_hue(pixels, int(rng.integers(-18, 18)))
        if not contrast_first and _coin(rng):
            pixels = scale_levels(pixels, rng.uniform(0.5, 1.5))
        return with_image(sample, torch.from_numpy(pixels).permute(2, 0, 1))


def _coin(rng: np.random.Generator) -> bool:
    return bool(rng.random() < 0.5)
