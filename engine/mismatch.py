"""Why a checkpoint does not fit a network, and which flags would."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from network import MODELS, build_model

OF_MEMBER = re.compile(r"(?:members\.\d+\.)*")  # how the names of an ensemble begin


def last_layer(state: dict[str, Tensor]) -> tuple[str, ...]:
    """Names of the classifying layer: the last convolution, of an ensemble each member's.

    Raises:
        IndexError: if there is no convolution.
    """
    last = {OF_MEMBER.match(name)[0]: name for name in state if state[name].dim() == 4}  # type: ignore[index]
    if not last:
        raise IndexError("no convolution in the state")
    return tuple(
        part
        for weight in last.values()
        for part in (weight, weight.removesuffix("weight") + "bias")
    )


def all_last_layer(names: list[str], state: dict[str, Tensor]) -> bool:
    """Whether all names belong to the classifying layer."""
    return set(names) <= set(last_layer(state))


def describe_mismatch(
    own: dict[str, Tensor],
    state: dict[str, Tensor],
    path: Path,
    missing: list[str],
    extra: list[str],
    unlike: list[str],
) -> str:
    """The message for a checkpoint that does not fit: tensors, then the flag that would."""
    if not missing and not extra and all_last_layer(unlike, own):
        theirs, ours = (len(s[last_layer(own)[0]]) for s in (state, own))
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
        advice = f"; it fits --model {fit['model']}{separable}"
    return f"{path} does not fit the network: {', '.join(parts)}{advice}"


def fitting_flags(state: dict[str, Tensor]) -> dict[str, Any] | None:
    """Values of --model and --separable_conv whose network has the state's names and shapes.

    The last layer may differ; None where no network fits.
    """
    separable = any(".body." in name for name in state)
    shapes = {name: tensor.shape for name, tensor in state.items() if tensor.dim() != 0}
    try:
        last = last_layer(state)
    except IndexError:
        return None
    for model in MODELS:
        if model == "deeplabv3plus_timm":
            continue
        with torch.device("meta"):
            candidate = build_model(model, 2, output_stride=16, separable_conv=separable)
        theirs = {n: t.shape for n, t in candidate.state_dict().items() if t.dim() != 0}
        if theirs.keys() == shapes.keys() and all(
            theirs[name] == shapes[name] for name in theirs if name not in last
        ):
            return {"model": model, "separable_conv": separable}
    return None
