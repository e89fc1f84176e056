"""Files of a generated picture: its image, and labels with or without a palette."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets.streets.render import Picture
from datasets.taxonomy import SegClass
from utils.types import IGNORE_INDEX


def save(path: Path, content: Picture | NDArray[np.uint8]) -> None:
    """Write a picture's image or a label; the suffix decides about the format."""
    array = content.image.transpose(1, 2, 0) if isinstance(content, Picture) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(array)).save(path)


def save_palette(
    path: Path,
    ids: NDArray[np.uint8],
    classes: Sequence[SegClass],
    void: tuple[int, int, int] = (0, 0, 0),
) -> None:
    """Write a label as a PNG whose palette holds the colours of the classes, in their order.

    Args:
        path: of the file.
        ids: (H, W).
        classes: whose places are the ids.
        void: the colour of 255.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = [entry.colour for entry in classes]
    palette[IGNORE_INDEX] = void
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids)
    image.putpalette(palette.tobytes())
    image.save(path)
