"""Listing, pairing and decoding of image and label files."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def listing(folder: Path, limit: int = 8) -> str:
    """What a folder holds, in words for an error message."""
    if not folder.is_dir():
        return f"{folder} does not exist"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    if not names:
        return f"{folder} is empty"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"{folder} holds {', '.join(names[:limit])}{more}"


def image_files(folder: Path, pattern: str = "*") -> list[Path]:
    """The images in a folder that match a pattern (``**/*``: below it too), by name."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def by_key(paths: Iterable[Path], folder: Path, suffix: str = "") -> dict[str, Path]:
    """Files by the part of their relative name that an image and its label share.

    Args:
        paths: image or label files below ``folder``.
        folder: where the relative names start.
        suffix: end of the stem that is not part of the key, such as ``_leftImg8bit``; files
            whose stem ends otherwise are left out.

    Raises:
        ValueError: if two files share a key.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.stem.endswith(suffix):
            continue
        key = path.relative_to(folder).with_suffix("").as_posix().removesuffix(suffix)
        if key in found:
            raise ValueError(f"{found[key]} and {path} have the same name; remove one of them")
        found[key] = path
    return found


def pair(
    images: Mapping[str, Path], labels: Mapping[str, Path] | None
) -> list[tuple[str, Path, Path | None]]:
    """Every image with its label, sorted by key; with None if there are no labels at all.

    Raises:
        ValueError: if an image has no label or a label no image, naming the first such file.
    """
    if labels is None:
        return [(key, images[key], None) for key in sorted(images)]
    for here, there, kind, twin in (
        (images, labels, "image", "label"),
        (labels, images, "label", "image"),
    ):
        lonely = sorted(here.keys() - there.keys())
        if lonely:
            more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
            raise ValueError(
                f"{kind} without {twin}: {here[lonely[0]]}{more}; "
                f"there are {len(images)} images and {len(labels)} labels, paired by name"
            )
    return [(key, images[key], labels[key]) for key in sorted(images)]


def image_size(path: Path) -> tuple[int, int]:
    """(H, W) of an image file, read from its header.

    Raises:
        ValueError: if the file is no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode an image to (H, W, 3) RGB, turned as stored (EXIF orientation is not applied).

    Raises:
        ValueError: if the file is missing, truncated or no image.
    """
    return _decode(path, cv2.IMREAD_COLOR_RGB)


def read_ids(path: Path) -> NDArray[np.uint8]:
    """Decode a label file to its raw ids (H, W): grey values, or the indices of a palette image.

    Raises:
        ValueError: if the file is missing, truncated, coloured or holds ids above 255.
    """
    depth, is_palette = _png_kind(path)
    if is_palette or depth < 8:
        return _read_packed_ids(path, depth, is_palette)
    ids = _decode(path, cv2.IMREAD_UNCHANGED)
    if ids.ndim == 3:
        ids = _grey_of_equal_channels(ids, path)
    return _in_a_byte(ids, path)


def read_first_channel(path: Path) -> NDArray[np.uint8]:
    """The ids (H, W) in the first channel, red, of a label with one, three or four of 8 or 16 bits.

    Raises:
        ValueError: if the file is missing, truncated or holds ids above 255.
    """
    values = _decode(path, cv2.IMREAD_UNCHANGED)
    return _in_a_byte(values if values.ndim == 2 else values[..., 2], path)  # OpenCV: BGR


def _in_a_byte(ids: NDArray, path: Path) -> NDArray[np.uint8]:
    """The ids (H, W) as bytes."""
    if ids.dtype != np.uint8 and ids.max() > 255:
        raise ValueError(f"{path} holds ids up to {ids.max()}; label ids must fit in 0..255")
    return np.ascontiguousarray(ids, np.uint8)


def _decode(path: Path, flags: int) -> Any:
    _refuse_truncated_jpeg(path)
    pixels = cv2.imread(str(path), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise ValueError(_unreadable(path))
    return pixels


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait for and hold a lock file, which the system frees however the process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _png_kind(path: Path) -> tuple[int, bool]:
    """Bits per sample of a PNG file and whether it has a palette; (8, False) for other files."""
    if path.suffix.lower() != ".png" or not path.is_file():
        return 8, False
    with path.open("rb") as file:
        header = file.read(26)
    return (header[24], header[25] == 3) if len(header) == 26 else (8, False)


def _read_packed_ids(path: Path, depth: int, is_palette: bool) -> NDArray[np.uint8]:
    """Ids of a palette image, or of a grey one with less than eight bits per pixel."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image).astype(np.uint8)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as a label: {error}") from error
    if is_palette or depth == 1:
        return values
    return values // (255 // (2**depth - 1))  # Pillow stretches 2 and 4 bits to 0..255


def _grey_of_equal_channels(values: NDArray, path: Path) -> NDArray:
    """The one channel of a grey image that was stored with colour channels."""
    colours = values[..., :3] if values.shape[2] >= 3 else values[..., :1]
    if (colours != colours[..., :1]).any():
        raise ValueError(
            f"{path} is a colour image; a label holds one class id per pixel "
            "(a grey 8-bit PNG or a palette PNG)"
        )
    return np.ascontiguousarray(colours[..., 0])


def _refuse_truncated_jpeg(path: Path) -> None:
    """OpenCV fills the missing part of a JPEG with grey; a complete file ends with FF D9."""
    if path.suffix.lower() not in {".jpg", ".jpeg"} or not path.is_file():
        return
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        if b"\xff\xd9" not in file.read():
            raise ValueError(_unreadable(path))


def _unreadable(path: Path) -> str:
    if not path.is_file():
        return f"{path} does not exist"
    return f"{path} cannot be decoded: truncated or not an image ({path.stat().st_size} bytes)"
