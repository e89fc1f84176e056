"""Resizing to a fixed size times a random factor, then a crop: the published adaptation recipes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from datasets.auto_augment import auto_augment
from datasets.crops import Size, Window, cut_image, cut_map, random_part, whole_axis
from datasets.items import by
from datasets.samples import Sample, map_parts, plain

_TRIES = 10  # crops that are looked at until one shows enough classes


@dataclass(frozen=True)
class RandomResizeCrop:
    """Resize to a size times a random factor, change the colours if asked to, cut a crop out.

    The image is resampled bicubically with antialiasing, maps take the nearest values. The colours
    are those of the whole image.

    Attributes:
        size: (H, W) of the crop.
        input_size: (H, W) of the resize, which does not keep the aspect ratio; None for each
            image's own size.
        scale_range: the factor, the same for both sides, is uniform between the two.
        crop_classes: up to ten crops are tried until the label shows more values than this, void
            among them; the tenth is taken whatever it shows.
        autoaug: whether the colours are changed (see ``datasets.auto_augment``).

    Raises:
        ValueError: if the crop is larger than the smallest resize, or than a scaled image.
    """

    size: Size
    input_size: Size | None
    scale_range: tuple[float, float] = (1.0, 1.0)
    crop_classes: int = 0
    autoaug: bool = False

    def __post_init__(self) -> None:
        if self.input_size is not None:
            refuse_small(self.size, self.input_size, self.scale_range[0], "the smallest resize")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Cut the same crop out of every part."""
        label = plain(sample["label"])
        factor = rng.uniform(*self.scale_range)
        height, width = self.input_size or label.shape
        if self.input_size is None:
            refuse_small(self.size, (height, width), factor, f"{sample['id']} as it is scaled")
        rows, columns = (
            whole_axis(length, round(side * factor))
            for length, side in zip(label.shape, (height, width), strict=True)
        )
        coloured = None
        if self.autoaug:
            whole = cut_image(plain(sample["image"]), rows, columns, "bicubic")
            coloured = auto_augment(whole, rng)
        rows, columns = self._choose(label, rows, columns, rng)

        def cut(image: Tensor) -> Tensor:
            """The crop of the image."""
            if coloured is None:
                return cut_image(image, rows, columns, "bicubic")
            inside = slice(columns.start, columns.start + columns.shown)
            return coloured[:, rows.start : rows.start + rows.shown, inside].contiguous()

        return map_parts(sample, cut, lambda values: cut_map(values, rows, columns))

    def _choose(
        self, label: Tensor, rows: Window, columns: Window, rng: np.random.Generator
    ) -> tuple[Window, Window]:
        """The first crop that shows enough values of the label (H, W), or the last one tried."""
        for _ in range(_TRIES):
            part = random_part(rows, self.size[0], rng), random_part(columns, self.size[1], rng)
            if self.crop_classes == 0:
                break
            shown = np.bincount(cut_map(label, *part).numpy().ravel(), minlength=256)
            if np.count_nonzero(shown) > self.crop_classes:
                break
        return part


def refuse_small(crop: Size, size: Size, factor: float, what: str) -> None:
    """Check that a crop (H, W) fits into a size (H, W) times a factor.

    Raises:
        ValueError: with both sizes and ``what`` is too small.
    """
    scaled = round(size[0] * factor), round(size[1] * factor)
    if scaled[0] < crop[0] or scaled[1] < crop[1]:
        raise ValueError(
            f"a crop of {by(crop)} does not fit into {what}, {by(scaled)}, which is {by(size)}"
            f" times {factor:g} (rows x columns)"
        )
