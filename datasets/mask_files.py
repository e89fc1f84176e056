"""A mask as a file: a 16-bit grey PNG that any tool opens, with every byte under a checksum.

Grey values q stand for q / 65535 * scale nats, so the error is at most scale / 131070 (2.2e-5 nats
for 19 classes). The scale, which is the greatest entropy log C, stands in a text chunk.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

ENDING = ".png"
LEVELS = 2**16 - 1
Size = tuple[int, int]  # (H, W)

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 33  # of the signature and the chunk IHDR
_KEYWORD = b"SegDoubt uncertainty mask, scale in nats\0"
# Read fastest without a filter; level 3 reads a quarter faster still, but is half as large again.
_ENCODING = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 6),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE),
)


class DamagedMaskError(ValueError):
    """The bytes of a mask are not as they were written; the message says how so."""


def encode_mask(mask: NDArray[np.float32], scale: float) -> bytes:
    """A mask as a PNG file.

    Args:
        mask: (H, W), in nats; what rounding put outside [0, scale] is brought back.
        scale: the value of the highest level.
    """
    assert np.isfinite(mask).all(), "a mask is finite"
    levels = np.rint(mask.clip(0, scale) * (LEVELS / scale)).astype(np.uint16)
    done, encoded = cv2.imencode(ENDING, levels, _ENCODING)
    assert done, f"OpenCV cannot encode a mask of shape {mask.shape}"
    content = encoded.tobytes()
    text = _chunk(b"tEXt", _KEYWORD + repr(float(scale)).encode())
    return content[:_HEADER_END] + text + content[_HEADER_END:]


def decode_mask(content: bytes) -> NDArray[np.float32]:
    """The mask (H, W) in nats that a PNG file holds.

    Raises:
        DamagedMaskError: if a byte is missing or changed, or it is no file of ``encode_mask``.
    """
    size, scale = inspect_mask(content)
    levels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None or levels.shape != size or levels.dtype != np.uint16:
        raise DamagedMaskError("its pixels cannot be decoded")
    return np.multiply(levels, np.float32(scale / LEVELS), dtype=np.float32)


def inspect_mask(content: bytes) -> tuple[Size, float]:
    """Size (H, W) and scale of a mask, after a check of every byte; nothing is decoded.

    Raises:
        DamagedMaskError: if a byte is missing or changed, or it is no file of ``encode_mask``.
    """
    chunks = list(_chunks(content))
    kinds = [kind for kind, _ in chunks]
    if kinds[:2] != [b"IHDR", b"tEXt"] or kinds[-1] != b"IEND":
        raise DamagedMaskError("it is truncated or no mask of this program")
    width, height, depth, colour = struct.unpack_from(">IIBB", chunks[0][1])
    text = chunks[1][1]
    if (depth, colour) != (16, 0) or not text.startswith(_KEYWORD):
        raise DamagedMaskError("it is no mask of this program")
    return (height, width), float(text.removeprefix(_KEYWORD))


def is_mask(path: Path) -> bool:
    """Whether a file begins as a mask of this program does."""
    with path.open("rb") as file:
        start = file.read(_HEADER_END + 8 + len(_KEYWORD))
    return start.startswith(_SIGNATURE) and start.endswith(_KEYWORD)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of every chunk of a PNG file whose checksum is right.

    OpenCV gives an image for many damaged files, so it is not left to OpenCV.
    """
    if not content.startswith(_SIGNATURE):
        raise DamagedMaskError("it does not begin as a PNG file does")
    start = len(_SIGNATURE)
    while start < len(content):
        head = content[start : start + 8]
        length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        end = start + 8 + length
        checksum = content[end : end + 4]
        if len(checksum) < 4:
            raise DamagedMaskError("it is truncated")
        if struct.pack(">I", zlib.crc32(content[start + 4 : end])) != checksum:
            raise DamagedMaskError("its checksum is wrong")
        yield kind, content[start + 8 : end]
        start = end + 4
