"""Maps as grey PNG files that any tool opens, with every byte under a checksum."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]  # (H, W)

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_END = 33  # of the signature and the chunk IHDR
# Areas of one value are read fastest without a filter; level 3 reads a quarter faster still, but is
# half as large again. Slopes are a third smaller, written and read faster with differences of rows.
_OF_AREAS = (6, cv2.IMWRITE_PNG_FILTER_NONE)
_OF_SLOPES = (3, cv2.IMWRITE_PNG_FILTER_UP)


class DamagedMapError(ValueError):
    """The bytes of a map are not as they were written; the message says how so."""


def encode_png(levels: NDArray[Any], text: bytes, *, smooth: bool = False) -> bytes:
    """Grey values as a PNG file with a text behind its header.

    Args:
        levels: (H, W), uint8 or uint16.
        text: a keyword, a zero byte and a value, in Latin-1.
        smooth: the values change little by little rather than in areas; speed and length alone
            depend on it.
    """
    level, row_filter = _OF_SLOPES if smooth else _OF_AREAS
    how = (
        *(cv2.IMWRITE_PNG_COMPRESSION, level),
        *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT),
        *(cv2.IMWRITE_PNG_FILTER, row_filter),
    )
    done, encoded = cv2.imencode(".png", levels, how)
    assert done, f"OpenCV cannot encode a map of shape {levels.shape} and type {levels.dtype}"
    content = encoded.tobytes()
    return content[:_HEADER_END] + _chunk(b"tEXt", text) + content[_HEADER_END:]


def decode_png(content: bytes, size: Size, dtype: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """The grey values (H, W) of a PNG file that ``inspect_png`` has found whole.

    Raises:
        DamagedMapError: if OpenCV gives no image of this size and type.
    """
    levels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if levels is None or levels.shape != size or levels.dtype != dtype:
        raise DamagedMapError("its pixels cannot be decoded")
    return levels


def inspect_png(content: bytes, depth: int, noun: str) -> tuple[Size, bytes]:
    """Size (H, W) and text of a grey PNG file, after a check of every byte; nothing is decoded.

    Args:
        content: of the file.
        depth: bits a pixel.
        noun: what the file should be, for messages.

    Returns:
        The size, and the text that ``encode_png`` put behind the header; empty without one.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no grey PNG of this depth.
    """
    chunks = list(_chunks(content))
    kinds = [kind for kind, _ in chunks]
    if len(kinds) < 3 or kinds[0] != b"IHDR" or kinds[-1] != b"IEND":
        raise DamagedMapError(f"it is truncated or no {noun} of this program")
    width, height, bits, colour = struct.unpack_from(">IIBB", chunks[0][1])
    if (bits, colour) != (depth, 0):
        raise DamagedMapError(f"it is no {noun} of this program")
    return (height, width), chunks[1][1] if kinds[1] == b"tEXt" else b""


def refuse_damaged_png(content: bytes) -> None:
    """Check every byte of a PNG file of any kind and program; nothing is decoded.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no PNG file.
    """
    kinds = [kind for kind, _ in _chunks(content)]
    if kinds[:1] != [b"IHDR"] or kinds[-1] != b"IEND":
        raise DamagedMapError("it is truncated or no PNG file")


def begins_with(path: Path, keyword: bytes) -> bool:
    """Whether a file begins as those of ``encode_png`` with such a text do."""
    with path.open("rb") as file:
        start = file.read(_HEADER_END + 8 + len(keyword))
    return start.startswith(_SIGNATURE) and start.endswith(keyword)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of every chunk of a PNG file whose checksum is right.

    OpenCV gives an image for many damaged files, so it is not left to OpenCV.
    """
    if not content.startswith(_SIGNATURE):
        raise DamagedMapError("it does not begin as a PNG file does")
    start = len(_SIGNATURE)
    while start < len(content):
        head = content[start : start + 8]
        length, kind = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"")
        end = start + 8 + length
        checksum = content[end : end + 4]
        if len(checksum) < 4:
            raise DamagedMapError("it is truncated")
        if struct.pack(">I", zlib.crc32(content[start + 4 : end])) != checksum:
            raise DamagedMapError("its checksum is wrong")
        yield kind, content[start + 8 : end]
        start = end + 4
