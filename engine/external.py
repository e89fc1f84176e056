"""Networks of other projects behind ``--external``, and logits made elsewhere."""

from __future__ import annotations

import hashlib
import importlib
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datasets.files import read_ids
from datasets.items import safe_name
from datasets.label_files import first_bad_value
from engine.consumers import PROBABILITY_ENDING
from engine.evaluate import PredictionSource, resize_maps
from methods.base import Method
from utils.types import FEATURES, IGNORE_INDEX, Batch, Prediction

LABEL_MAP = ".png"
ENDINGS = (".npy", ".npz", PROBABILITY_ENDING, LABEL_MAP)
IMPOSSIBLE = -30.0  # logit of the classes that a label map does not name
LEAST = 2.0**-25  # stands for the probabilities that float16 rounds to 0
OUTPUT_FIELDS = ("logits", "out", "class_queries_logits", "masks_queries_logits")


def external_network(text: str) -> nn.Module:
    """The network that ``module:callable`` returns when it is called without arguments.

    Args:
        text: a module, importable or in the working directory, and a callable in it.

    Raises:
        ValueError: if it cannot be imported or called, or returns something else.
    """
    module_name, colon, name = text.partition(":")
    if not (module_name and colon and name):
        raise ValueError(
            f"--external {text}: write module:callable, such as my_models:segformer_b0"
        )
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ValueError(f"--external {text}: {module_name} cannot be imported ({error})") from None
    build = getattr(module, name, None)
    if not callable(build):
        raise ValueError(f"--external {text}: {module_name} has no callable {name}")
    network = build()
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"--external {text} returned {type(network).__name__}, not a torch.nn.Module"
        )
    return network


def state_hash(network: nn.Module) -> str:
    """SHA-256 over the names and values of a network's state."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class External(Method):
    """A network that maps normalised images to logits of any size, or to an output that has them.

    Understood are a tensor (N, C, h, w); an output with ``logits`` or, as torchvision's, with the
    entry ``out``; and the class and mask logits of mask classification (MaskFormer, Mask2Former).

    Args:
        opts: the flags.
        num_classes: of the data set, which the network must have too.
        network: the network.
        name: for messages.
    """

    def __init__(self, opts: Namespace, num_classes: int, network: nn.Module, name: str) -> None:
        super().__init__(opts, num_classes)
        self.network = network
        self.name = name

    def predict(
        self, images: Tensor, needs: frozenset[str] = frozenset(), at_stride: bool = False
    ) -> Prediction:
        """The network's logits, resized to the images unless their own resolution is wanted.

        Raises:
            ValueError: if the output is not understood, or has other classes than the data set.
        """
        if FEATURES in needs:
            raise ValueError(
                f"{self.name} gives no pooled features, which a cluster calibrator needs"
            )
        logits = logits_of(self.network(images), self.name)
        if logits.dim() != 4 or logits.shape[1] != self.num_classes:
            raise ValueError(
                f"{self.name} gives logits of the shape {tuple(logits.shape)}; expected"
                f" (N, {self.num_classes}, h, w) for the {self.num_classes} classes of the data set"
            )
        logits = logits.float()
        return Prediction(logits if at_stride else resize_maps(logits, images.shape[-2:]))

    def deployable(self) -> nn.Module:
        """The network itself."""
        return self.network


def logits_of(output: Any, name: str) -> Tensor:
    """The logits in what a network returned.

    Raises:
        ValueError: if there are none.
    """
    if isinstance(output, Tensor):
        return output
    found = {key: field_of(output, key) for key in OUTPUT_FIELDS}
    for key in ("logits", "out"):
        if isinstance(found[key], Tensor):
            return found[key]
    classes, masks = found["class_queries_logits"], found["masks_queries_logits"]
    if isinstance(classes, Tensor) and isinstance(masks, Tensor):
        return mask_classification(classes, masks)
    raise ValueError(
        f"{name} returned {type(output).__name__} without logits; expected a tensor, or an output"
        f" with {' or '.join(OUTPUT_FIELDS[:2])}, or {' and '.join(OUTPUT_FIELDS[2:])}"
    )


def field_of(output: Any, key: str) -> Any:
    """An entry of a mapping or an attribute of an object, None where there is none."""
    return output.get(key) if isinstance(output, Mapping) else getattr(output, key, None)


def mask_classification(classes: Tensor, masks: Tensor) -> Tensor:
    """Logits of a network that classifies masks (Cheng et al. 2021).

    The score of a class at a pixel is the sum over the queries of the query's probability of the
    class (without the last entry, "no object") times sigmoid(mask). These scores need not add up
    to 1; their log is returned, so that the softmax normalises them.

    Args:
        classes: (N, Q, C + 1), logits of every query.
        masks: (N, Q, h, w), logits of every query's mask.
    """
    shares = classes.float().softmax(-1)[..., :-1]
    scores = shares.transpose(1, 2) @ masks.float().sigmoid().flatten(2)
    tiny = torch.finfo(torch.float32).tiny
    return scores.clamp_(min=tiny).log_().unflatten(2, masks.shape[-2:])


class LogitsDirectory(Method, PredictionSource):
    """Logits from files ``ID.npy`` (C, h, w), ``ID.npz`` with the array ``logits``, or others.

    Of ``ID_probabilities.npz``, as ``--predict --save_probs`` writes it, they are the logs of the
    array ``probabilities``. An ``ID.png`` holds train ids, as pseudo labels do: their class is
    certain.

    Args:
        opts: the flags.
        num_classes: C.
        directory: with one file for every image of the data set.
    """

    def __init__(self, opts: Namespace, num_classes: int, directory: Path) -> None:
        super().__init__(opts, num_classes)
        self.directory = directory

    def of_batch(self, batch: Batch) -> Prediction:
        """The logits of a batch, on the device of its images.

        Raises:
            ValueError: as ``read_logits`` does, and if the sizes of a batch differ.
        """
        arrays = [read_logits(self.directory, name, self.num_classes) for name in batch["id"]]
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
    paths = [directory / f"{safe_name(name)}{ending}" for ending in ENDINGS]
    for path in paths:
        if path.is_file():
            return path
    there = len([path for path in directory.glob("*") if path.name.endswith(ENDINGS)])
    raise ValueError(
        f"--logits_dir {directory} has {there} files and none of"
        f" {', '.join(path.name for path in paths)}: they are named after the image's id"
    )


def read_logits(directory: Path, name: str, num_classes: int) -> Tensor:
    """The logits (C, h, w) float32 of one image.

    Raises:
        ValueError: naming the file that is missing, damaged, of another shape or not finite.
    """
    path = logits_file(directory, name)
    if path.suffix == LABEL_MAP:
        return certain_logits(path, num_classes)
    try:
        content = np.load(path, allow_pickle=False)
        if path.name.endswith(PROBABILITY_ENDING):
            array = np.log(np.maximum(content["probabilities"], LEAST, dtype=np.float32))
        else:
            array = content["logits"] if path.suffix == ".npz" else content
        logits = torch.from_numpy(np.asarray(array, np.float32))
    except Exception as error:  # NumPy and zipfile raise what they please on damaged files
        raise ValueError(f"{path} cannot be read as an array of logits: {error}") from None
    if logits.dim() != 3 or len(logits) != num_classes:
        raise ValueError(
            f"{path} has the shape {tuple(logits.shape)}; expected ({num_classes}, h, w)"
        )
    if not torch.isfinite(logits).all():
        bad = int((~torch.isfinite(logits)).sum())
        raise ValueError(f"{path} has {bad} logits that are not finite")
    return logits


def certain_logits(path: Path, num_classes: int) -> Tensor:
    """A map of train ids as logits (C, h, w) float32: 0 for the class named, -30 for the others.

    Where it names none (255) every class is as likely as any other.

    Raises:
        ValueError: if the file is unreadable or holds a value that is no class, naming both.
    """
    label = read_ids(path)
    bad = first_bad_value(label, num_classes)
    if bad is not None:
        raise ValueError(
            f"{path} holds the value {bad}; label maps hold train ids 0 to {num_classes - 1}, or"
            f" {IGNORE_INDEX} for none"
        )
    ids = torch.from_numpy(label)[None]
    named = torch.arange(num_classes)[:, None, None] == ids
    return torch.full(named.shape, IMPOSSIBLE).masked_fill(named | (ids == IGNORE_INDEX), 0.0)
