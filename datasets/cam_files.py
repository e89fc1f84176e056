"""Class activation maps as files: ``.npz`` archives that NumPy opens, every byte under a checksum.

An archive holds ``classes`` (K,) int64, the train ids of an image's labelled foreground classes in
ascending order, and ``maps`` (K, H, W) float16 in [0, 1]. The bytes follow from the two arrays
alone. The comment at the end of the archive is the CRC-32 of all that stands before its digits.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.png_files import DamagedMapError, Size

CAM_ENDING = "_cam.npz"

_MARK = "SegDoubt class activation maps"  # the first member, so that a file begins with its name
_CHECKSUM = b"CRC-32 of all before: "
_DIGITS = 8
_LOCAL_HEADER = 30  # bytes of a member before its name
_DATE = (1980, 1, 1, 0, 0, 0)  # of every member: the bytes do not depend on when they were written
_LEVEL = 1  # zeros vanish at any level, and slopes at none


def encode_cams(classes: NDArray[np.int64], maps: NDArray[np.floating[Any]]) -> bytes:
    """An image's class activation maps as a file.

    Args:
        classes: (K,), different train ids in ascending order; none is allowed.
        maps: (K, H, W), in [0, 1]; stored as float16.
    """
    assert maps.ndim == 3
    assert classes.shape == maps.shape[:1]
    assert (np.diff(classes) > 0).all(), "train ids ascend"
    assert maps.size == 0 or (maps.min() >= 0 and maps.max() <= 1), "maps lie in [0, 1]"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = _CHECKSUM + b"0" * _DIGITS
        archive.writestr(zipfile.ZipInfo(_MARK, _DATE), b"format 1\n")
        for name, array in (("classes", classes.astype("<i8")), ("maps", maps.astype("<f2"))):
            member = zipfile.ZipInfo(f"{name}.npy", _DATE)
            archive.writestr(member, _npy(array), zipfile.ZIP_DEFLATED, _LEVEL)
    content = file.getvalue()[:-_DIGITS]
    return content + _digits(content)


def decode_cams(content: bytes) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    """Train ids (K,) and maps (K, H, W) of a file of ``encode_cams``.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no such file.
    """
    inspect_cams(content)
    return read_arrays(content)


def inspect_cams(content: bytes) -> Size:
    """Size (H, W) of an image's maps, after a check of every byte; no map is decoded.

    Raises:
        DamagedMapError: if a byte is missing or changed, or it is no file of ``encode_cams``.
    """
    if not _is_marked(content):
        raise DamagedMapError("it is no class activation map of this program")
    if _digits(content[:-_DIGITS]) != content[-_DIGITS:]:
        raise DamagedMapError("it is truncated or its checksum is wrong")
    with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open("maps.npy") as member:
        np.lib.format.read_magic(member)
        shape = np.lib.format.read_array_header_1_0(member)[0]
    return shape[1], shape[2]


def read_arrays(content: bytes) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """``classes`` and ``maps`` of any such archive, also of another program, as they are stored.

    Raises:
        DamagedMapError: if it is no archive that holds these two arrays and no code.
    """
    classes, maps = _stored(io.BytesIO(content), "classes", "maps")
    return classes, maps


def read_classes(path: Path) -> NDArray[np.int64]:
    """``classes`` of any such archive; the maps are not read.

    Raises:
        DamagedMapError: as ``read_arrays`` does.
    """
    return _stored(path, "classes")[0]


def _stored(file: io.BytesIO | Path, *names: str) -> list[NDArray[Any]]:
    try:
        with np.load(file, allow_pickle=False) as archive:
            return [archive[name] for name in names]
    except Exception as error:  # NumPy, zipfile and zlib raise what they please on damaged files
        raise DamagedMapError(f"it is no .npz file with classes and maps ({error})") from None


def is_cam(path: Path) -> bool:
    """Whether a file begins as the class activation maps of this program do."""
    with path.open("rb") as file:
        return _is_marked(file.read(_LOCAL_HEADER + len(_MARK)))


def _is_marked(content: bytes) -> bool:
    return content.startswith(b"PK\x03\x04") and content[_LOCAL_HEADER:].startswith(_MARK.encode())


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), (1, 0), allow_pickle=False)
    return file.getvalue()


def _digits(content: bytes) -> bytes:
    """The CRC-32 in hexadecimal."""
    return b"%08x" % zlib.crc32(content)
