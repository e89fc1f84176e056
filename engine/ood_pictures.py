"""Pictures of unknown objects beside what each score takes for unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engine.consumers import ImageWriter
from engine.pictures import Array, pictures, png
from engine.score_maps import LARGEST_TILE, SMALLEST_TILE
from metrics.ood import unknown_map
from utils.distributed import all_gather_object, is_main
from utils.files import write_atomically
from utils.kept import score_map
from utils.sheets import Colour, Row, Tile, contact_sheet
from utils.types import IGNORE_INDEX, Batch, ForwardVariant, Prediction, Score
from utils.variants import by_variant

TINT = np.array([51, -51, -51], np.int16)  # 0.2 of 255 more red, as much less green and blue
RED: Colour = (255, 48, 32)
DIMMED = 0.55  # the brightness of an image behind a score
BORDER = 40  # pixels around the objects that a picture is cut out with
ASPECT = 16 / 9  # of such a picture
MOST_IN_A_ROW = 4  # tiles, where one row cannot hold them all
MOST_IMAGES = 8  # of the matrix
MATRIX_TILE = 240  # pixels
LEGEND: dict[str, Colour] = {
    "unknown object (tinted)": (200, 110, 105),
    "above the threshold that finds 95 % of the unknown pixels": RED,
    "void": (0, 0, 0),
}


class OODMatrix:
    """One sheet of images by scores, ``ood_matrix.png``, which the writers of a pass fill together.

    Of the images that they picture at most ``MOST_IMAGES`` are kept, small and evenly spread: every
    first, second, fourth ... one. Each process keeps its own; the sheet shows some of all.

    Args:
        directory: of the sheet.
        scores: the columns, names in order.
        writers: how many will call ``finish``.
    """

    def __init__(self, directory: Path | str, scores: Sequence[str], writers: int = 1) -> None:
        self.path = Path(directory) / "ood_matrix.png"
        self.columns = ("image", *scores)
        self.unfinished = writers
        self.every = 1
        self.rows: dict[int, tuple[str, dict[str, Tile]]] = {}  # by place among those pictured
        self.lock = Lock()

    def add(self, place: int, name: str, tiles: Mapping[str, Tile]) -> None:
        """Keep tiles of an image by their column, if it is among the images to be kept.

        Args:
            place: of the image among those pictured, from 0.
            name: its id.
            tiles: pictures of any size.
        """
        with self.lock:
            if place % self.every:
                return
            _, known = self.rows.setdefault(place, (name, {}))
            known |= {
                column: tile._replace(picture=_small(tile.picture))
                for column, tile in tiles.items()
            }
            while len(self.rows) > MOST_IMAGES:
                self.every *= 2
                kept = [each for each in self.rows if each % self.every == 0]
                self.rows = {each: self.rows[each] for each in kept}

    def finish(self) -> None:
        """Write the sheet when the last writer is done, unless nothing was pictured.

        Raises:
            WriteError: if it cannot be written.
        """
        self.unfinished -= 1
        if self.unfinished:
            return
        gathered = all_gather_object(self.rows)
        rows = sorted((row for part in gathered for row in part.values()), key=lambda row: row[0])
        if not rows or not is_main():
            return
        places = np.linspace(0, len(rows) - 1, min(MOST_IMAGES, len(rows))).round().astype(int)
        shown = [
            Row([tiles[column] for column in self.columns], name)
            for name, tiles in (rows[place] for place in places)
        ]
        sheet = contact_sheet(shown, legend=LEGEND, tile_width=MATRIX_TILE)
        write_atomically(self.path, png(sheet))


class OODPictures(ImageWriter):
    """Every image with its unknown objects beside what the scores take for unknown.

    ``ID_ood.png`` shows the image with unknown pixels tinted (0.2 of the range more red, 0.2 less
    green and blue) and void ones striped, then a tile for each score: red by how far the score is
    above its threshold, from the least to the greatest of what is shown, over the dimmed grey
    image, void black. With a forward variant the name ends with ``_VARIANT``. Images with few
    unknown pixels are left out. ``OODMatrix`` puts some of them on one sheet.

    Args:
        directory: made where it is missing.
        scores: of one forward variant, see ``ood_writers``.
        thresholds: by the name of the score, where 95 % of the unknown pixels of the whole set are
            found.
        smallest: the least number of unknown pixels.
        crop: show only the part around the unknown objects, see ``part_around``.
        matrix: the sheet of all writers of the pass; None for one of this writer alone.
    """

    def __init__(
        self,
        directory: Path | str,
        scores: Sequence[Score],
        thresholds: Mapping[str, float],
        *,
        smallest: int = 50,
        crop: bool = False,
        matrix: OODMatrix | None = None,
    ) -> None:
        super().__init__(directory)
        assert len({score.variant for score in scores}) == 1, "one writer for each variant"
        assert {score.name for score in scores} <= thresholds.keys(), "every score has a threshold"
        self.scores = tuple(scores)
        self.needs = frozenset[str]().union(*(score.needs for score in scores))
        self.variant: ForwardVariant | None = scores[0].variant
        self.thresholds = thresholds
        self.smallest = smallest
        self.crop = crop
        self.matrix = matrix or OODMatrix(directory, [score.name for score in scores])
        self.pictured = 0

    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, NDArray[Any]]:
        """Ids, and where an image of the batch is pictured its picture, unknown map and scores.

        Raises:
            ValueError: if the data has no map of unknown objects, naming the data set.
        """
        ood = unknown_map(batch, "ood").cpu().numpy()
        chosen = (ood == 1).sum(axis=(1, 2)) >= max(self.smallest, 1)
        places = np.where(chosen, self.pictured + np.cumsum(chosen) - 1, -1)
        self.pictured += int(chosen.sum())
        arrays: dict[str, NDArray[Any]] = {"place": places}
        if chosen.any():
            arrays |= {
                "id": np.array(batch["id"]),
                "ood": ood,
                "image": pictures(batch, prediction),
            }
            for score in self.scores:
                arrays[f"score {score.name}"] = score_map(score, prediction).cpu().numpy()
        return arrays

    def files_of(self, arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
        """The file of one image, none where it is not pictured."""
        if arrays["place"] < 0:
            return
        ood = arrays["ood"]
        rows, columns = part_around(ood == 1) if self.crop else (slice(None), slice(None))
        ood, image = ood[rows, columns], arrays["image"][rows, columns]
        tiles = {"image": Tile("image", tinted(image, ood))}
        for score in self.scores:
            threshold = self.thresholds[score.name]
            values = arrays[f"score {score.name}"][rows, columns]
            caption = f"{score.name} > {threshold:.4g}"
            tiles[score.name] = Tile(caption, taken_for_unknown(image, values, threshold, ood))
        self.matrix.add(int(arrays["place"]), str(arrays["id"]), tiles)
        sheet = contact_sheet(
            _in_rows(list(tiles.values())),
            legend=LEGEND,
            tile_width=min(max(image.shape[1], SMALLEST_TILE), LARGEST_TILE),
        )
        yield f"_ood{f'_{self.variant.name}' if self.variant else ''}.png", png(sheet)

    def compute(self) -> dict[str, Any]:
        """No numbers; the matrix is written when the last writer of the pass is done.

        Raises:
            WriteError: if it cannot be written.
        """
        self.matrix.finish()
        return {}


def ood_writers(
    directory: Path | str,
    scores: Sequence[Score],
    thresholds: Mapping[str, float],
    *,
    smallest: int = 50,
    crop: bool = False,
) -> list[OODPictures]:
    """The writers of some scores, one for each forward variant, with one matrix of them all."""
    groups = by_variant(scores)
    matrix = OODMatrix(directory, [score.name for score in scores], len(groups))
    return [
        OODPictures(directory, group, thresholds, smallest=smallest, crop=crop, matrix=matrix)
        for group in groups
    ]


def tinted(image: Array, ood: Array) -> Array:
    """An image (H, W, 3) with unknown pixels tinted red and void ones under black stripes.

    Args:
        image: RGB.
        ood: (H, W), 1 where unknown, 255 where void.
    """
    shown = image.astype(np.int16)
    shown[ood == 1] += TINT
    height, width = ood.shape
    step = max(6, round(min(ood.shape) / 40))
    stripes = (np.add.outer(np.arange(height), np.arange(width)) % step) < step / 3
    shown[(ood == IGNORE_INDEX) & stripes] = 0
    return shown.clip(0, 255).astype(np.uint8)


def taken_for_unknown(
    image: Array, values: NDArray[np.floating], threshold: float, ood: Array
) -> Array:
    """Red by max(score - threshold, 0), scaled to its least and greatest, over the grey image.

    What is not a number is as red as can be: nothing is certain there.

    Args:
        image: RGB (H, W, 3), dimmed behind the red.
        values: the score (H, W).
        threshold: in its unit.
        ood: (H, W), 255 where void, which is black and does not count for the scale.
    """
    void = ood == IGNORE_INDEX
    excess = np.nan_to_num(np.maximum(values.astype(np.float64) - threshold, 0), nan=np.inf)
    excess[void] = 0
    counted = excess[~void & np.isfinite(excess)]
    low, high = (counted.min(), counted.max()) if counted.size else (0.0, 0.0)
    if high == low:  # nothing to scale by
        low, high = 0.0, high or 1.0
    share = np.clip((excess - low) / (high - low), 0, 1)[..., None]
    grey = DIMMED * cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)[..., None]
    shown = np.rint(grey * (1 - share) + np.array(RED) * share).astype(np.uint8)
    shown[void] = 0
    return shown


def part_around(unknown: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns that hold all unknown pixels with a border, about 16:9, in the image.

    The shorter side is widened about its middle; at the edge of the image the part is moved, and
    cut only where the image is too small.

    Args:
        unknown: (H, W), True somewhere.
    """
    found = [np.flatnonzero(unknown.any(axis=axis)) for axis in (1, 0)]
    starts = [int(where[0]) - BORDER for where in found]
    ends = [int(where[-1]) + 1 + BORDER for where in found]
    height, width = (end - start for start, end in zip(starts, ends, strict=True))
    wanted = (max(height, round(width / ASPECT)), max(width, round(height * ASPECT)))
    parts = []
    for start, end, needed, whole in zip(starts, ends, wanted, unknown.shape, strict=True):
        length = min(needed, whole)
        first = min(max((start + end - length) // 2, 0), whole - length)
        parts.append(slice(first, first + length))
    return parts[0], parts[1]


def _in_rows(tiles: Sequence[Tile]) -> list[Row]:
    """Rows of about the same number of tiles."""
    rows = -(-len(tiles) // MOST_IN_A_ROW)
    columns = -(-len(tiles) // rows)
    return [Row(tiles[start : start + columns]) for start in range(0, len(tiles), columns)]


def _small(picture: Array) -> Array:
    """A picture no wider than a tile of the matrix."""
    height, width = picture.shape[:2]
    if width <= MATRIX_TILE:
        return picture
    size = (MATRIX_TILE, max(1, round(height * MATRIX_TILE / width)))
    small: Array = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return small
