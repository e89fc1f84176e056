"""Image-level labels of the images that a command reads."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from datasets.base import SegDataset
from datasets.tags import MASKS, ImageTags
from engine.build import data_set

TAG_STATISTICS = Path("runs") / "class_statistics"  # where tags found in masks are kept


def give_tags(opts: Namespace, dataset: SegDataset) -> None:
    """Have the samples of a data set carry the image labels that ``--image_tags`` names.

    Args:
        opts: the flags.
        dataset: a split of ``--dataset``; it need not read label files itself.

    Raises:
        ValueError: if an image has no tags, or tags make no sense.
    """
    dataset.tags = image_tags(opts, dataset.split, dataset.transform)


def image_tags(opts: Namespace, split: str, transform: Any) -> ImageTags:
    """The image labels of a split.

    Args:
        opts: the flags.
        split: of ``--dataset``.
        transform: of the images, which says how large generated ones are drawn.

    Raises:
        ValueError: as ``give_tags`` does.
    """
    labelled = data_set(opts, split, transform, labelled=opts.image_tags == MASKS)
    return ImageTags(opts.image_tags, labelled, opts.output_dir / TAG_STATISTICS)
