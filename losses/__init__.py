"""Losses by name: functions of logits, labels and, where given, a map over the pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from losses.cross_entropy import Normalize, cross_entropy
from losses.dice import dice_loss, hybrid_loss
from losses.focal import focal_loss
from losses.image_weighted import Reduction, image_weighted_cross_entropy
from losses.relaxed_boundary import relaxed_boundary_loss
from losses.uncertainty import uce, uncertainty_cross_entropy
from losses.underfitting import Kind as Underfit
from losses.underfitting import Underfitting


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
        options: the function's further keyword arguments, each with its name in ``LossSettings``.
        binary_only: whether the data set must have exactly two classes.
        reads: what the map over the pixels means: a ``weight`` that may be left out, or the
            ``uncertainty`` that the loss cannot do without.
        pixelwise: whether it is a mean of one loss for each pixel, which ``underfit`` can change.
    """

    function: Callable[..., Tensor]
    description: str
    normalize: Normalize | None = "valid"
    options: Mapping[str, str] = field(default_factory=dict)
    binary_only: bool = False
    reads: Literal["weight", "uncertainty"] = "weight"
    pixelwise: bool = False


LOSSES: dict[str, LossEntry] = {
    "cross_entropy": LossEntry(
        cross_entropy, "mean cross entropy over the labelled pixels", pixelwise=True
    ),
    "class_weighted_cross_entropy": LossEntry(
        cross_entropy,
        "cross entropy, each class weighted by the inverse of its share of the training labels",
        options={"class_weights": "class_weights"},
        pixelwise=True,
    ),
    "focal_loss": LossEntry(
        focal_loss,
        "cross entropy faded by (1 - p)^gamma, mean over all pixels (gamma 0 as published)",
        normalize="all",
        options={"gamma": "focal_gamma", "alpha": "focal_alpha"},
        pixelwise=True,
    ),
    "uncertainty_cross_entropy": LossEntry(
        uncertainty_cross_entropy,
        "(1 + U)^2 CE with the instance uncertainty U, mean over all pixels",
        normalize="all",
        reads="uncertainty",
        pixelwise=True,
    ),
    "uce": LossEntry(
        uce,
        "(1 + sigma)^alpha CE with the deviation sigma over dropout passes, mean over all pixels",
        normalize="all",
        options={"alpha": "alpha"},
        reads="uncertainty",
        pixelwise=True,
    ),
    "image_weighted_cross_entropy": LossEntry(
        image_weighted_cross_entropy,
        "cross entropy, each class weighted by how little of its image it covers",
        normalize=None,
        options={"bound": "wt_bound", "over": "weights_over", "reduction": "reduction"},
    ),
    "relaxed_boundary": LossEntry(
        relaxed_boundary_loss,
        "class-weighted -log of the probability of all labels around a pixel",
        normalize=None,
        options={
            "bound": "wt_bound",
            "window": "border_window",
            "relaxed": "relaxed",
            "strict_classes": "strict_classes",
            "boundary_weight": "boundary_weight",
            "reduction": "reduction",
        },
    ),
    "dice": LossEntry(
        dice_loss, "one minus the soft dice of the foreground", normalize=None, binary_only=True
    ),
    "hybrid": LossEntry(hybrid_loss, "half cross entropy, half dice", binary_only=True),
}


@dataclass(frozen=True)
class LossSettings:
    """What losses can be told; each reads what concerns it.

    Attributes:
        normalize: "valid" or "all"; None for the loss's own.
        focal_gamma: exponent of ``focal_loss``.
        focal_alpha: factor of ``focal_loss``.
        alpha: exponent of ``uce``.
        class_weights: (C,), for ``class_weighted_cross_entropy``.
        wt_bound: greatest extra weight of a class where weights follow from its share.
        weights_over: whether the share is of each image or of the batch.
        reduction: over the images, of losses that are a mean of each.
        border_window: distance of the neighbours in ``relaxed_boundary``.
        relaxed: whether its relaxation is on.
        strict_classes: train ids that it does not relax.
        boundary_weight: of boundary pixels once its relaxation is off.
        underfit: how losses of pixels are transformed where their mean is below ``underfit_beta``.
        underfit_beta: least mean loss that is left alone.
        underfit_k: limit or exponent of the transform.
    """

    normalize: Normalize | None = None
    focal_gamma: float = 0.0
    focal_alpha: float = 1.0
    alpha: float = 0.0
    class_weights: Tensor | None = None
    wt_bound: float = 1.0
    weights_over: Literal["image", "batch"] = "image"
    reduction: Reduction = "mean"
    border_window: int = 1
    relaxed: bool = True
    strict_classes: Sequence[int] = ()
    boundary_weight: float = 2.0
    underfit: Literal["off"] | Underfit = "off"
    underfit_beta: float = 0.5
    underfit_k: float = 0.5


def build_loss(name: str, settings: LossSettings = LossSettings()) -> Loss:
    """The loss of that name with its settings filled in.

    Args:
        name: a key of ``LOSSES``.
        settings: of all losses.

    Raises:
        ValueError: if the name is unknown, class weights are missing, or a divisor or a transform
            of the pixels' losses is asked of a loss that has none.
    """
    if name not in LOSSES:
        raise ValueError(f"no loss is called {name!r}; there are {', '.join(LOSSES)}")
    entry = LOSSES[name]
    if settings.normalize is not None and entry.normalize is None:
        raise ValueError(f"{name} has its own divisor: leave out --loss_normalize")
    chosen: dict[str, Any] = {
        keyword: getattr(settings, field) for keyword, field in entry.options.items()
    }
    if "class_weights" in chosen and settings.class_weights is None:
        raise ValueError(f"{name} needs one weight for each class")
    if entry.normalize is not None:
        chosen["normalize"] = settings.normalize or entry.normalize
    if settings.underfit != "off":
        if not entry.pixelwise:
            raise ValueError(underfit_mistake(name))
        chosen["underfit"] = Underfitting(
            settings.underfit, settings.underfit_beta, settings.underfit_k
        )

    def loss(logits: Tensor, labels: Tensor, pixels: Tensor | None = None) -> Tensor:
        """The named function with its settings."""
        assert pixels is not None or entry.reads == "weight", f"{name} needs the uncertainty"
        return entry.function(logits, labels, **{entry.reads: pixels}, **chosen)

    return loss


def underfit_mistake(name: str) -> str:
    """The message for pretended under-fitting of a loss that is no mean over pixels."""
    known = ", ".join(key for key, entry in LOSSES.items() if entry.pixelwise)
    return (
        f"--underfit transforms the losses of pixels, of which {name} is no mean: it goes with"
        f" {known}"
    )
