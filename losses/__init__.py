"""Losses by name: functions of logits, labels and, where given, a map over the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from losses.cross_entropy import Normalize, cross_entropy
from losses.dice import dice_loss, hybrid_loss
from losses.focal import focal_loss
from losses.uncertainty import uce, uncertainty_cross_entropy


class Loss(Protocol):
    """A loss with its settings filled in."""

    def __call__(self, logits: Tensor, labels: Tensor, pixels: Tensor | None = None) -> Tensor:
        """Logits (N, C, H, W), labels (N, H, W) and a map (N, H, W) to a scalar.

        The map holds the factor of each pixel, or its uncertainty where the loss reads that.
        """
        ...


@dataclass(frozen=True)
class LossEntry:
    """One choice of ``--loss_type``.

    Attributes:
        function: takes logits (N, C, H, W), labels (N, H, W) and keyword arguments.
        description: one line for ``--list losses``.
        normalize: divisor when the user names none; None when the loss has no divisor.
        options: the function's further keyword arguments, each with its name in ``build_loss``.
        binary_only: whether the data set must have exactly two classes.
        reads: what the map over the pixels means: a ``weight`` that may be left out, or the
            ``uncertainty`` that the loss cannot do without.
    """

    function: Callable[..., Tensor]
    description: str
    normalize: Normalize | None = "valid"
    options: Mapping[str, str] = field(default_factory=dict)
    binary_only: bool = False
    reads: Literal["weight", "uncertainty"] = "weight"


LOSSES: dict[str, LossEntry] = {
    "cross_entropy": LossEntry(cross_entropy, "mean cross entropy over the labelled pixels"),
    "class_weighted_cross_entropy": LossEntry(
        cross_entropy,
        "cross entropy, each class weighted by the inverse of its share of the training labels",
        options={"class_weights": "class_weights"},
    ),
    "focal_loss": LossEntry(
        focal_loss,
        "cross entropy faded by (1 - p)^gamma, mean over all pixels (gamma 0 as published)",
        normalize="all",
        options={"gamma": "focal_gamma", "alpha": "focal_alpha"},
    ),
    "uncertainty_cross_entropy": LossEntry(
        uncertainty_cross_entropy,
        "(1 + U)^2 CE with the instance uncertainty U, mean over all pixels",
        normalize="all",
        reads="uncertainty",
    ),
    "uce": LossEntry(
        uce,
        "(1 + sigma)^alpha CE with the deviation sigma over dropout passes, mean over all pixels",
        normalize="all",
        options={"alpha": "alpha"},
        reads="uncertainty",
    ),
    "dice": LossEntry(
        dice_loss, "one minus the soft dice of the foreground", normalize=None, binary_only=True
    ),
    "hybrid": LossEntry(hybrid_loss, "half cross entropy, half dice", binary_only=True),
}


def build_loss(
    name: str,
    *,
    normalize: Normalize | None = None,
    focal_gamma: float = 0.0,
    focal_alpha: float = 1.0,
    alpha: float = 0.0,
    class_weights: Tensor | None = None,
) -> Loss:
    """The loss of that name with its settings filled in.

    Args:
        name: a key of ``LOSSES``.
        normalize: "valid" or "all"; None for the loss's own.
        focal_gamma: exponent of ``focal_loss``.
        focal_alpha: factor of ``focal_loss``.
        alpha: exponent of ``uce``.
        class_weights: (C,), for ``class_weighted_cross_entropy``.

    Raises:
        ValueError: if the name is unknown, class weights are missing, or a divisor is asked of
            a loss that has none.
    """
    if name not in LOSSES:
        raise ValueError(f"no loss is called {name!r}; there are {', '.join(LOSSES)}")
    entry = LOSSES[name]
    if normalize is not None and entry.normalize is None:
        raise ValueError(f"{name} is a ratio of sums: leave out --loss_normalize {normalize}")
    given = {
        "focal_gamma": focal_gamma,
        "focal_alpha": focal_alpha,
        "alpha": alpha,
        "class_weights": class_weights,
    }
    chosen: dict[str, Any] = {keyword: given[name] for keyword, name in entry.options.items()}
    if "class_weights" in chosen and class_weights is None:
        raise ValueError(f"{name} needs one weight for each class")
    if entry.normalize is not None:
        chosen["normalize"] = normalize or entry.normalize

    def loss(logits: Tensor, labels: Tensor, pixels: Tensor | None = None) -> Tensor:
        assert pixels is not None or entry.reads == "weight", f"{name} needs the uncertainty"
        return entry.function(logits, labels, **{entry.reads: pixels}, **chosen)

    return loss
