"""Why a checkpoint does not fit a network, and which flags would."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from network import (
    CAM_MODELS,
    MODELS,
    PSPNET_MODELS,
    TWO_HEADED,
    PyramidOptions,
    build_model,
)
from network.heads import CLASS_HEADS, PLAIN, HeadOptions

# how the names of an ensemble's members and of a second head begin
OF_HEAD = re.compile(r"(?:members\.\d+\.)*(?:aux_classifier\.)?")
OF_AUX = "aux_classifier."
OF_PSPNET = "aux_classifier.classifier.convs."
OF_CAMS = "background_channel"  # the one tensor that no other network has
OF_CORRELATION = "correlation."
OF_TEMPERATURE = ".temperature."  # in the names of a learned temperature


def last_layer(state: dict[str, Tensor]) -> tuple[str, ...]:
    """Names of the classifying layer: the last convolution, of an ensemble each member's.

    A second head's follow those of the first. A learned temperature, which comes after it, is not
    meant.

    Raises:
        IndexError: if there is no convolution.
    """
    last = {
        OF_HEAD.match(name)[0]: name  # type: ignore[index]
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
    advice = "it fits no model of this project"
    if fit is not None:
        advice = f"it fits {typed(fit, of_head=of_head, two_heads=has_second_head(own))}"
        advice += ", or --reset_head trains a new head on top of it" if of_head else ""
    return f"{path} does not fit the network: {', '.join(parts)}; {advice}"


def typed(fit: dict[str, Any], *, of_head: bool, two_heads: bool) -> str:
    """The values of ``fitting_flags`` as they are typed.

    Args:
        fit: the values.
        of_head: name the kind of the class head also where it is the usual one.
        two_heads: whether the network that they do not fit has an auxiliary head.
    """
    words = ["--model", fit["model"]]
    words += ["--separable_conv"] * fit["separable_conv"]
    words += ["--aux_head"] * fit["aux_head"]
    if "head_norm" in fit:
        norm = "--head_norm bn" if fit["head_norm"] == "bn" else "--head_norm gn (or in)"
        words += [norm, "--use_se" if fit["use_se"] else "without --use_se"]
    elif two_heads:
        words += ["without --aux_head"]
    plain = (fit["head"], fit["temperature"]) == (PLAIN.kind, PLAIN.temperature)
    if of_head or not plain:
        words += ["--head", fit["head"], "--temperature", fit["temperature"]]
    return " ".join(words)


def has_second_head(state: dict[str, Tensor]) -> bool:
    """Whether a state has an auxiliary head, of an ensemble any of its members."""
    return any(OF_AUX in name for name in state)


def pyramid_options(state: dict[str, Tensor]) -> PyramidOptions | None:
    """The options of a state's auxiliary head that its names tell, None without such a head.

    Group and instance norm have the same names; group norm, which every published command asks
    for, stands for both.
    """
    names = [name for name in state if name.startswith(OF_AUX)]
    if not names:
        return None
    norm = "bn" if any(name.endswith(".running_mean") for name in names) else "gn"
    return PyramidOptions(norm, any(".se." in name for name in names))


def fitting_flags(state: dict[str, Tensor]) -> dict[str, Any] | None:
    """Values of --model and its options whose network has the state's names and shapes.

    The last layer may differ; None where no network fits. Where nothing tells a linear head from a
    cosine one, as without a bias, it is taken for a linear one. ``head_norm`` and ``use_se`` are
    there for a state with an auxiliary head; see ``pyramid_options``.
    """
    separable = any(".body." in name for name in state)
    temperature = "learned" if any(OF_TEMPERATURE in name for name in state) else "none"
    pyramid = pyramid_options(state)
    shapes = {name: tensor.shape for name, tensor in state.items() if tensor.dim() != 0}
    try:
        last = last_layer(state)
    except IndexError:
        return None
    shapes = {name: size for name, size in shapes.items() if not name.startswith(OF_CORRELATION)}
    for kind, model in product(CLASS_HEADS, models_like(state)):
        candidate = architecture(model, separable, HeadOptions(kind, temperature), pyramid)
        if candidate.keys() == shapes.keys() and all(
            candidate[name] == shapes[name] for name in candidate if name not in last
        ):
            fit = {
                "model": model,
                "separable_conv": separable,
                "head": kind,
                "temperature": temperature,
                "aux_head": pyramid is not None and model not in TWO_HEADED,
            }
            if pyramid is not None and model not in PSPNET_MODELS:
                fit |= {"head_norm": pyramid.norm, "use_se": pyramid.squeeze_excitation}
            return fit
    return None


def models_like(state: dict[str, Tensor]) -> list[str]:
    """The models of the family that a few names tell, so that not all have to be built."""
    models = [model for model in MODELS if model != "deeplabv3plus_timm"]
    for mark, family in ((OF_CAMS, CAM_MODELS), (OF_PSPNET, PSPNET_MODELS)):
        if any(name.startswith(mark) for name in state):
            return [model for model in models if model in family]
    return [model for model in models if model not in CAM_MODELS | PSPNET_MODELS]


def architecture(
    model: str, separable_conv: bool, head: HeadOptions, pyramid: PyramidOptions | None
) -> dict[str, torch.Size]:
    """Names and shapes of the tensors of a network of two classes.

    Without counters, and without the refinement of activation maps, which a network may lack.
    """
    with torch.device("meta"):
        network = build_model(model, 2, separable_conv=separable_conv, head=head, pyramid=pyramid)
    return {
        name: tensor.shape
        for name, tensor in network.state_dict().items()
        if tensor.dim() != 0 and not name.startswith(OF_CORRELATION)
    }
