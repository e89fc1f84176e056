"""Maps that tests left beside their results, as pictures of a report."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from utils.log import logger
from utils.report.content import GroupSummary

PANELS = "*_uncertainty*.png"  # image, target, prediction and scores, as --scores writes them
MATRIX = "ood_matrix.png"  # images with unknown objects by scores
MOST_GROUPS, MOST_IMAGES = 6, 2  # of a report, of a group: a page has to stay quick
WIDTH, MATRIX_WIDTH = 1200, 2000  # pixels
QUALITY = 82  # of JPEG


class MapPicture(NamedTuple):
    """One panel of maps."""

    group: str
    image: str
    jpeg: bytes


def map_pictures(summaries: Sequence[GroupSummary]) -> Iterator[MapPicture]:
    """The first panels of the first result of each group that has any, made small.

    A file that is no picture is passed over with a line in the log.
    """
    for label, folder, panels in _files(summaries, PANELS):
        for path in panels[:MOST_IMAGES]:
            name = path.relative_to(folder).as_posix().split("_uncertainty")[0]
            jpeg = small_jpeg(path, WIDTH)
            if jpeg is not None:
                yield MapPicture(label, name, jpeg)


def matrix_pictures(summaries: Sequence[GroupSummary]) -> Iterator[MapPicture]:
    """Images with unknown objects by scores, of the first result of each group that has any.

    A file that is no picture is passed over with a line in the log.
    """
    for label, _, sheets in _files(summaries, MATRIX):
        jpeg = small_jpeg(sheets[0], MATRIX_WIDTH)
        if jpeg is not None:
            yield MapPicture(label, "images with unknown objects, by score", jpeg)


def _files(
    summaries: Sequence[GroupSummary], pattern: str
) -> Iterator[tuple[str, Path, list[Path]]]:
    """Of the first groups that have such files their label, their folder and the files."""
    shown = 0
    for summary in summaries:
        result = summary.group.results[0]
        folder = result.path.with_suffix("")
        if result.subset or result.facts.part or not folder.is_dir():
            continue
        found = sorted(folder.rglob(pattern))
        if found and shown < MOST_GROUPS:
            shown += 1
            yield summary.group.label, folder, found


def small_jpeg(path: Path, width: int) -> bytes | None:
    """A picture at most so many pixels wide as JPEG, None for a damaged file."""
    try:
        with Image.open(path) as picture:
            picture.thumbnail((width, width))
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "JPEG", quality=QUALITY)
    except (UnidentifiedImageError, OSError) as error:
        logger.warning("%s is no picture (%s): left out of the report", path, error)
        return None
    return buffer.getvalue()
