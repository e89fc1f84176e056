"""Weather: snow, frost, fog and bright light."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from datasets.corruptions.filters import convolve, reference_size, resized, scale_of, streak
from datasets.corruptions.kind import CorruptionKind
from datasets.corruptions.textures import crystals, plasma

LEAST_FLAKE = 2.0  # pixels of the image
LUMA = (0.299, 0.587, 0.114)  # of R, G and B, ITU-R BT.601


class Snow(NamedTuple):
    """Parameters of ``snow``; lengths in published pixels."""

    mean: float  # of the normal noise that the flakes are cut from
    deviation: float
    flake: float  # pixels for one value of the noise
    threshold: float  # below it there is no flake
    radius: int  # a flake's trace is twice as long
    sigma: float  # how fast the trace fades
    colour: float  # share of the image that is not whitened


class Frost(NamedTuple):
    """Parameters of ``frost``."""

    image: float  # factor of the image
    frost: float  # factor of the crystals


class Fog(NamedTuple):
    """Parameters of ``fog``."""

    thickness: float  # brightness that the thickest fog adds
    decay: float  # of fog's structure, see ``plasma``


def snow(image: Tensor, level: Snow, generator: torch.Generator) -> Tensor:
    """Whiten the image and add falling flakes, once as drawn and once turned by 180 degrees."""
    scale = scale_of(image)
    size = (image.shape[1], image.shape[2])
    # a flake has two pixels at least: interpolation is what makes the noise's extremes rare
    flake = max(LEAST_FLAKE, level.flake * scale)
    cells = [math.ceil(length / flake) for length in size]
    angle = -45 - 90 * torch.rand((), generator=generator).item()
    drawn = torch.randn(1, *cells, generator=generator)
    flakes = resized(level.mean + level.deviation * drawn, size)
    flakes = torch.where(flakes < level.threshold, 0, flakes.clamp(0, 1))
    flakes = convolve(flakes, streak(2 * level.radius * scale, level.sigma * scale, angle))
    grey = sum(weight * channel for weight, channel in zip(LUMA, image, strict=True))
    white = torch.maximum(image, 1.5 * grey + 0.5)
    white = level.colour * image + (1 - level.colour) * white
    return white + flakes + flakes.flip((1, 2))


def frost(image: Tensor, level: Frost, generator: torch.Generator) -> Tensor:
    """Darken the image and add ice crystals."""
    return level.image * image + level.frost * crystals(image, generator)


def fog(image: Tensor, level: Fog, generator: torch.Generator) -> Tensor:
    """Add a bright cloud, then scale back to the image's own greatest value."""
    cloud = plasma(reference_size(image), level.decay, generator)
    cloud = resized(cloud[None], (image.shape[1], image.shape[2]))
    brightest = image.max()
    return (image + level.thickness * cloud) * (brightest / (brightest + level.thickness))


def brightness(image: Tensor, amount: float, _: torch.Generator) -> Tensor:
    """Raise the value V of HSV, which multiplies all channels of a pixel alike."""
    value = image.amax(0, keepdim=True)
    raised = (value + amount).clamp(max=1)
    return torch.where(value > 0, image * (raised / value.clamp(min=1e-6)), raised)


WEATHER = {
    "snow": CorruptionKind(
        "weather",
        "falling snow",
        (
            Snow(0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            Snow(0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            Snow(0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            Snow(0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            Snow(0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        snow,
    ),
    "frost": CorruptionKind(
        "weather",
        "ice crystals on the lens",
        (Frost(1, 0.4), Frost(0.8, 0.6), Frost(0.7, 0.7), Frost(0.65, 0.7), Frost(0.6, 0.75)),
        frost,
    ),
    "fog": CorruptionKind(
        "weather",
        "fog, the same at every distance",
        (Fog(1.5, 2), Fog(2, 2), Fog(2.5, 1.7), Fog(2.5, 1.5), Fog(3, 1.4)),
        fog,
    ),
    "brightness": CorruptionKind(
        "weather", "bright daylight", (0.1, 0.2, 0.3, 0.4, 0.5), brightness
    ),
}
