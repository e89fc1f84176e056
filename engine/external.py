"""Networks of other projects behind ``--external``."""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.evaluate import resize_maps
from methods.base import Method
from utils.types import FEATURES, Prediction

OUTPUT_FIELDS = ("logits", "out", "class_queries_logits", "masks_queries_logits")


def external_network(text: str) -> nn.Module:
    """The network that ``module:callable`` returns when it is called without arguments.

    Args:
        text: a module, importable or in the working directory, and a callable in it.

    Raises:
        ValueError: if it cannot be imported or called, or returns something else, naming the file
            and what went wrong in it.
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
    except Exception as error:  # a module of others may raise anything
        raise ValueError(
            f"--external {text}: {module_name} cannot be imported ({described(error)})"
        ) from error
    build = getattr(module, name, None)
    if not callable(build):
        raise ValueError(f"--external {text}: {module_name} has no callable {name}")
    try:
        network = build()
    except Exception as error:
        file = getattr(module, "__file__", None) or module_name
        raise ValueError(
            f"--external {text}: {name} of {file} failed when it was called without arguments"
            f" ({described(error)})"
        ) from error
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"--external {text} returned {type(network).__name__}, not a torch.nn.Module"
        )
    return network


def described(error: Exception) -> str:
    """An error's kind and text on one line, and which line of another project's file raised it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    own = (__file__, importlib.__file__)
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [one for one in frames if one.filename not in own and "<frozen" not in one.filename]
    return f"{text}, in {theirs[-1].filename} line {theirs[-1].lineno}" if theirs else text


def state_hash(network: nn.Module) -> str:
    """SHA-256 over the names and values of a network's state."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            flat = value.detach().cpu().reshape(-1)  # a scalar cannot be viewed as bytes
            digest.update(flat.view(torch.uint8).numpy().tobytes())
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
