"""Why a checkpoint does not fit a network, and which flags would."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from network import MODELS, build_model
from network.heads import CLASS_HEADS, HeadOptions

OF_MEMBER = re.compile(r"(?:members\.\d+\.)*")  # how the names of an ensemble begin
OF_TEMPERATURE = ".temperature."  # in the names of a learned temperature


def last_layer(state: dict[str, Tensor]) -> tuple[str, ...]:
    """Names of the classifying layer: the last convolution, of an ensemble each member's.

    A learned temperature, which comes after it, is not meant.

    Raises:
        IndexError: if there is no convolution.
    """
    last = {
        OF_MEMBER.match(name)[0]: name  # type: ignore[index]
        for name in state
        if state[name].dim() == 4 and OF_TEMPERATURE not in name
    }
    if not last:
        raise IndexError("no convolution in the state")
    return tuple(
        part
        for weight in last.values()
        for part in (weight, weight.removesuffix("weight") + "bias")
    )


def all_of_head(names: Iterable[str], state: dict[str, Tensor]) -> bool:
    """Whether all names belong to the classifying layer or to a learned temperature."""
    last = last_layer(state)
    return all(name in last or OF_TEMPERATURE in name for name in names)


def describe_mismatch(
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    path: Path,
    missing: list[str],
    extra: list[str],
    unlike: list[str],
) -> str:
    """The message for a checkpoint that does not fit: tensors, then the flag that would."""
    of_head = all_of_head((*missing, *unlike), own) and all_of_head(extra, state)
    if of_head and unlike:
        theirs, ours = (len(s[last_layer(s)[0]]) for s in (state, own))
        return (
            f"{path} classifies {theirs} classes, this run {ours}: give the data set it was trained"
            f" on, or --reset_head to train a new last layer on top of it"
        )
    parts = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for what, names in (("missing", missing), ("unknown", extra), ("of another shape", unlike))
        if names
    ]
    fit = fitting_flags(state)
    advice = "; it fits no model of this project"
    if fit is not None:
        separable = " --separable_conv" if fit["separable_conv"] else ""
        head = f" --head {fit['head']} --temperature {fit['temperature']}"
        advice = f"; it fits --model {fit['model']}{separable}{head if of_head else ''}"
        advice += ", or --reset_head trains a new head on top of it" if of_head else ""
    return f"{path} does not fit the network: {', '.join(parts)}{advice}"


def fitting_flags(state: dict[str, Tensor]) -> dict[str, Any] | None:
    """Values of --model and its options whose network has the state's names and shapes.

    The last layer may differ; None where no network fits. Where nothing tells a linear head from a
    cosine one, as without a bias, it is taken for a linear one.
    """
    separable = any(".body." in name for name in state)
    temperature = "learned" if any(OF_TEMPERATURE in name for name in state) else "none"
    shapes = {name: tensor.shape for name, tensor in state.items() if tensor.dim() != 0}
    try:
        last = last_layer(state)
    except IndexError:
        return None
    models = [model for model in MODELS if model != "deeplabv3plus_timm"]
    for kind, model in product(CLASS_HEADS, models):
        head = HeadOptions(kind, temperature)
        with torch.device("meta"):
            candidate = build_model(model, 2, output_stride=16, separable_conv=separable, head=head)
        theirs = {n: t.shape for n, t in candidate.state_dict().items() if t.dim() != 0}
        if theirs.keys() == shapes.keys() and all(
            theirs[name] == shapes[name] for name in theirs if name not in last
        ):
            return {
                "model": model,
                "separable_conv": separable,
                "head": kind,
                "temperature": temperature,
            }
    return None
