"""Response weights as files: a label, the weight of each pixel and, if wanted, its uncertainty.

A level q of a weight file stands for the weight q / 255, and a grey value q of an uncertainty file
for q / 65535. The published form is one image of three channels: OpenCV wrote (label, weight,
weight) in its order blue, green, red, so that the label is in the third channel of a reader of red,
green, blue. Here the two equal channels are the weight, in whatever order they come.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.label_files import is_label
from datasets.png_files import (
    DamagedMapError,
    Size,
    begins_with,
    decode_png,
    encode_png,
    inspect_png,
)
from utils.types import IGNORE_INDEX
from utils.weight_levels import LEVELS

WEIGHT_ENDING = "_weight.png"
UNCERTAINTY_ENDING = "_uncertainty.png"
UNCERTAINTY_LEVELS = 2**16 - 1

_WEIGHT_KEYWORD = b"SegDoubt response weight, level of weight 1\0"
_UNCERTAINTY_KEYWORD = b"SegDoubt response uncertainty, level of uncertainty 1\0"
_COLOUR_TYPES = {2, 6}  # of a PNG: red, green, blue, without and with opacity
_HEADER = 26  # bytes of a PNG up to its colour type


class LabelAndLevels(NamedTuple):
    """What an image of the published form holds."""

    label: NDArray[np.uint8]  # (H, W), train ids, void 255
    levels: NDArray[np.uint8]  # (H, W), 255 for the weight 1


def encode_weight(levels: NDArray[np.uint8]) -> bytes:
    """The levels (H, W) of a weight map, 255 for the weight 1, as a PNG file."""
    return encode_png(levels, _WEIGHT_KEYWORD + str(LEVELS).encode())


def decode_weight(content: bytes) -> NDArray[np.uint8]:
    """The levels (H, W) of a weight file; any grey 8-bit PNG is one.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no such PNG.
    """
    return decode_png(content, inspect_weight(content), np.uint8)


def inspect_weight(content: bytes) -> Size:
    """Size (H, W) of a weight map, after a check of every byte; nothing is decoded.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no grey 8-bit PNG.
    """
    return inspect_png(content, 8, "weight map")[0]


def encode_uncertainty(uncertainty: NDArray[np.float32]) -> bytes:
    """An uncertainty (H, W) in [0, 1] as a PNG file of 16 bits, to the nearest level."""
    levels = np.rint(uncertainty.astype(np.float64) * UNCERTAINTY_LEVELS).astype(np.uint16)
    return encode_png(levels, _UNCERTAINTY_KEYWORD + str(UNCERTAINTY_LEVELS).encode())


def decode_uncertainty(content: bytes) -> NDArray[np.float32]:
    """The uncertainty (H, W) in [0, 1] that a file of ``encode_uncertainty`` holds.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no such file.
    """
    levels = decode_png(content, inspect_uncertainty(content), np.uint16)
    return np.divide(levels, UNCERTAINTY_LEVELS, dtype=np.float32)


def inspect_uncertainty(content: bytes) -> Size:
    """Size (H, W) of an uncertainty, after a check of every byte; nothing is decoded.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no file of
            ``encode_uncertainty``.
    """
    size, text = inspect_png(content, 16, "uncertainty")
    if not text.startswith(_UNCERTAINTY_KEYWORD):
        raise DamagedMapError("it is no response uncertainty of this program")
    return size


def is_response_file(path: Path) -> bool:
    """Whether a file begins as a label, a weight or an uncertainty of this program does."""
    keywords = (_WEIGHT_KEYWORD, _UNCERTAINTY_KEYWORD)
    return is_label(path) or any(begins_with(path, keyword) for keyword in keywords)


def has_channels(path: Path) -> bool:
    """Whether a file is a PNG with colour channels, as the published form is."""
    with path.open("rb") as file:
        header = file.read(_HEADER)
    return len(header) == _HEADER and header[1:4] == b"PNG" and header[-1] in _COLOUR_TYPES


def decode_published(content: bytes) -> LabelAndLevels:
    """Label and weight in an image of three channels, two of which are equal: the weight.

    All three are equal in an image of nothing but void, whose weights have no effect.

    Raises:
        DamagedMapError: if it cannot be decoded, has another number of channels, or the channels
            do not tell which of them is the label.
    """
    try:
        Image.open(io.BytesIO(content)).verify()  # the checksums, which decoding does not compare
        channels = np.asarray(Image.open(io.BytesIO(content)))
    except (OSError, SyntaxError) as error:
        raise DamagedMapError(f"it cannot be decoded ({error})") from None
    if channels.ndim != 3 or channels.shape[2] != 3 or channels.dtype != np.uint8:
        raise DamagedMapError(
            f"it holds {channels.dtype} of shape {channels.shape}; expected three channels of 8"
            " bits, one the label and two the weight"
        )
    first, second, third = (np.ascontiguousarray(channels[..., index]) for index in range(3))
    equal = [
        np.array_equal(one, other)
        for one, other in ((second, third), (first, third), (first, second))
    ]
    if all(equal) and (first != IGNORE_INDEX).any():
        raise DamagedMapError(
            "its three channels are equal, so it is a label without weights; expected two equal"
            " ones, the weight, and another, the label"
        )
    if not any(equal):
        raise DamagedMapError(
            "its three channels all differ; expected two equal ones, the weight, and another, the"
            " label"
        )
    label = (first, second, third)[equal.index(True)]
    return LabelAndLevels(label, second if equal[0] else first)
