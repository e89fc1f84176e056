"""Puts pictures that ``--save_val_results`` wrote onto one sheet, with the classes' colours.

``python -m scripts.contact_sheet results/NAME sheet.png --dataset streets --images '*_night'``
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from datasets import DATASETS
from utils.report import contact_sheet

COLUMNS = ("image", "target", "prediction", "overlay")


def find_ids(folder: Path, patterns: list[str]) -> list[str]:
    """The first image that each pattern matches.

    Raises:
        ValueError: if a pattern matches none.
    """
    ending = f"_{COLUMNS[0]}.png"
    ids = []
    for pattern in patterns:
        found = sorted(folder.rglob(f"{pattern}{ending}"))
        if not found:
            raise ValueError(f"{folder} has no {pattern}{ending}; --save_val_results writes them")
        ids.append(found[0].relative_to(folder).as_posix().removesuffix(ending))
    return ids


def read(path: Path) -> NDArray[np.uint8]:
    """A picture as RGB (H, W, 3)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def main() -> int:
    """Parse the flags, write the sheet."""
    parser = ArgumentParser("scripts.contact_sheet", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path, help="results/NAME, as --save_val_results writes it")
    parser.add_argument("sheet", type=Path, help="the PNG to write")
    parser.add_argument("--images", nargs="+", default=["*"], help="patterns; the first of each")
    parser.add_argument("--dataset", choices=DATASETS, help="whose class colours to explain")
    parser.add_argument("--tile_width", type=int, default=320, help="pixels of a picture's width")
    opts = parser.parse_args()
    try:
        ids = find_ids(opts.folder, opts.images)
        contact_sheet(
            [[read(opts.folder / f"{name}_{kind}.png") for kind in COLUMNS] for name in ids],
            opts.sheet,
            column_captions=COLUMNS,
            row_captions=ids,
            legend=dict(DATASETS[opts.dataset].classes) if opts.dataset else None,
            tile_width=opts.tile_width,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
