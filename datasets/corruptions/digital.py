"""Digital: loss of contrast, of shape, of resolution, and of detail in a file."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets.corruptions.filters import (
    convolve,
    gaussian,
    places,
    reference_size,
    resized,
    sample,
    scale_of,
    to_bytes,
    to_float,
)
from datasets.corruptions.kind import CorruptionKind


class Elastic(NamedTuple):
    """Parameters of ``elastic_transform``, in published pixels."""

    strength: float  # what the smoothed noise in [-1, 1] is multiplied by
    sigma: float  # of the Gaussian that smooths it


def contrast(image: Tensor, factor: float, _: torch.Generator) -> Tensor:
    """Draw each value towards its channel's mean, by a factor below 1."""
    means = image.mean((1, 2), keepdim=True, dtype=torch.float64).to(image.dtype)
    return means + factor * (image - means)


def elastic_transform(image: Tensor, level: Elastic, generator: torch.Generator) -> Tensor:
    """Displace each pixel a little; neighbours alike."""
    noise = 2 * torch.rand(2, *reference_size(image), generator=generator) - 1
    moves = convolve(noise, gaussian(level.sigma)).mul_(level.strength * scale_of(image))
    down, right = resized(moves, (image.shape[1], image.shape[2]))
    rows, columns = places(image)
    return sample(image, rows + down, columns + right)


def pixelate(image: Tensor, factor: float, _: torch.Generator) -> Tensor:
    """Average over blocks, each 1 / factor published pixels high and wide.

    The scale is at least 1 here: an image of few pixels would otherwise stay as it is.
    """
    coarse = factor / max(1.0, scale_of(image))
    for dim in (1, 2):
        length = image.shape[dim]
        count = max(1, int(length * coarse))
        # the block that holds the middle of each pixel, as Pillow's box filter has it
        blocks = (torch.arange(length, dtype=torch.float64) + 0.5).mul_(count / length).long()
        shape = [count if axis == dim else size for axis, size in enumerate(image.shape)]
        sums = image.new_zeros(shape).index_add_(dim, blocks, image)
        sizes = torch.bincount(blocks).view([-1 if axis == dim else 1 for axis in range(3)])
        image = (sums / sizes).index_select(dim, blocks)
    return image


def jpeg_compression(image: Tensor, quality: int, _: torch.Generator) -> Tensor:
    """Write and read a JPEG file in memory; quality of libjpeg, 1 to 100."""
    stored = BytesIO()
    pixels = to_bytes(image).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(stored, "JPEG", quality=quality)
    with Image.open(stored) as picture:
        return to_float(torch.from_numpy(np.array(picture)).permute(2, 0, 1))


DIGITAL = {
    "contrast": CorruptionKind(
        "digital", "flat light, or a poor exposure", (0.4, 0.3, 0.2, 0.1, 0.05), contrast
    ),
    "elastic_transform": CorruptionKind(
        "digital",
        "small regions stretched and shrunk",
        (
            Elastic(4.88, 2.44),
            Elastic(8.54, 2.44),
            Elastic(12.2, 2.44),
            Elastic(17.08, 2.44),
            Elastic(29.28, 2.44),
        ),
        elastic_transform,
    ),
    "pixelate": CorruptionKind(
        "digital", "enlarged from a low resolution", (0.6, 0.5, 0.4, 0.3, 0.25), pixelate
    ),
    "jpeg_compression": CorruptionKind(
        "digital", "strong lossy compression", (25, 18, 15, 10, 7), jpeg_compression
    ),
}
