"""Maps of uncertainty as pictures and as numbers, for ``--predict`` and ``--save_val_results``."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from engine.consumers import ImageWriter, has_target
from engine.pictures import (
    Array,
    class_legend,
    colours,
    full_palette,
    overlay,
    pictures,
    png,
    predicted_ids,
)
from utils.colour_maps import Scale, coloured, map_png
from utils.kept import score_map
from utils.sheets import Row, Tile, contact_sheet
from utils.types import Batch, ForwardVariant, Prediction, Score
from utils.variants import by_variant

# Brightest colours. They are where the maps of a good network end, not where the score does: of a
# MobileNetV2 on CamVid, half the entropy is below 0.2 nats and 98 % below 1.5 (of at most 2.4).
ENTROPY = 1.5  # nats
DIVERGENCES = {  # nats, and why more is clipped
    "mutual_information": (0.5, "the maximum is log members"),
    "disagreement": (1.0, "there is no maximum"),
}
TILES_IN_A_ROW = 5
SMALLEST_TILE, LARGEST_TILE = 320, 640  # pixels


class ScoreMapWriter(ImageWriter):
    """Scores of every image as coloured maps, as numbers, and beside image and prediction.

    The files are ``ID_SCORE.png`` for each score (colours of ``score_scale``, which the file also
    names in a text), ``ID_scores.npz`` with one array (H, W) for each score under its name,
    float32 as the score gave it, and ``ID_uncertainty.png``: image, target where there is one,
    prediction and all scores with colour bars. With a forward variant the last two end with
    ``_VARIANT``.

    Args:
        directory: made where it is missing.
        scores: of one forward variant, see ``score_writers``.
        palette: (K, 3) uint8 RGB, the colour of each train id.
        class_names: names by train id, for the legend of the panel.
    """

    def __init__(
        self,
        directory: Path | str,
        scores: Sequence[Score],
        palette: Tensor,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__(directory)
        assert len({score.variant for score in scores}) == 1, "one writer for each variant"
        self.scores = tuple(scores)
        self.in_published_scale = {
            score.name for score in scores if score.function is score.published
        }
        self.needs = frozenset[str]().union(*(score.needs for score in scores))
        self.variant: ForwardVariant | None = scores[0].variant
        self.palette = full_palette(palette)
        self.class_names = tuple(class_names)

    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, NDArray[Any]]:
        """Picture, target (where there is one), predicted train ids and the scores."""
        images = len(prediction.logits)
        arrays: dict[str, NDArray[Any]] = {
            "image": pictures(batch, prediction),
            "prediction": predicted_ids(prediction),
            "num_classes": np.full(images, prediction.logits.shape[1]),
        }
        if "label" in batch:
            arrays["target"] = batch["label"].cpu().numpy()
        for score in self.scores:
            arrays[f"score {score.name}"] = score_map(score, prediction).cpu().numpy()
        return arrays

    def files_of(self, arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
        """The files of one image."""
        maps: dict[str, Any] = {score.name: arrays[f"score {score.name}"] for score in self.scores}
        scales = {
            name: score_scale(
                name,
                int(arrays["num_classes"]),
                values,
                published=name in self.in_published_scale,
            )
            for name, values in maps.items()
        }
        for name, values in maps.items():
            yield f"_{name}.png", map_png(values, scales[name])
        ending = f"_{self.variant.name}" if self.variant else ""
        file = io.BytesIO()
        np.savez(file, **maps)  # not compressed: that takes seconds an image
        yield f"_scores{ending}.npz", file.getvalue()
        yield f"_uncertainty{ending}.png", png(self._panel(arrays, maps, scales))

    def _panel(
        self,
        arrays: dict[str, NDArray[Any]],
        maps: dict[str, Any],
        scales: dict[str, Scale],
    ) -> Array:
        """Image, target, prediction and scores with captions, bars and the classes seen."""
        image, ids = arrays["image"], arrays["prediction"]
        shown = ids
        tiles = [Tile("image", image)]
        if has_target(arrays):
            shown = np.concatenate([ids, arrays["target"]])
            tiles.append(Tile("target", colours(arrays["target"], self.palette)))
        tiles.append(Tile("prediction", overlay(image, ids, self.palette)))
        first = len(tiles)
        tiles += [Tile(name, coloured(maps[name], scales[name]), scales[name]) for name in maps]
        if len(tiles) > TILES_IN_A_ROW:
            starts = [0, *range(first, len(tiles), TILES_IN_A_ROW - 1), len(tiles)]
            rows = [Row(tiles[start:end]) for start, end in pairwise(starts)]
        else:
            rows = [Row(tiles)]
        return contact_sheet(
            rows,
            legend=class_legend(shown, self.class_names, self.palette),
            tile_width=min(max(image.shape[1], SMALLEST_TILE), LARGEST_TILE),
        )


def score_writers(
    directory: Path | str,
    scores: Sequence[Score],
    palette: Tensor,
    class_names: Sequence[str] = (),
) -> list[ScoreMapWriter]:
    """The writers of some scores, one for each forward variant, in the order of the scores."""
    return [ScoreMapWriter(directory, group, palette, class_names) for group in by_variant(scores)]


def score_scale(
    name: str, num_classes: int, values: NDArray[np.floating], *, published: bool = False
) -> Scale:
    """What the colours of a score's map stand for.

    Scores with known limits have one scale for all images, so that images compare; entropy,
    expected entropy and instance uncertainty share theirs, so that they compare with each other.
    Values above it take the last colour. Other scores are shown over the range of the image.

    Args:
        name: of the score.
        num_classes: C.
        values: the map (H, W).
        published: whether the values are in the published code's scale: entropy is then divided
            by its maximum.
    """
    match name.partition("@")[0].rpartition("+")[2]:
        case "entropy" if published:
            most = math.log(num_classes)
            note = "of the greatest possible entropy"
            high = min(most, ENTROPY) / most if most else 1.0
            return Scale(0, high, "", note, clipped=most > ENTROPY)
        case "entropy" | "expected_entropy" | "instance":
            most = math.log(num_classes)
            note = f"the maximum is log {num_classes} = {most:.2f}"
            return Scale(0, min(most, ENTROPY), "nats", note, clipped=most > ENTROPY)
        case "mutual_information" | "disagreement":
            high, note = DIVERGENCES[name]
            return Scale(0, high, "nats", note, clipped=True)
        case "msp" | "margin":
            return Scale(0, 1, "probability")
        case "member_variance":
            note = f"below 1 / {num_classes}"  # (1 - 1/M) / C, members sure of M different classes
            high = float(f"{1 / (4 * num_classes):.1g}")
            return Scale(0, high, "variance of probabilities", note, clipped=True)
        case _:
            finite = values[np.isfinite(values)]
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
            note = "the range of this image alone"
            return Scale(low, high if high > low else low + 1, "", note)
