"""Lists of image ids, one a line."""

from __future__ import annotations

from pathlib import Path


def read_id_list(path: Path) -> list[str]:
    """The ids in a list; empty lines are skipped.

    A line is an id, or the paths of the image and the label of one id, as some published lists
    have it.

    Raises:
        ValueError: if a line has two columns that are not of one id, naming it.
    """
    ids = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        names = list(dict.fromkeys(Path(column).stem for column in line.split()))
        if len(names) > 1:
            raise ValueError(
                f"{path}, line {number}: two columns ({line.strip()!r}) where one is expected: an"
                " id a line, such as 2007_000032, or the paths of its image and label"
            )
        ids += names
    return ids
