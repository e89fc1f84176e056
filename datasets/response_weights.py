"""Response weights on disk: cyclic pseudo masks with how much each of their pixels counts."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import SegDataset
from datasets.files import listing
from datasets.items import Item, by
from datasets.label_files import (
    LABEL_ENDING,
    first_bad_value,
    inspect_label_file,
    read_label,
    read_other_label,
)
from datasets.map_folders import (
    MANIFEST,
    MapFile,
    MapKind,
    MapReader,
    classes_of,
    map_path,
    words_of_data,
)
from datasets.png_files import Size
from datasets.pseudo_labels import label_size
from datasets.taxonomy import SegClass
from datasets.weight_files import (
    UNCERTAINTY_ENDING,
    WEIGHT_ENDING,
    LabelAndLevels,
    decode_published,
    decode_weight,
    has_channels,
    inspect_uncertainty,
    inspect_weight,
    is_response_file,
)
from utils.log import logger
from utils.types import IGNORE_INDEX
from utils.weight_levels import LEVELS, Weighting, pixel_weights

LabelSource = Literal["cyclic", "original"]


def weight_size(path: Path) -> Size:
    """(H, W) of a weight file, after a check of every byte.

    Raises:
        DamagedMapError: if it is damaged.
    """
    return inspect_weight(path.read_bytes())


def uncertainty_size(path: Path) -> Size:
    """(H, W) of an uncertainty's file, after a check of every byte.

    Raises:
        DamagedMapError: if it is damaged.
    """
    return inspect_uncertainty(path.read_bytes())


def weights_kind(*, uncertainty: bool) -> MapKind:
    """The kind of map that response weights are, with a file of the uncertainty or without."""
    more = (MapFile(UNCERTAINTY_ENDING, uncertainty_size, is_response_file),) * uncertainty
    return MapKind(
        content="response weights",
        files=(
            MapFile(LABEL_ENDING, label_size, is_response_file),
            MapFile(WEIGHT_ENDING, weight_size, is_response_file),
            *more,
        ),
        folder_flag="weight_dir",
        action_flag="make_response_weights",
        native=True,
        identity=("scales", "decoder", "reduce", "normalize", "tags"),
        superseded="*.png",
    )


RESPONSE_WEIGHTS = weights_kind(uncertainty=False)


class ResponseWeights(MapReader):
    """Reads response weights: call it with an item for (H, W) float32, the factor of each pixel.

    They have the images' own sizes. Folders of this program have a manifest. Without one, an item
    has either an image ``ID.png`` of three channels, two of which are equal and are the weight (the
    published form), or a grey or palette label ``ID.png`` beside a grey ``ID_weight.png``.

    Args:
        directory: where they are.
        threshold: weight of the pixels whose stored weight is not above it, in [0, 1].
        weighting: see ``pixel_weights``.
        label_source: "cyclic" reads the labels, too; "original" leaves them alone.
        classes: of the labels where no manifest names them.

    Attributes:
        classes: what the train ids of the labels stand for.

    Raises:
        ValueError: if the folder holds no weights, its manifest is damaged or of something else, or
            the threshold is outside [0, 1].
    """

    kind = RESPONSE_WEIGHTS

    def __init__(
        self,
        directory: Path | str,
        *,
        threshold: float,
        weighting: Weighting = "threshold",
        label_source: LabelSource = "cyclic",
        classes: tuple[SegClass, ...] = (),
    ) -> None:
        super().__init__(directory)
        levels = torch.arange(LEVELS + 1, dtype=torch.uint8)
        self._factors = pixel_weights(levels, threshold, weighting).numpy()  # (256,), by level
        self.reads_labels = label_source == "cyclic"
        self.classes = classes
        if self.manifest is not None:
            self.classes = classes_of(self.manifest, self.directory / MANIFEST, self.kind)
        elif next(self.directory.glob("**/*.png"), None) is None:
            raise ValueError(
                f"training needs response weights: {listing(self.directory)}. Name their folder"
                f" (with a {MANIFEST}, or published images of three channels) with --weight_dir, or"
                " make them with\n  python main.py --ckpt CHECKPOINT --weight_dir"
                f" {shlex.quote(str(self.directory))} --make_response_weights"
            )

    def __call__(self, item: Item) -> Tensor:
        """The factor of each pixel of an item.

        Raises:
            ValueError: if a file is missing or damaged, naming it.
        """
        return torch.from_numpy(self._factors[self.levels(item)])

    def label(self, item: Item) -> Tensor:
        """The label (H, W) uint8 of an item, train ids, void 255.

        Raises:
            ValueError: if the file is missing or damaged or holds a value that is no class, naming
                the file and the value.
        """
        path = self.label_path(item)
        if self.is_published(item):
            label = self.read(path, _read_published).label
        else:
            label = self.read(path, read_other_label if self.manifest is None else read_label)
        bad = first_bad_value(label, len(self.classes))
        if bad is not None:
            raise ValueError(
                f"{path} holds the value {bad}, which is none of the {len(self.classes)} classes"
                f" that training knows: a label holds 0 to {len(self.classes) - 1}, or"
                f" {IGNORE_INDEX} where it says nothing"
            )
        return torch.from_numpy(label)

    def levels(self, item: Item) -> NDArray[np.uint8]:
        """The stored weights (H, W) of an item, 255 for 1.

        Raises:
            ValueError: if the file is missing or damaged, naming it.
        """
        if self.is_published(item):
            return self.read(self.label_path(item), _read_published).levels
        return self.read(self.weight_path(item), _read_weight)

    def label_path(self, item: Item) -> Path:
        """The file of an item's label, in the published form of its weight, too."""
        return map_path(self.directory, item, LABEL_ENDING)

    def weight_path(self, item: Item) -> Path:
        """The file of an item's weight, unless it is in the published form."""
        return map_path(self.directory, item, WEIGHT_ENDING)

    def is_published(self, item: Item) -> bool:
        """Whether label and weight of an item are one image of several channels."""
        path = self.label_path(item)
        return self.manifest is None and path.is_file() and has_channels(path)

    def path(self, item: Item) -> Path:
        """The file that says whether an item is there at all."""
        alone = not self.reads_labels and not self.is_published(item)
        return self.weight_path(item) if alone else self.label_path(item)

    def inspect(self, item: Item) -> Size:
        """(H, W) of the weight of an item, and of its label where that is read.

        Raises:
            ValueError: as a call and ``label`` do, though files of this program need no decoding
                for it, and if the two differ in size.
        """
        if self.is_published(item):
            height, width = self.levels(item).shape
            size: Size = (height, width)
        else:
            size = self.read(self.weight_path(item), weight_size)
        if self.reads_labels and (label := self._label_size(item)) != size:
            raise ValueError(
                f"{self.weight_path(item)} has {by(size)} pixels, its label"
                f" {self.label_path(item)} has {by(label)}: {self.remedy()}"
            )
        return size

    def _label_size(self, item: Item) -> Size:
        """(H, W) of an item's label, whose values are classes."""
        if self.manifest is not None:
            size, classes = self.read(self.label_path(item), inspect_label_file)
            if classes == len(self.classes):
                return size
        height, width = self.label(item).shape
        return height, width

    def check(self, dataset: SegDataset) -> None:
        """Refuse weights that are missing, damaged or not of this data set and its size.

        Args:
            dataset: opened without label files.

        Raises:
            ValueError: saying what is wrong and which command makes the weights.
        """
        assert not dataset.reads_labels, "weights are made of the images alone"
        if self.manifest is not None:
            self.refuse_other_origin(dataset)
        self.refuse_missing(dataset)
        self.refuse_damaged(dataset)
        if self.manifest is None:
            logger.warning(
                "the response weights in %s have no %s: what they were made of is unknown",
                self.directory,
                MANIFEST,
            )

    def remedy(self) -> str:
        """How to complete the folder."""
        if self.manifest is not None:
            return super().remedy()
        return (
            f"give every image a label ID{LABEL_ENDING} and a weight ID{WEIGHT_ENDING} (8-bit grey,"
            f" {LEVELS} for a weight of 1), or both as an image of three channels, or make them in"
            " another --weight_dir (--make_response_weights)"
        )

    def making_command(self, dataset: SegDataset) -> str:
        """The command that makes a data set's weights, but for the checkpoint."""
        return making_command(dataset, self.directory)


def making_command(dataset: SegDataset, directory: Path) -> str:
    """The command that makes a data set's response weights, but for the checkpoint."""
    words = ["--make_response_weights", "--weight_dir", str(directory), "--ckpt", "CHECKPOINT"]
    return shlex.join(["python", "main.py", *words, *words_of_data(dataset)])


def _read_weight(path: Path) -> NDArray[np.uint8]:
    return decode_weight(path.read_bytes())


def _read_published(path: Path) -> LabelAndLevels:
    return decode_published(path.read_bytes())
