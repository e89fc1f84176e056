"""Writers of pictures and predictions: consumers of the evaluation pass."""

from __future__ import annotations

import io
import os
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.transforms import denormalize
from engine.predict import resize_images
from utils.files import write_atomically
from utils.types import Batch, ForwardVariant, Prediction

Array = NDArray[np.uint8]
THREADS = min(4, os.cpu_count() or 1)
UNSAFE = re.compile(r"[^\w\-. ()+,=@]")  # in a part of a path on any system


class ImageWriter(ABC):
    """Writes some files for every image, encoding on a few threads beside the pass.

    A subclass brings what it needs of a batch to the host (``arrays_of``) and turns one image's
    arrays into files (``files_of``). Files appear whole or not at all; what stood there is
    replaced. The slashes of an image's id become folders.
    """

    needs: frozenset[str] = frozenset()
    variant: ForwardVariant | None = None

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.written: set[Path] = set()
        self.pool = ThreadPoolExecutor(THREADS)
        self.pending: deque[Future[None]] = deque()

    @abstractmethod
    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, NDArray[Any]]:
        """What the files are made of, on the host, the axis of the images first."""

    @abstractmethod
    def files_of(self, arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
        """Ending of the name and content of each file of one image."""

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
            while len(self.pending) > 2 * THREADS:
                self.pending.popleft().result()

    def _write(self, name: str, arrays: dict[str, NDArray[Any]]) -> None:
        for ending, content in self.files_of(arrays):
            write_atomically(self.path(name, ending), content)

    def all_reduce(self) -> None:
        """Wait for the last file; each process writes its own images.

        Raises:
            WriteError: naming a file that could not be written.
        """
        while self.pending:
            self.pending.popleft().result()
        self.pool.shutdown()

    def compute(self) -> dict[str, Any]:
        """No numbers."""
        return {}


class SaveResults(ImageWriter):
    """Image, target, prediction and overlay of every image, as ``--save_val_results`` asks.

    The files are ``ID_image.png``, ``ID_target.png``, ``ID_prediction.png`` (both in the classes'
    colours, void black) and ``ID_overlay.png``.

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
        if "target" in arrays:
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
            yield "_probabilities.npz", file.getvalue()


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


def safe_name(name: str) -> str:
    """A relative path for an image's id: slashes part folders, other unsafe signs become %XX."""
    parts = [
        UNSAFE.sub(lambda sign: "".join(f"%{byte:02X}" for byte in sign[0].encode()), part)
        for part in name.split("/")
    ]
    return "/".join("_" if part in {"", ".", ".."} else part for part in parts)


def predicted_ids(prediction: Prediction) -> Array:
    """The most probable class of each pixel, (N, H, W)."""
    ids: Array = prediction.logits.max(1).indices.to(torch.uint8).cpu().numpy()
    return ids


def pictures(batch: Batch, prediction: Prediction) -> Array:
    """The images as people see them, RGB (N, H, W, 3), at the size of the prediction."""
    height, width = prediction.logits.shape[-2:]
    images = denormalize(resize_images(batch["image"], (height, width)))
    rgb: Array = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return rgb


def full_palette(palette: Tensor) -> Array:
    """A colour for each of the 256 values of a label: black where the palette has none."""
    full = np.zeros((256, 3), np.uint8)
    full[: len(palette)] = palette.cpu().numpy()
    return full


def colours(ids: Array, palette: Array) -> Array:
    """Train ids (H, W) as RGB (H, W, 3) through a palette (256, 3)."""
    return cv2.LUT(cv2.merge([ids] * 3), palette[None])  # type: ignore[return-value]


def overlay(image: Array, ids: Array, palette: Array) -> Array:
    """An image (H, W, 3) tinted by class, 0.4 image + 0.6 colour, with bright outlines.

    Black stands for nothing to show (void, and the background of VOC and Kvasir): there the
    image stays as it is.
    """
    colour = colours(ids, palette)
    tinted = cv2.addWeighted(image, 0.4, colour, 0.6, 0)
    untinted = (palette == 0).all(axis=1)[ids]
    tinted[untinted] = image[untinted]
    lines = outlines(ids)
    tinted[lines] = 102 + 0.6 * tinted[lines]  # 0.4 white
    return tinted  # type: ignore[return-value]


def outlines(ids: Array) -> NDArray[np.bool_]:
    """Where the class differs from that of the pixel above or to the left, (H, W).

    The lines widen with the image, one pixel for every 500.
    """
    lines = np.zeros(ids.shape, np.uint8)
    lines[1:] |= ids[1:] != ids[:-1]
    lines[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    width = max(1, round(min(ids.shape) / 500))
    return cv2.dilate(lines, np.ones((width, width), np.uint8)).astype(bool)


def png(image: Array) -> bytes:
    """Encode grey (H, W) or RGB (H, W, 3) as PNG."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # type: ignore[assignment]
    done, content = cv2.imencode(".png", image)
    assert done, f"OpenCV cannot encode an array of shape {image.shape} as PNG"
    return content.tobytes()
