"""A mask as a file: a 16-bit grey PNG that any tool opens, with every byte under a checksum.

Grey values q stand for q / 65535 * scale nats, so the error is at most scale / 131070 (2.2e-5 nats
for 19 classes). The scale, which is the greatest entropy log C, stands in a text chunk.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datasets.png_files import (
    DamagedMapError,
    Size,
    begins_with,
    decode_png,
    encode_png,
    inspect_png,
)

ENDING = ".png"
LEVELS = 2**16 - 1

_KEYWORD = b"SegDoubt uncertainty mask, scale in nats\0"


def encode_mask(mask: NDArray[np.float32], scale: float) -> bytes:
    """A mask as a PNG file.

    Args:
        mask: (H, W), in nats; what rounding put outside [0, scale] is brought back.
        scale: the value of the highest level.
    """
    assert np.isfinite(mask).all(), "a mask is finite"
    levels = np.rint(mask.clip(0, scale) * (LEVELS / scale)).astype(np.uint16)
    return encode_png(levels, _KEYWORD + repr(float(scale)).encode())


def decode_mask(content: bytes) -> NDArray[np.float32]:
    """The mask (H, W) in nats that a PNG file holds.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no file of ``encode_mask``.
    """
    size, scale = inspect_mask(content)
    levels = decode_png(content, size, np.uint16)
    return np.multiply(levels, np.float32(scale / LEVELS), dtype=np.float32)


def inspect_mask(content: bytes) -> tuple[Size, float]:
    """Size (H, W) and scale of a mask, after a check of every byte; nothing is decoded.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no file of ``encode_mask``.
    """
    size, text = inspect_png(content, 16, "mask")
    if not text.startswith(_KEYWORD):
        raise DamagedMapError("it is no mask of this program")
    return size, float(text.removeprefix(_KEYWORD))


def is_mask(path: Path) -> bool:
    """Whether a file begins as a mask of this program does."""
    return begins_with(path, _KEYWORD)
