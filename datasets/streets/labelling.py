"""Labels of a drawing, with the small errors at borders that people make."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from datasets.streets import textures
from datasets.streets.dice import Dice
from datasets.streets.textures import Grain

_THRESHOLD = 42  # of the noise, which then moves about a fifth of the borders


@cache
def shifts() -> NDArray[np.int64]:
    """Where a tile's labels come from: -1, 0 or 1 pixels away, (TILE, TILE)."""
    noise = textures.tile(Grain.BLOTCHES).astype(np.int64) - textures.MIDDLE
    return (noise > _THRESHOLD).astype(np.int64) - (noise < -_THRESHOLD)


def noisy_labels(surface: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Move borders by up to a pixel, in stretches of several pixels.

    Args:
        surface: label ids (H, W).
        seed: of the errors.
    """
    dice = Dice(seed)
    height, width = surface.shape
    down = textures.window(shifts(), dice, surface.shape).copy()
    right = textures.window(shifts(), dice, surface.shape).copy()
    # nothing comes from outside the image
    down[0], down[-1], right[:, 0], right[:, -1] = 0, 0, 0, 0
    place = np.arange(height * width).reshape(height, width)
    return surface.take(place + (down * width + right))
