"""Changes of an image's colours and sharpness, on uint8 values; nothing here is random."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

_BILATERAL_DIAMETER = 5


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
