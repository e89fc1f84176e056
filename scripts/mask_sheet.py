"""Puts what the stages of weak supervision made of images side by side on one sheet.

Columns are the image, its activation maps (--cam_dir), its pseudo-mask (--pseudo_dir), the cyclic
mask and how uncertain it is (--weight_dir), and the data set's own label (--labels), with
--label_damage and --random_seed also as these damage it:

``python -m scripts.mask_sheet sheet.png --dataset voc --year 2012_aug --data_root DIR --cam_dir DIR
--pseudo_dir DIR --weight_dir DIR --images 2007_000032 '2008_*'``
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datasets.base import SegDataset
from datasets.cams import CamReader
from datasets.items import Item, did_you_mean
from datasets.pseudo_labels import PseudoLabels
from datasets.response_weights import ResponseWeights
from datasets.taxonomy import names_of
from engine.map_making import images_of_maps
from engine.pictures import Array, class_legend, full_palette, overlay, png
from engine.training_data import damage_of
from options import parse
from utils.colour_maps import Scale, coloured
from utils.files import write_atomically
from utils.sheets import Colour, Row, Tile, contact_sheet
from utils.types import IGNORE_INDEX
from utils.weight_levels import LEVELS

ACTIVATION = Scale(0, 1, "", "of the class's greatest")
UNCERTAINTY = Scale(0, 1, "", "U; the pixel's weight is 1 - U")
VOID: Colour = (224, 224, 192)  # as in VOC's labels: black is their background
DIMMED = 0.4  # the brightness of an image behind a mask


class Column(NamedTuple):
    """What a sheet shows of every image.

    Attributes:
        caption: above it.
        values: (H, W) of an item: train ids, or with a scale numbers.
        scale: of the numbers.
    """

    caption: str
    values: Callable[[Item], NDArray[Any]]
    scale: Scale | None = None


def columns_of(opts: Namespace, flags: Namespace, dataset: SegDataset) -> Iterator[Column]:
    """The columns beside the image, in the order of the stages.

    Args:
        opts: what to show.
        flags: of main.py.
        dataset: the images.

    Raises:
        ValueError: if a folder holds no such maps or those of other images, or there is no such
            class.
    """
    if opts.cam_dir:
        cams = CamReader(opts.cam_dir)
        refuse_others(cams, dataset)
        for name in opts.cam_classes or [None]:
            yield activation_column(cams, dataset, name)
    if opts.pseudo_dir:
        labels = PseudoLabels(opts.pseudo_dir)
        refuse_others(labels, dataset)
        yield Column("pseudo-mask", lambda item: labels(item).numpy())
    if opts.weight_dir:
        weights = ResponseWeights(opts.weight_dir, threshold=0)
        refuse_others(weights, dataset)
        yield Column("cyclic mask", lambda item: weights.label(item).numpy())
        yield Column("uncertainty", lambda item: 1 - weights.levels(item) / LEVELS, UNCERTAINTY)
    if opts.labels:
        own = images_of_maps(flags, labelled=True, damage=damage_of(flags))
        places = {item.id: index for index, item in enumerate(own.items)}
        if own.damage is not None:
            yield Column("damaged label", lambda item: own[places[item.id]]["label"].numpy())
        yield Column("label", lambda item: own.read(places[item.id])[1].numpy())


def refuse_others(reader: CamReader | PseudoLabels | ResponseWeights, dataset: SegDataset) -> None:
    """Refuse maps of other images or classes; each file is checked when it is shown.

    Maps without a manifest are taken for those of the data set.

    Raises:
        ValueError: saying what differs.
    """
    if reader.manifest is None:
        reader.classes = dataset.classes
        return
    reader.refuse_other_origin(dataset)
    assert reader.classes is not None, "a manifest names them"
    if names_of(reader.classes) != dataset.class_names:
        raise reader.of_other_origin("are of other classes than the data set", dataset)


def activation_column(cams: CamReader, dataset: SegDataset, name: str | None) -> Column:
    """The maps of a class, 0 where an image is not tagged with it; None: the maximum over all.

    Raises:
        ValueError: if there is no such class.
    """
    if name is not None and name not in dataset.class_names:
        raise ValueError(
            f"--cam_classes: no class is {name}{did_you_mean(name, dataset.class_names)}"
        )

    def values(item: Item) -> NDArray[np.float32]:
        """The map (H, W) of an item, in [0, 1]."""
        classes, maps = cams(item)
        shown = [name in (None, dataset.class_names[index]) for index in classes.tolist()]
        greatest: NDArray[np.float32] = maps.numpy()[shown].max(axis=0, initial=0)
        return greatest

    return Column("activation" if name is None else f"activation: {name}", values, ACTIVATION)


def find_images(dataset: SegDataset, patterns: Sequence[str]) -> list[int]:
    """The first image that each pattern matches.

    Raises:
        ValueError: if a pattern matches none.
    """
    found = []
    for pattern in patterns:
        matches = (i for i, item in enumerate(dataset.items) if fnmatchcase(item.id, pattern))
        index = next(matches, None)
        if index is None:
            raise ValueError(
                f"--images {pattern} matches no image of split {dataset.split} of {dataset.name},"
                f" the first of which is {dataset.items[0].id}"
            )
        found.append(index)
    return found


def images_shown(opts: Namespace, flags: Namespace) -> SegDataset:
    """The images; if nothing but pseudo labels is shown of them, in the classes of those.

    They may be of a network that knows other classes, as after an adaptation.
    """
    alone = opts.pseudo_dir and not (opts.cam_dir or opts.weight_dir or opts.labels)
    classes = PseudoLabels(opts.pseudo_dir).classes if alone else None
    return images_of_maps(flags, classes=classes)


def draw(opts: Namespace, flags: Namespace) -> Array:
    """The sheet, RGB (H, W, 3).

    Raises:
        ValueError: if images or maps are missing, damaged or do not belong together.
    """
    dataset = images_shown(opts, flags)
    columns = list(columns_of(opts, flags, dataset))
    palette = full_palette(dataset.palette)
    palette[IGNORE_INDEX] = VOID
    rows, seen = [], np.zeros(256, bool)
    for index in find_images(dataset, opts.images):
        item = dataset.items[index]
        picture = dataset.read(index)[0].permute(1, 2, 0).numpy()
        tiles = [Tile("image", picture)]
        for column in columns:
            values = column.values(item)
            if column.scale is None:
                seen[values] = True
                tinted = overlay((DIMMED * picture).astype(np.uint8), values, palette)
                tiles.append(Tile(column.caption, tinted))
            else:
                tiles.append(Tile(column.caption, coloured(values, column.scale), column.scale))
        rows.append(Row(tiles, item.id))
    seen &= (palette != 0).any(axis=1)  # where a colour is black, masks show the image
    shown = np.flatnonzero(seen).astype(np.uint8)
    legend = class_legend(shown, dataset.class_names, palette)
    legend |= {"void": VOID} if seen[IGNORE_INDEX] else {}
    return contact_sheet(rows, legend=legend, tile_width=opts.tile_width)


def main() -> int:
    """Parse the flags, write the sheet."""
    parser = ArgumentParser(
        "scripts.mask_sheet",
        usage="%(prog)s SHEET [flags] [flags of main.py, such as --dataset NAME --data_root DIR]",
        description=__doc__,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("sheet", metavar="SHEET", type=Path, help="the PNG to write")
    add("--images", nargs="+", default=["*"], help="ids or patterns of them; the first of each")
    add("--cam_dir", type=Path, metavar="DIR", help="class activation maps")
    add("--cam_classes", nargs="+", metavar="NAME", help="a map of each instead of their maximum")
    add("--pseudo_dir", type=Path, metavar="DIR", help="pseudo-masks, or other pseudo labels")
    add("--weight_dir", type=Path, metavar="DIR", help="response weights")
    add("--labels", action="store_true", help="also the labels of the data set")
    add("--tile_width", type=int, default=320, help="pixels of a picture's width")
    opts, others = parser.parse_known_args()
    if opts.cam_classes and not opts.cam_dir:
        parser.error("--cam_classes chooses among activation maps: add --cam_dir DIR")
    flags = parse(others)  # which images training sees
    try:
        write_atomically(opts.sheet, png(draw(opts, flags)))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
