"""Logits, probabilities and label maps in files, in the place of a network: ``--logits_dir``."""

from __future__ import annotations

import hashlib
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datasets.items import safe_name
from datasets.label_files import first_bad_value, read_other_label
from datasets.png_files import DamagedMapError
from engine.consumers import PROBABILITY_ENDING
from engine.evaluate import PredictionSource
from methods.base import Method
from utils.types import IGNORE_INDEX, Batch, Prediction

LABEL_MAP = ".png"
ENDINGS = (".npy", ".npz", PROBABILITY_ENDING, LABEL_MAP)
IMPOSSIBLE = -30.0  # logit of the classes that a label map does not name
LEAST = 2.0**-25  # stands for the probabilities that float16 rounds to 0


class LogitsDirectory(Method, PredictionSource):
    """Logits from files ``ID.npy`` (C, h, w), ``ID.npz`` with the array ``logits``, or others.

    Of ``ID_probabilities.npz``, as ``--predict --save_probs`` writes it, they are the logs of the
    array ``probabilities``. An ``ID.png`` holds train ids, as pseudo labels do: their class is
    certain.

    Args:
        opts: the flags.
        num_classes: C.
        directory: with one file for every image of the data set.
        class_names: that stored probabilities have to be of; none: any.
    """

    def __init__(
        self,
        opts: Namespace,
        num_classes: int,
        directory: Path,
        class_names: tuple[str, ...] = (),
    ) -> None:
        super().__init__(opts, num_classes)
        self.directory = directory
        self.class_names = class_names

    def of_batch(self, batch: Batch) -> Prediction:
        """The logits of a batch, on the device of its images.

        Raises:
            ValueError: as ``read_logits`` does, and if the sizes of a batch differ.
        """
        arrays = [
            read_logits(self.directory, name, self.num_classes, self.class_names)
            for name in batch["id"]
        ]
        if len({array.shape for array in arrays}) > 1:
            raise ValueError(
                f"{self.directory} has logits of different sizes for {', '.join(batch['id'])}:"
                " add --val_batch_size 1"
            )
        return Prediction(torch.stack(arrays).to(batch["image"].device))

    def deployable(self) -> nn.Module:
        """No network."""
        return nn.Identity()

    def content_hash(self, ids: list[str]) -> str:
        """SHA-256 over the names, sizes and times of the files of some images.

        Raises:
            ValueError: naming the first image without a file.
        """
        digest = hashlib.sha256()
        for name in ids:
            path = logits_file(self.directory, name)
            status = path.stat()
            digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def logits_file(directory: Path, name: str) -> Path:
    """The file of an image's logits.

    Raises:
        ValueError: if there is none.
    """
    names = [f"{safe_name(name)}{ending}" for ending in ENDINGS]
    for path in (directory / file for file in names):
        if path.is_file():
            return path
    there = len([path for path in directory.rglob("*") if path.name.endswith(ENDINGS)])
    raise ValueError(
        f"--logits_dir {directory} has {there} files and none of {', '.join(names)}: they are named"
        " after the image's id"
    )


def read_logits(
    directory: Path, name: str, num_classes: int, class_names: tuple[str, ...] = ()
) -> Tensor:
    """The logits (C, h, w) float32 of one image.

    Args:
        directory: with its file.
        name: its id.
        num_classes: C.
        class_names: that stored probabilities have to be of; none: any.

    Raises:
        ValueError: naming the file that is missing, damaged, of another shape or of other
            classes, or whose values cannot be.
    """
    path = logits_file(directory, name)
    if path.suffix == LABEL_MAP:
        return certain_logits(path, num_classes)
    stored = path.name.endswith(PROBABILITY_ENDING)
    try:
        content = np.load(path, allow_pickle=False)
        if stored:
            array, there = content["probabilities"], tuple(content["classes"].tolist())
        else:
            array, there = content["logits"] if path.suffix == ".npz" else content, ()
        logits = torch.from_numpy(np.asarray(array, np.float32))
    except Exception as error:  # NumPy and zipfile raise what they please on damaged files
        raise ValueError(f"{path} cannot be read as an array of logits: {error}") from None
    if logits.dim() != 3 or len(logits) != num_classes:
        raise ValueError(
            f"{path} has the shape {tuple(logits.shape)}; expected ({num_classes}, h, w)"
        )
    if stored:
        refuse_other_names(path, there, class_names)
        return logs_of(logits, path)
    if not torch.isfinite(logits).all():
        bad = int((~torch.isfinite(logits)).sum())
        raise ValueError(f"{path} has {bad} logits that are not finite")
    return logits


def refuse_other_names(path: Path, there: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Refuse probabilities of other classes than those wanted, if these are known.

    Raises:
        ValueError: naming the first that differ.
    """
    if names and there != names:
        raise ValueError(
            f"{path} has probabilities of {', '.join(there[:3])}, ... and the data set has the"
            f" classes {', '.join(names[:3])}, ...: they have to be the same, in one order"
        )


def logs_of(probabilities: Tensor, path: Path) -> Tensor:
    """The logs of probabilities (C, h, w), those of 0 as of half of float16's least value.

    Raises:
        ValueError: if one is not in [0, 1], naming the file.
    """
    low, high = (float(value) for value in probabilities.aminmax())
    if not (low >= 0 and high <= 1 + 1e-3):  # nan compares false; float16 may round above 1
        raise ValueError(f"{path} has probabilities from {low:g} to {high:g}; they lie in [0, 1]")
    return probabilities.clamp(min=LEAST).log()


def certain_logits(path: Path, num_classes: int) -> Tensor:
    """A map of train ids as logits (C, h, w) float32: 0 for the class named, -30 for the others.

    Where it names none (255) every class is as likely as any other.

    Raises:
        ValueError: if the file is damaged, coloured or holds a value that is no class, naming both.
    """
    try:
        label = read_other_label(path)
    except DamagedMapError as error:
        raise ValueError(
            f"{path} is damaged, {error}: put a whole grey or palette PNG of train ids there"
        ) from None
    bad = first_bad_value(label, num_classes)
    if bad is not None:
        raise ValueError(
            f"{path} holds the value {bad}; label maps hold train ids 0 to {num_classes - 1}, or"
            f" {IGNORE_INDEX} for none"
        )
    ids = torch.from_numpy(label)[None]
    named = torch.arange(num_classes)[:, None, None] == ids
    return torch.full(named.shape, IMPOSSIBLE).masked_fill(named | (ids == IGNORE_INDEX), 0.0)
