"""Uncertainty masks of the training split: what their files hold, and their making."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.base import SegDataset
from datasets.mask_files import ENDING, LEVELS, encode_mask
from datasets.transforms import eval_transform
from datasets.uncertainty_masks import MASKS
from engine import build
from engine.map_making import MapWriter, describe_maps, make_maps, refuse_not_finite
from engine.trained import Trained
from engine.training_data import mask_directory
from uncertainty import SCORES
from utils.types import Batch, Prediction


class MaskWriter(MapWriter):
    """Writes the instance uncertainty of every image as ``ID.png`` (see ``datasets.mask_files``).

    Args:
        directory: made where it is missing.
        scale: the greatest uncertainty, log C.
        wanted: ids of the images whose masks are written; the others are passed over.
    """

    score = SCORES["instance"]
    variant = score.variant
    needs = score.needs

    def __init__(self, directory: Path | str, scale: float, wanted: Set[str]) -> None:
        super().__init__(directory, wanted)
        self.scale = scale

    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, NDArray[Any]]:
        """The instance uncertainty.

        Raises:
            ValueError: if it is not finite, naming the image.
        """
        masks = self.score.function(prediction).cpu().numpy()
        refuse_not_finite(batch["id"], np.isfinite(masks).all((1, 2)), "uncertainty")
        return {"mask": masks}

    def files_of(self, arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
        """One PNG file."""
        yield ENDING, encode_mask(arrays["mask"], self.scale)


def run_mask_making(opts: Namespace) -> int:
    """Write the uncertainty mask of every image of the training split that has none yet."""
    size = opts.crop_size if opts.train_transform == "resize" else None
    dataset = build.data_set(opts, opts.train_split, eval_transform(size))
    directory = mask_directory(opts)

    def describe(trained: Trained) -> dict[str, Any]:
        """The manifest."""
        return describe_masks(opts, dataset, trained)

    def make_writer(manifest: dict[str, Any], wanted: Set[str]) -> MaskWriter:
        """The writer of the masks that are missing."""
        return MaskWriter(directory, manifest["scale"], wanted)

    return make_maps(opts, MASKS, dataset, directory, describe=describe, make_writer=make_writer)


def describe_masks(opts: Namespace, dataset: SegDataset, trained: Trained) -> dict[str, Any]:
    """The manifest of masks that are about to be made.

    Args:
        opts: the flags.
        dataset: what they are made of, at their size.
        trained: the network.
    """
    return describe_maps(
        MASKS,
        opts,
        dataset,
        trained,
        unit=f"nats, the grey value times scale / {LEVELS}",
        scale=math.log(len(trained.class_names)),
    )
