"""Scaling by a random factor and a padded random crop: the usual training cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.crops import ScaleFilter, Size, cut_image, cut_map, random_window
from datasets.samples import Sample, map_parts


@dataclass(frozen=True)
class RandomScaleCrop:
    """Scale by a random factor, pad what is too small, cut a random window out.

    The padding is the ImageNet mean, void, and weight 0. If the sample has a ``centre``, the
    window shows that pixel.

    Attributes:
        size: (H, W) of the window.
        scale_range: the scale is uniform between the two.
        scale_filter: how the image is resampled.
    """

    size: Size
    scale_range: tuple[float, float] = (0.5, 2.0)
    scale_filter: ScaleFilter = "bilinear"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Cut the same window out of every part."""
        height, width = sample["label"].shape[-2:]
        x, y = sample.get("centre", (None, None))
        scale = rng.uniform(*self.scale_range)
        rows = random_window(height, scale, self.size[0], rng, y)
        columns = random_window(width, scale, self.size[1], rng, x)
        return map_parts(
            sample,
            lambda image: cut_image(image, rows, columns, self.scale_filter),
            lambda values: cut_map(values, rows, columns),
        )
