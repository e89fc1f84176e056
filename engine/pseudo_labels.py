"""Pseudo labels of images whose own labels are never read: what their files hold, their making."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.base import SegDataset
from datasets.label_files import (
    LABEL_ENDING,
    SCORE_ENDING,
    SCORE_LEVELS,
    decode_label,
    encode_label,
    encode_score,
)
from datasets.map_folders import map_path
from datasets.parallel import threaded
from datasets.pseudo_labels import LABELS
from engine.map_making import (
    MapWriter,
    describe_maps,
    images_of_maps,
    make_maps,
    refuse_not_finite,
)
from engine.trained import Trained
from utils.class_map import class_map
from utils.log import logger
from utils.types import IGNORE_INDEX, Batch, Prediction


class LabelWriter(MapWriter):
    """Writes the most probable class of each pixel as ``ID.png``, its probability as another.

    Both follow from ``softmax(logits)`` of the prediction, which is the mean over the passes and
    heads. ``ID_score.png`` holds the probability of every pixel, rejected or not, rounded down
    (see ``datasets.label_files``).

    Args:
        directory: made where it is missing.
        wanted: ids of the images whose labels are written; the others are passed over.
        num_classes: of the network.
        threshold: a pixel whose greatest probability is less becomes 255; 0 rejects none.
    """

    def __init__(
        self, directory: Path | str, wanted: Set[str], *, num_classes: int, threshold: float
    ) -> None:
        super().__init__(directory, wanted)
        self.num_classes = num_classes
        self.threshold = threshold

    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, NDArray[Any]]:
        """Train ids and the levels of their probability, (N, H, W) uint8.

        Raises:
            ValueError: if a prediction is not finite, naming the image.
        """
        logits = prediction.logits.float()
        # In float64 the product with 255 is exact, so that nothing is rounded up to a level.
        probability = logits.softmax(1).amax(1).double()
        finite = probability.isfinite().flatten(1).all(1).cpu().numpy()
        refuse_not_finite(batch["id"], finite, "label")
        labels = class_map(logits).masked_fill(probability < self.threshold, IGNORE_INDEX)
        levels = (probability * SCORE_LEVELS).floor().byte()
        return {"label": labels.cpu().numpy(), "score": levels.cpu().numpy()}

    def files_of(self, arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
        """Two PNG files: the score map, and then the label, which is not looked for without it."""
        yield SCORE_ENDING, encode_score(arrays["score"])
        yield LABEL_ENDING, encode_label(arrays["label"], self.num_classes)


def label_directory(opts: Namespace) -> Path:
    """Where pseudo labels are: ``--pseudo_dir``, or beside the images they belong to."""
    if opts.pseudo_dir is not None:
        return Path(opts.pseudo_dir)
    return Path(opts.data_root or opts.output_dir) / "pseudo_labels"


def run_pseudo_label_making(opts: Namespace) -> int:
    """Write the pseudo label of every image of the training split that has none yet.

    The split's own label files are neither listed nor read; they need not exist.

    Raises:
        ValueError: if the network has more than 255 classes, and as ``make_maps`` does.
    """
    dataset = images_of_maps(opts)
    directory = label_directory(opts)

    def describe(trained: Trained) -> dict[str, Any]:
        """The manifest."""
        return describe_labels(opts, dataset, trained)

    def make_writer(manifest: dict[str, Any], wanted: Set[str]) -> LabelWriter:
        """The writer of the labels that are missing."""
        return LabelWriter(
            directory,
            wanted,
            num_classes=manifest["num_classes"],
            threshold=manifest["threshold"],
        )

    def summarise(manifest: dict[str, Any]) -> dict[str, Any]:
        """What the manifest says of all labels."""
        return share_of_classes(directory, dataset, [one["name"] for one in manifest["classes"]])

    return make_maps(
        opts,
        LABELS,
        dataset,
        directory,
        describe=describe,
        make_writer=make_writer,
        summary=summarise,
    )


def describe_labels(opts: Namespace, dataset: SegDataset, trained: Trained) -> dict[str, Any]:
    """The manifest of labels that are about to be made.

    Args:
        opts: the flags.
        dataset: what they are made of.
        trained: the network, whose classes they have.

    Raises:
        ValueError: if it has so many classes that 255 would be one of them.
    """
    names = trained.class_names
    if len(names) > IGNORE_INDEX:
        raise ValueError(
            f"the network has {len(names)} classes; pseudo labels hold at most {IGNORE_INDEX}, as"
            f" {IGNORE_INDEX} stands for a rejected pixel"
        )
    colours = trained.palette.tolist()
    return describe_maps(
        LABELS,
        opts,
        dataset,
        trained,
        threshold=opts.pseudo_threshold,
        classes=[
            {"name": name, "colour": colour} for name, colour in zip(names, colours, strict=True)
        ],
        unit=f"train ids, {IGNORE_INDEX} rejected; scores: floor({SCORE_LEVELS} x probability)",
    )


def share_of_classes(
    directory: Path, dataset: SegDataset, class_names: list[str]
) -> dict[str, Any]:
    """How many pixels all labels of a folder give to each class, and how many were rejected.

    The files are counted, so that it is the same whoever wrote them and in how many goes. The log
    says it, too.

    Args:
        directory: with the label of every item.
        dataset: whose labels they are.
        class_names: in the order of the train ids.

    Returns:
        ``pixels``: their number by class; ``rejected``: share of all pixels, in [0, 1].
    """

    def count(index: int) -> NDArray[np.int64]:
        """Pixels of an item by value, (256,)."""
        path = map_path(directory, dataset.items[index], LABEL_ENDING)
        return np.bincount(decode_label(path.read_bytes()).ravel(), minlength=IGNORE_INDEX + 1)

    total = sum(threaded(count, len(dataset), "Counting"), np.zeros(IGNORE_INDEX + 1, np.int64))
    pixels = {name: int(total[index]) for index, name in enumerate(class_names)}
    rejected = float(total[IGNORE_INDEX] / total.sum())
    absent = ", ".join(name for name, number in pixels.items() if not number)
    logger.info(
        "%.1f %% of the pixels have no label%s",
        100 * rejected,
        f"; no pixel is {absent}" if absent else "",
    )
    return {"pixels": pixels, "rejected": rejected}
