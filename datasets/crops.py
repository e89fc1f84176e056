"""Resizing, and windows of scaled images: where they lie, and how they are cut out.

Images are resampled with antialiasing, bilinear as Pillow's and the published recipes' if nothing
else is said; maps (label, weight, ood) take the value at the nearest pixel centre. Only the part
of the source that a window shows is resampled; the result is that of scaling the whole image
first, up to the rounding of whole levels.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from utils.types import IGNORE_INDEX

Size = tuple[int, int]  # (H, W)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
ScaleFilter = Literal["bilinear", "bicubic"]

_MEAN_PIXEL = np.array([round(255 * mean) for mean in IMAGENET_MEAN], np.uint8)
# Pillow's filter and its half width, in pixels of the coarser of source and result.
_FILTERS = {"bilinear": (Image.Resampling.BILINEAR, 1), "bicubic": (Image.Resampling.BICUBIC, 2)}


def resize_image(image: Tensor, size: Size) -> Tensor:
    """Resize (3, H, W) uint8, bilinear with antialiasing."""
    if tuple(image.shape[-2:]) == size:
        return image
    return functional.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)


def resize_map(label: Tensor, size: Size) -> Tensor:
    """Resize (H, W) of any type to the value at the nearest pixel centre."""
    if tuple(label.shape[-2:]) == size:
        return label
    rows = _nearest(0, size[0], label.shape[0] / size[0], label.shape[0])
    columns = _nearest(0, size[1], label.shape[1] / size[1], label.shape[1])
    return torch.from_numpy(label.numpy()[rows][:, columns])


def middle_of_image(image: Tensor, size: Size) -> Tensor:
    """Scale (3, H, W) uint8 to the height of ``size`` and cut or pad the middle of the width."""
    if tuple(image.shape[-2:]) == size:
        return image
    return cut_image(image, *_middle_windows(image, size))


def middle_of_map(values: Tensor, size: Size) -> Tensor:
    """The same for a map (H, W) of any type, by the nearest values."""
    if tuple(values.shape[-2:]) == size:
        return values
    return cut_map(values, *_middle_windows(values, size))


def _middle_windows(values: Tensor, size: Size) -> tuple[Window, Window]:
    height, width = values.shape[-2:]
    scaled = max(1, round(width * size[0] / height))
    return middle_window(height, size[0], size[0]), middle_window(width, scaled, size[1])


class Window(NamedTuple):
    """Where a window lies along one axis of a scaled image."""

    length: int  # of the source
    scaled: int  # length after scaling
    start: int  # first scaled pixel in the window
    shown: int  # scaled pixels in the window
    before: int  # padding before them
    total: int  # length of the window

    @property
    def ratio(self) -> float:
        """Source pixels per scaled pixel."""
        return self.length / self.scaled

    def nearest(self) -> NDArray[np.intp]:
        """The source pixel under the centre of every scaled pixel."""
        return _nearest(self.start, self.shown, self.ratio, self.length)


def random_window(
    length: int, scale: float, total: int, rng: np.random.Generator, around: int | None = None
) -> Window:
    """A window at a random place; a shorter image lies in its middle.

    Args:
        length: of the source in pixels.
        scale: of the source before the window is cut out.
        total: length of the window.
        rng: gives one integer, with or without ``around``.
        around: a source pixel, in [0, length), that the window must show; None: any place. The
            start is then uniform over the places at which a window without limits shows it, and
            is moved to the nearest one inside the image.
    """
    scaled = max(1, round(length * scale))
    last = max(0, scaled - total)
    if around is None:
        start = int(rng.integers(0, last + 1))
    else:
        assert 0 <= around < length
        shown_at = min(scaled - 1, int((around + 0.5) * scaled / length))
        start = min(last, max(0, int(rng.integers(shown_at - total + 1, shown_at + 1))))
    return _window(length, scaled, start, total)


def middle_window(length: int, scaled: int, total: int) -> Window:
    """The middle of an axis that is scaled to a length; a shorter one lies in its middle."""
    return _window(length, scaled, max(0, scaled - total) // 2, total)


def whole_axis(length: int, scaled: int) -> Window:
    """All of an axis that is scaled to a length."""
    return Window(length, scaled, 0, scaled, 0, scaled)


def random_part(whole: Window, total: int, rng: np.random.Generator) -> Window:
    """A part of ``total`` pixels at a random place of a whole axis; all of one that is shorter."""
    shown = min(whole.scaled, total)
    start = int(rng.integers(0, whole.scaled - shown + 1))
    return whole._replace(start=start, shown=shown, total=shown)


def placed_window(length: int, total: int, rng: np.random.Generator) -> Window:
    """A window of ``total`` pixels at a random place; a shorter axis at a random place in it."""
    shown = min(length, total)
    start = int(rng.integers(0, length - shown + 1))
    before = int(rng.integers(0, total - shown + 1))
    return Window(length, length, start, shown, before, total)


def _window(length: int, scaled: int, start: int, total: int) -> Window:
    shown = min(scaled, total)
    return Window(length, scaled, start, shown, (total - shown) // 2, total)


def _nearest(start: int, count: int, ratio: float, length: int) -> NDArray[np.intp]:
    """The source pixels of an axis under the centres of ``count`` scaled ones from ``start`` on."""
    centres = (np.arange(start, start + count) + 0.5) * ratio
    return np.minimum(centres.astype(np.intp), length - 1)


def cut_image(
    image: Tensor, rows: Window, columns: Window, scale_filter: ScaleFilter = "bilinear"
) -> Tensor:
    """The window of an image (3, H, W) uint8, padded with the ImageNet mean."""
    part = _resample(image.permute(1, 2, 0).numpy(), rows, columns, scale_filter)
    return torch.from_numpy(_padded(part, rows, columns, _MEAN_PIXEL)).permute(2, 0, 1)


def cut_map(values: Tensor, rows: Window, columns: Window) -> Tensor:
    """The window of a map (H, W), the nearest values, padded with void (floats: with 0)."""
    fill = 0 if values.is_floating_point() else IGNORE_INDEX
    part = values.numpy()[rows.nearest()][:, columns.nearest()]
    return torch.from_numpy(_padded(part, rows, columns, fill))


def pad_image(image: Tensor, size: Size) -> Tensor:
    """Fill (3, h, w) uint8 up to (3, H, W) below and on the right with the ImageNet mean."""
    colour = torch.from_numpy(_MEAN_PIXEL).view(3, 1, 1)
    return _corner(image, colour.expand(3, *size))


def pad_map(values: Tensor, size: Size) -> Tensor:
    """Fill (h, w) up to (H, W) below and on the right with void (floats: with 1)."""
    fill = 1 if values.is_floating_point() else IGNORE_INDEX
    return _corner(values, values.new_full(size, fill))


def _corner(values: Tensor, background: Tensor) -> Tensor:
    """The values in the upper left corner of a background that is not smaller."""
    height, width = values.shape[-2:]
    padded = background.clone(memory_format=torch.contiguous_format)
    padded[..., :height, :width] = values
    return padded


def _resample(
    image: NDArray[np.uint8], rows: Window, columns: Window, scale_filter: ScaleFilter
) -> NDArray[np.uint8]:
    """The window's part of the scaled image (H, W, 3), read from the source pixels it needs."""
    method, half_width = _FILTERS[scale_filter]
    spans = []
    for axis in (rows, columns):
        support = math.ceil(half_width * max(1.0, axis.ratio)) + 1
        first, last = axis.start * axis.ratio, (axis.start + axis.shown) * axis.ratio
        low = max(0, math.floor(first) - support)
        high = min(axis.length, math.ceil(last) + support)
        spans.append((low, high, first - low, min(last, axis.length) - low))
    (top, bottom, y0, y1), (left, right, x0, x1) = spans
    part = Image.fromarray(np.ascontiguousarray(image[top:bottom, left:right]))
    size = (columns.shown, rows.shown)
    return np.asarray(part.resize(size, method, box=(x0, y0, x1, y1)))


def _padded(
    values: NDArray, rows: Window, columns: Window, fill: int | NDArray[np.uint8]
) -> NDArray:
    """Put the values in the middle of a window filled with ``fill``."""
    window = np.empty((rows.total, columns.total, *values.shape[2:]), values.dtype)
    if (rows.shown, columns.shown) != window.shape[:2]:
        window[:] = fill
    inside = slice(rows.before, rows.before + rows.shown)
    window[inside, columns.before : columns.before + columns.shown] = values
    return window
