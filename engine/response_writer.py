"""The writer of response weights: a label, a weight and, if asked, an uncertainty an image."""

from __future__ import annotations

from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import SegDataset
from datasets.label_files import LABEL_ENDING, encode_label
from datasets.map_folders import map_path
from datasets.parallel import threaded
from datasets.transforms import denormalize
from datasets.weight_files import (
    UNCERTAINTY_ENDING,
    WEIGHT_ENDING,
    decode_weight,
    encode_uncertainty,
    encode_weight,
)
from engine.map_making import MapWriter, refuse_not_finite
from uncertainty.response_scaling import ResponseScaling
from utils.types import Batch, Prediction
from utils.weight_levels import LEVELS, weight_levels


class ResponseWriter(MapWriter):
    """Writes label, weight and, if asked, uncertainty of every image (see ``weight_files``).

    Images are decoded one by one on threads beside the pass, each thread's kernels on one core, so
    that no file depends on how many there are or on which images share a batch. Up to 2 ``workers``
    images are held, 4 C + 3 bytes a pixel on the device of the network, besides those of the batch
    that the pass is at.

    Args:
        directory: made where it is missing.
        wanted: ids of the images whose files are written; the others are passed over.
        num_classes: of the network.
        scaling: from probabilities to label and uncertainty.
        restrict: only the classes of the batch's ``image_labels`` may appear.
        save_uncertainty: also write it.
        workers: how many threads.
    """

    def __init__(
        self,
        directory: Path | str,
        wanted: Set[str],
        *,
        num_classes: int,
        scaling: ResponseScaling,
        restrict: bool = False,
        save_uncertainty: bool = False,
        workers: int = 1,
    ) -> None:
        super().__init__(directory, wanted)
        self.num_classes = num_classes
        self.scaling = scaling
        self.restrict = restrict
        self.save_uncertainty = save_uncertainty
        self.threads = workers

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Threads whose kernels run on one core each."""
        # How a sum is shared out among cores can change its last bit.
        return ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,))

    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, Any]:
        """Ids, probabilities, images as stored and, if classes are restricted, tags.

        Tensors stay on their device, where the decoder reads them. The probabilities (C, H, W) and
        the image (3, H, W) uint8 of each image have memory of their own, so that an image which
        waits does not hold those of its batch that are done; the tags (N, C) are of the batch.
        """
        arrays = {
            "id": batch["id"],
            "probabilities": [one[None].float().softmax(1)[0] for one in prediction.logits],
            "image": [denormalize(one) for one in batch["image"]],
        }
        return {**arrays, "tags": batch["image_labels"]} if self.restrict else arrays

    def files_of(self, arrays: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        """Two or three PNG files, the label last: it is not looked for without the others.

        Raises:
            ValueError: if the prediction is not finite or the tags name no class, naming the image.
        """
        name, probabilities = arrays["id"], arrays["probabilities"]
        refuse_not_finite([name], [bool(probabilities.isfinite().all())], "label")
        try:
            response = self.scaling(probabilities, arrays["image"], arrays.get("tags"))
        except ValueError as error:
            raise ValueError(f"the response of {name} cannot be scaled: {error}") from error
        if self.save_uncertainty:
            yield UNCERTAINTY_ENDING, encode_uncertainty(on_host(response.uncertainty))
        yield WEIGHT_ENDING, encode_weight(on_host(weight_levels(response.uncertainty)))
        yield LABEL_ENDING, encode_label(on_host(response.label), self.num_classes)


def on_host(values: Tensor) -> NDArray[Any]:
    """A tensor of any device as an array."""
    return values.cpu().numpy()


def count_levels(directory: Path, dataset: SegDataset) -> dict[str, int]:
    """How many pixels all weights of a folder give to each stored level that occurs, 0 to 255."""

    def count(index: int) -> NDArray[np.int64]:
        """Pixels of an item by level, (256,)."""
        path = map_path(directory, dataset.items[index], WEIGHT_ENDING)
        return np.bincount(decode_weight(path.read_bytes()).ravel(), minlength=LEVELS + 1)

    total = sum(threaded(count, len(dataset), "Counting"), np.zeros(LEVELS + 1, np.int64))
    return {str(level): int(total[level]) for level in total.nonzero()[0]}
