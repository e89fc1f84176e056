"""Noise: from each pixel and channel on its own, so it does not scale with the image."""

from __future__ import annotations

import torch
from torch import Tensor

from datasets.corruptions.kind import CorruptionKind


def gaussian_noise(image: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """Add normal noise; standard deviation as a share of white."""
    return image + deviation * torch.randn(image.shape, generator=generator)


def shot_noise(image: Tensor, photons: float, generator: torch.Generator) -> Tensor:
    """Draw each value from a Poisson distribution; ``photons`` is the mean count of white."""
    return torch.poisson(image * photons, generator=generator) / photons


def impulse_noise(image: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Set a share ``amount`` of the values to 0 or 1, each half of the time."""
    drawn = torch.rand(image.shape, generator=generator)
    noisy = image.masked_fill(drawn < amount / 2, 0)
    return noisy.masked_fill_(drawn >= 1 - amount / 2, 1)


NOISE = {
    "gaussian_noise": CorruptionKind(
        "noise",
        "noise of a sensor in low light",
        (0.08, 0.12, 0.18, 0.26, 0.38),
        gaussian_noise,
    ),
    "shot_noise": CorruptionKind(
        "noise", "noise of counting photons", (60.0, 25.0, 12.0, 5.0, 3.0), shot_noise
    ),
    "impulse_noise": CorruptionKind(
        "noise", "salt and pepper of bit errors", (0.03, 0.06, 0.09, 0.17, 0.27), impulse_noise
    ),
}
