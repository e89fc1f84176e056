"""Values of pixels, the size rule, convolution with large kernels, and resampling."""

from __future__ import annotations

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional as F

REFERENCE = 224  # the published parameters are pixels of images with 224 rows and columns
LEAST_SCALE, GREATEST_SCALE = 0.5, 5.0
Size = tuple[int, int]  # (H, W)


def to_float(image: Tensor) -> Tensor:
    """From uint8 to float32 in [0, 1]."""
    return image.to(torch.float32).div_(255)


def to_bytes(image: Tensor) -> Tensor:
    """From float in [0, 1] to the nearest uint8; what lies outside is clipped."""
    return image.clamp(0, 1).mul_(255).round_().to(torch.uint8)


def scale_of(image: Tensor) -> float:
    """Pixels of an image (..., H, W) for a published pixel: min(H, W) / 224, within [0.5, 5]."""
    return min(max(min(image.shape[-2:]) / REFERENCE, LEAST_SCALE), GREATEST_SCALE)


def reference_size(image: Tensor) -> Size:
    """(H, W) of an image (..., H, W) in published pixels."""
    scale = scale_of(image)
    rows, columns = image.shape[-2:]
    return max(1, round(rows / scale)), max(1, round(columns / scale))


def resized(maps: Tensor, size: Size, mode: str = "bilinear") -> Tensor:
    """Maps (C, h, w) at another size (H, W): ``bilinear``, ``bicubic`` or ``nearest-exact``."""
    return F.interpolate(maps[None], size, mode=mode)[0]


def convolve(image: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each channel of an image (C, H, W), mirrored at its borders.

    Args:
        image: float32.
        kernel: (rows, columns), both odd; its middle is the origin.
    """
    sizes = [
        next_fast_len(length + side - 1, real=True)
        for length, side in zip(image.shape[1:], kernel.shape, strict=True)
    ]
    rows, columns = (
        _mirrored(-(side // 2), size, length)
        for side, size, length in zip(kernel.shape, sizes, image.shape[1:], strict=True)
    )
    spectrum = torch.fft.rfft2(image[:, rows][:, :, columns])
    spectrum *= torch.fft.rfft2(kernel, s=sizes)
    top, left = kernel.shape[0] - 1, kernel.shape[1] - 1
    whole = torch.fft.irfft2(spectrum, s=sizes)
    return whole[:, top : top + image.shape[1], left : left + image.shape[2]]


def _mirrored(start: int, count: int, length: int) -> Tensor:
    """Indices start, start + 1, ... into [0, length), mirrored without repeating the border."""
    period = max(1, 2 * (length - 1))
    index = torch.arange(start, start + count) % period
    return torch.where(index < length, index, period - index)


def disk(radius: float) -> Tensor:
    """A kernel of equal weights within a radius in pixels, its edge one pixel wide."""
    reach = math.ceil(radius)
    along = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = (radius + 0.5 - torch.hypot(along[:, None], along)).clamp_(0, 1)
    return weights / weights.sum()


def gaussian(sigma: float) -> Tensor:
    """A Gaussian kernel, cut at four standard deviations; sigma in pixels."""
    reach = math.ceil(4 * sigma)
    along = torch.arange(-reach, reach + 1, dtype=torch.float32)
    weights = torch.exp(-0.5 * (along / sigma) ** 2)
    weights = weights[:, None] * weights
    return weights / weights.sum()


def streak(length: float, sigma: float, angle: float) -> Tensor:
    """The kernel of a motion that begins suddenly and fades out, its centre of mass in the middle.

    Args:
        length: in pixels.
        sigma: how fast it fades: the standard deviation of the Gaussian's half, in pixels.
        angle: in degrees, clockwise from the direction of the rows.
    """
    steps = torch.linspace(0, length, 2 * math.ceil(length) + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    steps = steps - (weights * steps).sum()
    reach = math.ceil(length) + 1
    turn = math.radians(angle)
    kernel = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    y, x = steps * math.sin(turn) + reach, steps * math.cos(turn) + reach
    top, left = y.floor(), x.floor()
    for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            at = (row.long(), column.long())
            kernel.index_put_(at, weights * share_y * share_x, accumulate=True)
    return kernel.to(torch.float32)


def sample(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The image (C, H, W) at places between its pixels, mirrored at its borders.

    Args:
        image: float32.
        rows: (H, W) or (H, 1), in pixels; 0 is the middle of the first row.
        columns: (H, W) or (1, W), likewise.
    """
    height, width = image.shape[1:]
    y, x = torch.broadcast_tensors(
        rows * (2 / max(1, height - 1)) - 1, columns * (2 / max(1, width - 1)) - 1
    )
    grid = torch.stack([x, y], dim=-1)[None]
    return F.grid_sample(
        image[None], grid, mode="bilinear", padding_mode="reflection", align_corners=True
    )[0]


def places(image: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers (H, 1) and column numbers (1, W) of an image (C, H, W), float32."""
    rows, columns = (torch.arange(length, dtype=torch.float32) for length in image.shape[1:])
    return rows[:, None], columns[None]
