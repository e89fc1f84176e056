"""Losses by name: functions of logits, labels and, where given, a weight for each pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from losses.cross_entropy import Normalize, cross_entropy
from losses.dice import dice_loss, hybrid_loss
from losses.focal import focal_loss


class Loss(Protocol):
    """A loss with its settings filled in."""

    def __call__(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        """Logits (N, C, H, W), labels (N, H, W) and pixel weights (N, H, W) to a scalar."""
        ...


@dataclass(frozen=True)
class LossEntry:
    """One choice of ``--loss_type``.

    Attributes:
        function: takes logits (N, C, H, W), labels (N, H, W) and keyword arguments.
        description: one line for ``--list losses``.
        normalize: divisor when the user names none; None when the loss has no divisor.
        options: keyword arguments of ``build_loss`` that the function takes.
        binary_only: whether the data set must have exactly two classes.
    """

    function: Callable[..., Tensor]
    description: str
    normalize: Normalize | None = "valid"
    options: tuple[str, ...] = ()
    binary_only: bool = False


LOSSES: dict[str, LossEntry] = {
    "cross_entropy": LossEntry(cross_entropy, "mean cross entropy over the labelled pixels"),
    "class_weighted_cross_entropy": LossEntry(
        cross_entropy,
        "cross entropy, each class weighted by the inverse of its share of the training labels",
        options=("class_weights",),
    ),
    "focal_loss": LossEntry(
        focal_loss,
        "cross entropy faded by (1 - p)^gamma, mean over all pixels (gamma 0 as published)",
        normalize="all",
        options=("gamma", "alpha"),
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
    class_weights: Tensor | None = None,
) -> Loss:
    """The loss of that name with its settings filled in.

    Args:
        name: a key of ``LOSSES``.
        normalize: "valid" or "all"; None for the loss's own.
        focal_gamma: exponent of ``focal_loss``.
        focal_alpha: factor of ``focal_loss``.
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
    given = {"gamma": focal_gamma, "alpha": focal_alpha, "class_weights": class_weights}
    chosen: dict[str, Any] = {option: given[option] for option in entry.options}
    if "class_weights" in chosen and class_weights is None:
        raise ValueError(f"{name} needs one weight for each class")
    if entry.normalize is not None:
        chosen["normalize"] = normalize or entry.normalize

    def loss(logits: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
        return entry.function(logits, labels, weight=weight, **chosen)

    return loss
