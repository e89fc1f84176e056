"""Scaling that keeps the aspect ratio, a crop that shows more than one class, padding last.

The training cut of PSPNet on pseudo masks (URN, arXiv 2112.07431, as released).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from datasets.crops import (
    Size,
    Window,
    cut_image,
    cut_map,
    pad_image,
    pad_map,
    random_part,
    whole_axis,
)
from datasets.samples import Sample, map_parts, plain
from utils.types import IGNORE_INDEX

LONG_TO_SHORT = 4  # the limits of an image's sides are 2048 and 512 as published
REDRAWS = 10
DOMINANCE = 0.75  # share of the labelled pixels that one class has to stay below


def fit_size(size: Size, base_size: int, ratio: float) -> Size:
    """(H, W) scaled, with its aspect ratio, to fit limits of its shorter and its longer side.

    Args:
        size: (H, W) in pixels.
        base_size: limit of the shorter side at ratio 1; that of the longer one is four times it.
        ratio: of both limits, which are whole pixels, rounded down.
    """
    short, long = int(base_size * ratio), int(LONG_TO_SHORT * base_size * ratio)
    scale = min(short / min(size), long / max(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


@dataclass(frozen=True)
class FitCrop:
    """Fit into random limits, then cut a window out that no class dominates.

    The image is resampled bilinearly, maps take the nearest values. Up to ten times another place
    is drawn while the label shows fewer than two classes, or one on 75 % of the labelled pixels or
    more; the last place is taken whatever it shows. Weight maps have no say in it, other than in
    the published code, which counts their values, too. Of a smaller image all is kept:
    ``CornerPadding`` is to follow the changes of colour.

    Attributes:
        size: (H, W) of the window.
        base_size: of ``fit_size``; None for the shorter side of the window, as published.
        scale_range: the ratio of ``fit_size`` is uniform between the two.

    Raises:
        ValueError: if the smallest limits are below one pixel.
    """

    size: Size
    base_size: int | None = None
    scale_range: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        if int(self.base * self.scale_range[0]) < 1:
            raise ValueError(
                f"images that fit into a base size of {self.base} times {self.scale_range[0]:g}"
                " are empty: the base size must be larger"
            )

    @property
    def base(self) -> int:
        """Limit of an image's shorter side at ratio 1."""
        return min(self.size) if self.base_size is None else self.base_size

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Cut the same window out of every part."""
        label = plain(sample["label"])
        height, width = label.shape
        fitted = fit_size((height, width), self.base, rng.uniform(*self.scale_range))
        whole = whole_axis(height, fitted[0]), whole_axis(width, fitted[1])
        rows, columns = self._choose(label, *whole, rng)
        return map_parts(
            sample,
            lambda image: cut_image(image, rows, columns),
            lambda values: cut_map(values, rows, columns),
        )

    def _choose(
        self, label: Tensor, rows: Window, columns: Window, rng: np.random.Generator
    ) -> tuple[Window, Window]:
        """The first place at which no class of the label (H, W) dominates, or the last one."""
        for _ in range(1 + REDRAWS):
            part = random_part(rows, self.size[0], rng), random_part(columns, self.size[1], rng)
            if is_mixed(cut_map(label, *part)):
                break
        return part


def is_mixed(label: Tensor) -> bool:
    """Whether a label (H, W) uint8 shows two classes and none on 75 % of its labelled pixels."""
    counts = np.bincount(label.numpy().ravel(), minlength=IGNORE_INDEX)[:IGNORE_INDEX]
    return bool(np.count_nonzero(counts) > 1 and counts.max() < DOMINANCE * counts.sum())


@dataclass(frozen=True)
class CornerPadding:
    """Fill what is smaller than a size, below and on the right.

    The image gets the ImageNet mean, which is 0 once normalised, labels void and weights 1.

    Attributes:
        size: (H, W); no sample may be larger.
    """

    size: Size

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Fill every part; nothing is drawn."""
        return map_parts(
            sample,
            lambda image: pad_image(image, self.size),
            lambda values: pad_map(values, self.size),
        )
