"""Puts pictures that main.py wrote onto one sheet, with the classes' colours and colour bars.

Of ``--save_val_results``:
``python -m scripts.contact_sheet results/NAME sheet.png --dataset streets --images '*_night'``

Of ``--predict``:
``python -m scripts.contact_sheet predictions/NAME sheet.png --columns overlay entropy instance``
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import numpy as np
from PIL import Image

from datasets import DATASETS
from engine.pictures import png
from uncertainty import SCORES
from utils.colour_maps import read_scale
from utils.files import write_atomically
from utils.sheets import Row, Tile, contact_sheet

COLUMNS = ("image", "target", "prediction", "overlay")
KINDS = (*COLUMNS, "color", *SCORES)


def find_ids(folder: Path, patterns: list[str], columns: list[str]) -> list[str]:
    """The first image that each pattern matches.

    Raises:
        ValueError: if a pattern matches none, or a picture of a match is missing.
    """
    ids = []
    for pattern in patterns:
        ending = f"_{columns[0]}.png"
        found = sorted(folder.rglob(f"{pattern}{ending}"))
        if not found:
            raise ValueError(f"{folder} has no {pattern}{ending}; {advice(folder)}")
        name = found[0].relative_to(folder).as_posix().removesuffix(ending)
        for column in columns:
            if not (folder / f"{name}_{column}.png").is_file():
                raise ValueError(f"{folder} has no {name}_{column}.png; {advice(folder)}")
        ids.append(name)
    return ids


def advice(folder: Path) -> str:
    """What a folder has to offer as ``--columns``."""
    stems = [path.stem for path in folder.rglob("*.png")]
    offered = [kind for kind in KINDS if any(stem.endswith(f"_{kind}") for stem in stems)]
    if not offered:
        return "main.py writes pictures with --save_val_results and --predict"
    return f"--columns can be {', '.join(offered)}"


def tile(folder: Path, name: str, column: str) -> Tile:
    """A picture, with its scale if it is a map of a score."""
    path = folder / f"{name}_{column}.png"
    with Image.open(path) as picture:
        return Tile(column, np.asarray(picture.convert("RGB")), read_scale(path))


def main() -> int:
    """Parse the flags, write the sheet."""
    parser = ArgumentParser(
        "scripts.contact_sheet",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, help="results/NAME or predictions/NAME")
    parser.add_argument("sheet", type=Path, help="the PNG to write")
    parser.add_argument("--images", nargs="+", default=["*"], help="patterns; the first of each")
    parser.add_argument("--columns", nargs="+", default=COLUMNS, help="endings of the files' names")
    parser.add_argument("--dataset", choices=DATASETS, help="whose class colours to explain")
    parser.add_argument("--tile_width", type=int, default=320, help="pixels of a picture's width")
    opts = parser.parse_args()
    try:
        ids = find_ids(opts.folder, opts.images, opts.columns)
        sheet = contact_sheet(
            [Row([tile(opts.folder, name, kind) for kind in opts.columns], name) for name in ids],
            legend=dict(DATASETS[opts.dataset].classes) if opts.dataset else None,
            tile_width=opts.tile_width,
        )
        write_atomically(opts.sheet, png(sheet))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
