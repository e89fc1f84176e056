"""Writers of pictures and predictions: consumers of the evaluation pass."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.items import safe_name
from engine.pictures import Array, colours, full_palette, overlay, pictures, png, predicted_ids
from utils.files import write_atomically
from utils.types import IGNORE_INDEX, Batch, ForwardVariant, Prediction

THREADS = min(4, os.cpu_count() or 1)
PROBABILITY_ENDING = "_probabilities.npz"


class ImageWriter(ABC):
    """Writes some files for every image, encoding on a few threads beside the pass.

    A subclass takes what it needs out of a batch (``arrays_of``) and turns one image's part of it
    into files (``files_of``), on one of ``threads`` threads; besides those that are worked on, as
    many images again may wait. Files appear whole or not at all; what stood there is replaced. The
    slashes of an image's id become folders.
    """

    needs: frozenset[str] = frozenset()
    variant: ForwardVariant | None = None

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.written: set[Path] = set()  # the images, by the files' common beginning
        self.owners: dict[Path, str] = {}  # the image that each file belongs to
        self.threads = THREADS
        self.pending: deque[Future[None]] = deque()

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """What the files are made on, from the first image on."""
        return ThreadPoolExecutor(self.threads)

    @abstractmethod
    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, Any]:
        """What the files are made of: arrays, tensors or lists with the axis of the images first.

        Their items are kept until the files of the image are written, so that a view keeps the
        memory of the whole batch, and a tensor on a GPU memory there.
        """

    @abstractmethod
    def files_of(self, arrays: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        """Ending of the name and content of each file of one image, given its items."""

    def path(self, name: str, ending: str) -> Path:
        """Where the file of an image with this id and ending goes."""
        return self.directory / f"{safe_name(name)}{ending}"

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Write the files of one batch.

        Raises:
            ValueError: if two images have one name.
            WriteError: naming a file of this or an earlier batch that could not be written.
        """
        arrays = self.arrays_of(batch, prediction)
        for index, name in enumerate(batch["id"]):
            place = self.path(name, "")
            if place in self.written:
                raise ValueError(f"two images would be written as {place}; the second is {name}")
            self.written.add(place)
            image = {key: values[index] for key, values in arrays.items()}
            self.pending.append(self.pool.submit(self._write, name, image))
            while len(self.pending) > 2 * self.threads:
                self.pending.popleft().result()

    def _write(self, name: str, arrays: dict[str, Any]) -> None:
        for ending, content in self.files_of(arrays):
            path = self.path(name, ending)
            owner = self.owners.setdefault(path, name)  # atomic
            if owner != name:
                raise ValueError(f"two images would be written as {path}: {owner} and {name}")
            write_atomically(path, content)

    def all_reduce(self) -> None:
        """Wait for the last file; each process writes its own images.

        Raises:
            WriteError: naming a file that could not be written.
        """
        try:
            while self.pending:
                self.pending.popleft().result()
        finally:  # what another thread is writing becomes whole, or nothing, before an error rises
            self.cancel()

    def cancel(self) -> None:
        """Begin no image any more, and wait for the files that are being written."""
        self.pool.shutdown(cancel_futures=True)

    def compute(self) -> dict[str, Any]:
        """No numbers."""
        return {}


def has_target(arrays: dict[str, NDArray[Any]]) -> bool:
    """Whether an image's ``target`` (H, W) is there and names a class at some pixel."""
    return "target" in arrays and bool((arrays["target"] != IGNORE_INDEX).any())


class SaveResults(ImageWriter):
    """Image, target, prediction and overlay of every image, as ``--save_val_results`` asks.

    The files are ``ID_image.png``, ``ID_target.png`` (where a pixel has a class),
    ``ID_prediction.png`` (both in the classes' colours, void black) and ``ID_overlay.png``.

    Args:
        directory: made where it is missing.
        palette: (K, 3) uint8 RGB, the colour of each train id.
    """

    def __init__(self, directory: Path | str, palette: Tensor) -> None:
        super().__init__(directory)
        self.palette = full_palette(palette)

    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, NDArray[Any]]:
        """Picture, target (where there is one) and predicted train ids."""
        arrays = {"image": pictures(batch, prediction), "prediction": predicted_ids(prediction)}
        if "label" in batch:
            arrays["target"] = batch["label"].cpu().numpy()
        return arrays

    def files_of(self, arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
        """The PNG files of one image."""
        image, ids = arrays["image"], arrays["prediction"]
        yield "_image.png", png(image)
        if has_target(arrays):
            yield "_target.png", png(colours(arrays["target"], self.palette))
        yield "_prediction.png", png(colours(ids, self.palette))
        yield "_overlay.png", png(overlay(image, ids, self.palette))


class ServerWriter(ImageWriter):
    """Predictions as a data set's test server takes them, ``ID.png`` in a folder of their own.

    Args:
        directory: made where it is missing.
        server_ids: train ids (H, W) uint8 to the ids that the server expects.
    """

    def __init__(self, directory: Path | str, server_ids: Callable[[Tensor], Tensor]) -> None:
        super().__init__(directory)
        self.server_ids = server_ids

    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, NDArray[Any]]:
        """Predicted train ids."""
        return {"prediction": predicted_ids(prediction)}

    def files_of(self, arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
        """One PNG file."""
        yield ".png", png(self.server_ids(torch.from_numpy(arrays["prediction"])).numpy())


class PredictionWriter(ImageWriter):
    """What ``--predict`` writes for every image.

    The files are ``ID_trainids.png`` (grey, one train id a pixel), ``ID_color.png``,
    ``ID_overlay.png`` and, if asked for, ``ID_probabilities.npz`` with ``probabilities``
    (C, H, W) float16 and ``classes``, their names.

    Args:
        directory: made where it is missing.
        palette: (K, 3) uint8 RGB, the colour of each train id.
        class_names: names by train id, for the probability files.
        save_probs: also write these.
    """

    def __init__(
        self,
        directory: Path | str,
        palette: Tensor,
        class_names: tuple[str, ...] = (),
        *,
        save_probs: bool = False,
    ) -> None:
        super().__init__(directory)
        self.palette = full_palette(palette)
        self.class_names = class_names
        self.save_probs = save_probs

    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, NDArray[Any]]:
        """Picture, predicted train ids and, if asked for, probabilities."""
        arrays = {"image": pictures(batch, prediction), "prediction": predicted_ids(prediction)}
        if self.save_probs:
            arrays["probabilities"] = prediction.logits.softmax(1).half().cpu().numpy()
        return arrays

    def files_of(self, arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
        """The files of one image."""
        ids = arrays["prediction"]
        yield "_trainids.png", png(ids)
        yield "_color.png", png(colours(ids, self.palette))
        yield "_overlay.png", png(overlay(arrays["image"], ids, self.palette))
        if self.save_probs:
            # Not compressed: that takes seconds an image and saves a seventh.
            file = io.BytesIO()
            np.savez(file, probabilities=arrays["probabilities"], classes=list(self.class_names))
            yield PROBABILITY_ENDING, file.getvalue()


class SampleTriptychs:
    """Keeps image, target and prediction of the first images of the pass, to be shown.

    Args:
        count: how many to keep.
        palette: (K, 3) uint8 RGB, the colour of each train id.

    Attributes:
        triptychs: three RGB pictures (H, W, 3) uint8 for each image.
    """

    needs: frozenset[str] = frozenset()
    variant: ForwardVariant | None = None

    def __init__(self, count: int, palette: Tensor) -> None:
        self.count = count
        self.palette = full_palette(palette)
        self.triptychs: list[tuple[Array, Array, Array]] = []

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Keep what is still wanted of one batch."""
        wanted = min(self.count - len(self.triptychs), len(batch["image"]))
        if wanted < 1:
            return
        images, ids = pictures(batch, prediction), predicted_ids(prediction)
        targets = batch["label"].cpu().numpy()
        self.triptychs += [
            (images[i], colours(targets[i], self.palette), colours(ids[i], self.palette))
            for i in range(wanted)
        ]

    def all_reduce(self) -> None:
        """Nothing: each process keeps the first of its own images."""

    def compute(self) -> dict[str, Any]:
        """No numbers."""
        return {}
