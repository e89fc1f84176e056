"""Blur: of the lens, of frosted glass, of motion across and towards the scene."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.corruptions.filters import (
    convolve,
    disk,
    gaussian,
    places,
    reference_size,
    resized,
    sample,
    scale_of,
    streak,
)
from datasets.corruptions.kind import CorruptionKind


class Glass(NamedTuple):
    """Parameters of ``glass_blur``, in published pixels."""

    sigma: float  # of the Gaussian blur before and after
    spread: float  # standard deviation of a place's displacement, in each direction


class Motion(NamedTuple):
    """Parameters of ``motion_blur``, in published pixels."""

    radius: int  # the trace is twice as long
    sigma: float  # how fast it fades


class Zoom(NamedTuple):
    """Parameters of ``zoom_blur``."""

    greatest: float  # factor of the last picture; the first is the image itself
    pictures: int  # how many are averaged, with the unchanged image once more


def defocus_blur(image: Tensor, radius: float, _: torch.Generator) -> Tensor:
    """Convolve with a disk; its radius in published pixels."""
    return convolve(image, disk(radius * scale_of(image)))


def glass_blur(image: Tensor, level: Glass, generator: torch.Generator) -> Tensor:
    """Blur, move squares of one published pixel at random, blur again."""
    scale = scale_of(image)
    kernel = gaussian(level.sigma * scale)
    moves = torch.randn(2, *reference_size(image), generator=generator).mul_(level.spread).round_()
    size = (image.shape[1], image.shape[2])
    down, right = (resized(moves, size, "nearest-exact") * scale).round_()
    rows, columns = places(image)
    blurred = convolve(image, kernel)
    return convolve(
        blurred[
            :,
            (rows + down).clamp_(0, size[0] - 1).long(),
            (columns + right).clamp_(0, size[1] - 1).long(),
        ],
        kernel,
    )


def motion_blur(image: Tensor, level: Motion, generator: torch.Generator) -> Tensor:
    """Convolve with a trace that fades out, within 45 degrees of the direction of the rows."""
    scale = scale_of(image)
    angle = 90 * torch.rand((), generator=generator).item() - 45
    return convolve(image, streak(2 * level.radius * scale, level.sigma * scale, angle))


def zoom_blur(image: Tensor, level: Zoom, _: torch.Generator) -> Tensor:
    """Average pictures zoomed in by factors evenly spaced (in the logarithm) up to the greatest.

    Averaging a picture with its own zoom by a square root doubles the number of factors, so a few
    passes make as many as a large image needs to show no steps.
    """
    passes = math.ceil(math.log2(level.pictures * max(1.0, scale_of(image))))
    total = image
    for number in range(1, passes + 1):
        total = (total + _zoomed(total, level.greatest ** (0.5**number))) / 2
    return (image + level.pictures * total) / (level.pictures + 1)


def _zoomed(image: Tensor, factor: float) -> Tensor:
    """Enlarge about the middle, at the same size (C, H, W)."""
    rows, columns = (
        (numbers - middle) / factor + middle
        for numbers in places(image)
        for middle in [(numbers.numel() - 1) / 2]
    )
    return sample(image, rows, columns)


BLUR = {
    "defocus_blur": CorruptionKind(
        "blur", "a lens out of focus", (3.0, 4.0, 6.0, 8.0, 10.0), defocus_blur
    ),
    "glass_blur": CorruptionKind(
        "blur",
        "frosted glass",
        (Glass(0.7, 1.8), Glass(0.9, 1.8), Glass(1.0, 3.2), Glass(1.1, 3.6), Glass(1.5, 4.7)),
        glass_blur,
    ),
    "motion_blur": CorruptionKind(
        "blur",
        "a camera that moves sideways",
        (Motion(10, 3), Motion(15, 5), Motion(15, 8), Motion(15, 12), Motion(20, 15)),
        motion_blur,
    ),
    "zoom_blur": CorruptionKind(
        "blur",
        "a camera that moves ahead",
        (Zoom(1.10, 11), Zoom(1.15, 16), Zoom(1.20, 11), Zoom(1.24, 13), Zoom(1.30, 11)),
        zoom_blur,
    ),
}
