"""Pseudo labels as files: 8-bit grey PNGs of train ids, and of how probable they are.

The scores are rounded down, level = floor(255 p): a pixel whose level / 255 reaches a threshold has
a probability that reaches it, so that no later threshold accepts a pixel that it would have
rejected when the labels were made. Up to 1/255 of probability is lost, at the side of caution.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.files import read_ids
from datasets.png_files import (
    DamagedMapError,
    Size,
    begins_with,
    decode_png,
    encode_png,
    inspect_png,
    refuse_damaged_png,
)
from utils.types import IGNORE_INDEX

LABEL_ENDING = ".png"
SCORE_ENDING = "_score.png"
SCORE_LEVELS = 255

_LABEL_KEYWORD = b"SegDoubt pseudo label, number of classes\0"
_SCORE_KEYWORD = b"SegDoubt pseudo label score, level of probability 1\0"


def encode_label(label: NDArray[np.uint8], num_classes: int) -> bytes:
    """A pseudo label as a PNG file.

    Args:
        label: (H, W), train ids in 0..num_classes-1, rejected pixels 255.
        num_classes: at most 255.
    """
    assert num_classes <= IGNORE_INDEX, "255 stands for a rejected pixel"
    assert first_bad_value(label, num_classes) is None, "a pseudo label holds train ids and 255"
    return encode_png(label, _LABEL_KEYWORD + str(num_classes).encode())


def encode_score(levels: NDArray[np.uint8]) -> bytes:
    """The levels (H, W) of a label's probability, 255 for 1, as a PNG file."""
    return encode_png(levels, _SCORE_KEYWORD + str(SCORE_LEVELS).encode(), smooth=True)


def decode_label(content: bytes) -> NDArray[np.uint8]:
    """The values (H, W) of a label file; any grey 8-bit PNG is one.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no such PNG.
    """
    return decode_png(content, inspect_label(content)[0], np.uint8)


def decode_score(content: bytes) -> NDArray[np.uint8]:
    """The levels (H, W) that a file of ``encode_score`` holds.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no such file.
    """
    return decode_png(content, inspect_score(content), np.uint8)


def read_label(path: Path) -> NDArray[np.uint8]:
    """The values (H, W) of a label file, as ``decode_label``.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no grey 8-bit PNG.
    """
    return decode_label(path.read_bytes())


def read_other_label(path: Path) -> NDArray[np.uint8]:
    """The values (H, W) of another program's label: a grey PNG, or the indices of a palette PNG.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no PNG file.
        ValueError: if it is coloured, naming the file.
    """
    refuse_damaged_png(path.read_bytes())  # decoders pass over some wrong bytes
    return read_ids(path)


def inspect_label(content: bytes) -> tuple[Size, int | None]:
    """Size (H, W) of a label and for how many classes it was made, None if another tool made it.

    Every byte is checked, nothing is decoded.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no grey 8-bit PNG.
    """
    size, text = inspect_png(content, 8, "pseudo label")
    ours = text.startswith(_LABEL_KEYWORD)
    return size, int(text.removeprefix(_LABEL_KEYWORD)) if ours else None


def inspect_label_file(path: Path) -> tuple[Size, int | None]:
    """Size (H, W) of the label in a file and its number of classes, as ``inspect_label``.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no grey 8-bit PNG.
    """
    return inspect_label(path.read_bytes())


def inspect_score(content: bytes) -> Size:
    """Size (H, W) of a score map, after a check of every byte; nothing is decoded.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no file of ``encode_score``.
    """
    size, text = inspect_png(content, 8, "score map")
    if not text.startswith(_SCORE_KEYWORD):
        raise DamagedMapError("it is no score map of this program")
    return size


def is_label(path: Path) -> bool:
    """Whether a file begins as a pseudo label of this program does."""
    return begins_with(path, _LABEL_KEYWORD)


def is_score(path: Path) -> bool:
    """Whether a file begins as a score map of this program does."""
    return begins_with(path, _SCORE_KEYWORD)


def first_bad_value(label: NDArray[Any], num_classes: int) -> int | None:
    """The least value in [num_classes, 254], which stands for nothing; None if there is none."""
    if not label.size or int((label + np.uint8(1)).max()) <= num_classes:  # 255 wraps round to 0
        return None
    return int(label[(label >= num_classes) & (label != IGNORE_INDEX)].min())
