"""Lists of image ids, one a line."""

from __future__ import annotations

from pathlib import Path

from datasets.files import IMAGE_SUFFIXES


def id_of(column: str) -> str:
    """The id in a column: an id, or the path of its image or label."""
    path = Path(column)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def read_id_list(path: Path) -> list[str]:
    """The ids in a list; empty lines are skipped.

    A line is an id, or the paths of the image and the label of one id, as some published lists
    have it.

    Raises:
        ValueError: if a line has two columns that are not of one id, naming it.
    """
    ids = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        names = list(dict.fromkeys(map(id_of, line.split())))
        if len(names) > 1:
            raise ValueError(
                f"{path}, line {number}: two columns ({line.strip()!r}) where one is expected: an"
                " id a line, such as 2007_000032, or the paths of its image and label"
            )
        ids += names
    return ids
