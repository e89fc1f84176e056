"""Maps of uncertainty that tests left beside their results, as pictures of a report."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from utils.log import logger
from utils.report.content import GroupSummary

PANELS = "*_uncertainty*.png"  # image, target, prediction and scores, as --scores writes them
MOST_GROUPS, MOST_IMAGES = 6, 2  # of a report, of a group: a page has to stay quick
WIDTH = 1200  # pixels
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
    shown = 0
    for summary in summaries:
        result = summary.group.results[0]
        if result.subset or result.facts.part or shown == MOST_GROUPS:
            continue
        folder = result.path.with_suffix("")
        panels = sorted(folder.rglob(PANELS))[:MOST_IMAGES] if folder.is_dir() else []
        for path in panels:
            jpeg = small_jpeg(path)
            if jpeg is not None:
                name = path.relative_to(folder).as_posix().split("_uncertainty")[0]
                yield MapPicture(summary.group.label, name, jpeg)
        shown += bool(panels)


def small_jpeg(path: Path) -> bytes | None:
    """A picture at most ``WIDTH`` pixels wide as JPEG, None for a damaged file."""
    try:
        with Image.open(path) as picture:
            picture.thumbnail((WIDTH, WIDTH))
            buffer = io.BytesIO()
            picture.convert("RGB").save(buffer, "JPEG", quality=QUALITY)
    except (UnidentifiedImageError, OSError) as error:
        logger.warning("%s is no picture (%s): left out of the report", path, error)
        return None
    return buffer.getvalue()
