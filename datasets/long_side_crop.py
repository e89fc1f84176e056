"""Scaling to a random long side and a padded random crop: how classifiers for CAMs are trained.

As released with PMM (arXiv 2108.12995, single-image training) and, before it, with AffinityNet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from datasets.crops import Size, cut_image, cut_map, placed_window, whole_axis
from datasets.samples import Sample, map_parts

PUBLISHED_SIDES = (448, 768)


@dataclass(frozen=True)
class RandomLongSide:
    """Scale the image so that its longer side has a random length; the aspect ratio is kept.

    The image is resampled bicubically with antialiasing, maps take the nearest values.

    Attributes:
        sides: least and greatest length in pixels, both possible.

    Raises:
        ValueError: if the lengths are below 1 or in the wrong order.
    """

    sides: tuple[int, int] = PUBLISHED_SIDES

    def __post_init__(self) -> None:
        if not 1 <= self.sides[0] <= self.sides[1]:
            raise ValueError(f"the long side must have 1 <= least <= greatest, not {self.sides}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Scale every part alike."""
        native = sample["label"].shape
        factor = int(rng.integers(self.sides[0], self.sides[1] + 1)) / max(native)
        rows, columns = (whole_axis(side, max(1, round(side * factor))) for side in native)
        return map_parts(
            sample,
            lambda image: cut_image(image, rows, columns, "bicubic"),
            lambda values: cut_map(values, rows, columns),
        )


@dataclass(frozen=True)
class PlacedCrop:
    """Cut a window out at a random place; a smaller image lies at a random place in it.

    The padding is the ImageNet mean, which is 0 once normalised, void, and weight 0.

    Attributes:
        size: (H, W) of the window.
    """

    size: Size

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Cut the same window out of every part."""
        height, width = sample["label"].shape
        rows = placed_window(height, self.size[0], rng)
        columns = placed_window(width, self.size[1], rng)
        return map_parts(
            sample,
            lambda image: cut_image(image, rows, columns),
            lambda values: cut_map(values, rows, columns),
        )
