"""Labels of a drawing, with the small errors at borders that people make."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datasets.streets import textures
from datasets.streets.dice import Dice
from datasets.streets.textures import Grain

_THRESHOLD = 42  # of the noise, which then has moved about a fifth of the borders


def noisy_labels(surface: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Move borders by up to a pixel, in stretches of several pixels.

    Args:
        surface: label ids (H, W).
        seed: of the errors.
    """
    dice = Dice(seed)
    height, width = surface.shape
    places = []
    for axis, size in enumerate((height, width)):
        offset = (
            textures.window(dice, (height, width), "tile", Grain.BLOTCHES).astype(np.int16)
            - textures.MIDDLE
        )
        shift = (offset > _THRESHOLD).astype(np.int64) - (offset < -_THRESHOLD)
        own = np.arange(size)[:, None] if axis == 0 else np.arange(size)
        places.append(np.clip(own + shift, 0, size - 1))
    return surface.take(places[0] * width + places[1])
