"""Maps of numbers as colours: the scale, the table, the bar that explains them."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

COLOUR_MAP = "inferno"
TEXT_KEY = "Scale"  # of the text in a PNG that says what its colours mean


@dataclass(frozen=True)
class Scale:
    """The values that the first and the last colour stand for.

    Attributes:
        low: shown in the first colour, as is everything below.
        high: shown in the last colour, as is everything above.
        unit: of both, such as nats.
        note: what else a reader has to know, in a few words.
        clipped: whether there may be values above ``high``.
    """

    low: float
    high: float
    unit: str
    note: str = ""
    clipped: bool = False

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Both ends and values at equal steps between, with texts: the steps that read shortest.

        Args:
            most: steps.
        """
        choices = []
        for steps in range(min(most, 2), most + 1):
            values = np.linspace(self.low, self.high, steps + 1)
            texts = [f"{value:.3g}" for value in values]
            choices.append((max(map(len, texts)), -steps, values.tolist(), texts))
        _, _, values, texts = min(choices)
        if self.clipped:
            texts[-1] = f"≥ {texts[-1]}"
        return list(zip(values, texts, strict=True))


@cache
def colour_table(name: str = COLOUR_MAP) -> NDArray[np.uint8]:
    """A perceptually uniform colour map of matplotlib, (256, 3) RGB, dark to bright."""
    from matplotlib import colormaps  # slow to import

    table = colormaps[name](np.arange(256), bytes=True)[:, :3].copy()
    table.flags.writeable = False  # it is shared
    return np.asarray(table, np.uint8)


def colour_indices(values: NDArray[np.floating], scale: Scale) -> NDArray[np.uint8]:
    """The place of each value in the colour table: 0 at ``scale.low``, 255 at ``scale.high``.

    What is not a number takes the last colour: nothing is certain there.
    """
    shares = np.nan_to_num((values - scale.low) / (scale.high - scale.low), nan=1)
    return np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)


def coloured(values: NDArray[np.floating], scale: Scale) -> NDArray[np.uint8]:
    """Values (H, W) as RGB (H, W, 3)."""
    return colour_table()[colour_indices(values, scale)]


def map_png(values: NDArray[np.floating], scale: Scale) -> bytes:
    """Values (H, W) as a PNG with a palette, which also says in a text what the colours mean."""
    picture = Image.fromarray(colour_indices(values, scale))
    picture.putpalette(colour_table().tobytes())
    text = PngInfo()
    text.add_itxt(TEXT_KEY, json.dumps(asdict(scale)))
    file = io.BytesIO()
    picture.save(file, format="PNG", compress_level=1, pnginfo=text)  # others cost time, save 5 %
    return file.getvalue()


def read_scale(path: Path) -> Scale | None:
    """The scale that ``map_png`` wrote into a file, None for any other picture."""
    with Image.open(path) as picture:
        text = picture.text.get(TEXT_KEY) if isinstance(picture, PngImageFile) else None
    return None if text is None else Scale(**json.loads(text))
