"""The contracts between packages: batches, outputs, predictions, consumers and scores.

Axes are named N (images), C (classes), H and W (rows and columns of pixels), M (ensemble
members) and D (feature channels).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypedDict, runtime_checkable

from torch import Tensor, nn

IGNORE_INDEX = 255


class Batch(TypedDict, total=False):
    """What a loader yields: tensors stacked over the images, texts as lists.

    A paired batch carries the target domain's twins with the prefix ``target_``.
    """

    image: Tensor  # (N, 3, H, W), uint8 until the device, normalised float32 there
    label: Tensor  # (N, H, W), uint8, void 255
    weight: Tensor  # (N, H, W), float32, weight or uncertainty of each pixel
    ood: Tensor  # (N, H, W), uint8: 0 known class, 1 out of distribution, 255 neither
    image_labels: Tensor  # (N, C), float32, 1 where the class is in the image
    id: list[str]
    dataset: list[str]
    scene: list[str]
    condition: list[str]
    target_image: Tensor
    target_label: Tensor
    target_id: list[str]
    target_dataset: list[str]
    target_scene: list[str]
    target_condition: list[str]


class SegOutput(NamedTuple):
    """What a segmentation network returns, at the size of its input."""

    logits: Tensor  # (N, C, H, W), unnormalised
    aux_logits: Tensor | None = None  # (N, C, H, W), of a second head
    temperature: Tensor | None = None  # (N, 1, H, W), of a learned temperature
    features: Tensor | None = None  # (N, D), spatial mean of the last stage, on request


class Prediction(NamedTuple):
    """What evaluation sees, at the size of the label.

    ``softmax(logits)`` is always the predictive distribution: the logits of an ensemble are the
    log of its mean softmax, so ``logsumexp(logits)`` is zero there and energy-like scores read
    ``member_logits``. Of a network with two heads a method gives the main head's ``logits`` with
    ``aux_logits`` (of members ``member_aux_logits``); ``engine.fuse_heads`` joins them.
    """

    logits: Tensor  # (N, C, H, W)
    member_logits: Tensor | None = None  # (M, N, C, H, W)
    temperature: Tensor | None = None  # (N, 1, H, W), of an ensemble the members' mean
    member_temperatures: Tensor | None = None  # (M, N, 1, H, W)
    aux_logits: Tensor | None = None  # (N, C, H, W), the second head, when a consumer needs it
    features: Tensor | None = None  # (N, D), only when a consumer needs them
    main_logits: Tensor | None = None  # (N, C, H, W), the first head, together with the second
    member_aux_logits: Tensor | None = None  # (M, N, C, H, W), until the heads are fused


class StepOutput(NamedTuple):
    """What one training step returns."""

    losses: dict[str, Tensor]  # one scalar per optimizer that steps, under the optimizer's name
    logs: dict[str, Tensor]  # detached scalars, for the log


FEATURES = "features"  # what a consumer can need beside the logits
HEADS = frozenset({"main_logits", "aux_logits"})  # both heads of a network, likewise


class Predict(Protocol):
    """Images to a prediction at the images' size."""

    def __call__(self, images: Tensor, needs: frozenset[str] = frozenset()) -> Prediction:
        """Predict normalised images (N, 3, H, W)."""
        ...


@runtime_checkable
class ClassHead(Protocol):
    """The module of a network that turns penultimate features into one number a class.

    It is called with the features (N, P, h, w) and the size (H, W) of the result. A forward
    variant may change the two attributes, and restores them.
    """

    weight: Tensor  # (C, P, 1, 1)
    activation_limit: float | None  # greater features are cut to it; a temperature sees them uncut
    weight_mask: Tensor | None  # (C, P), bool: the weights that are used; None: all

    def class_weights(self) -> Tensor:
        """The weights (C, P) that features are multiplied by, without ``weight_mask``."""
        ...

    def class_features(self, features: Tensor) -> Tensor:
        """What the weights multiply, (N, P, h, w), given features (N, P, h, w)."""
        ...


@dataclass(frozen=True)
class ForwardVariant:
    """Another way to run the network over a batch than the plain forward pass.

    Attributes:
        name: variants of one name are run once per batch and shared by their consumers.
        run: called with the predict function, the deployable network and the normalised images
            (N, 3, H, W). It may clip activations, switch dropout on, or enable gradients for
            itself and perturb the images; whatever it changes in the network it restores.
    """

    name: str
    run: Callable[[Predict, nn.Module, Tensor], Prediction]


class Consumer(Protocol):
    """Whatever is measured, written or fitted during the evaluation pass."""

    needs: frozenset[str]
    variant: ForwardVariant | None  # None: the plain forward pass

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Take in one batch; the prediction has the size of ``batch["label"]``."""
        ...

    def all_reduce(self) -> None:
        """Add up over the processes; called once, after the last batch."""
        ...

    def compute(self) -> dict[str, Any]:
        """The consumer's results, or an empty dict."""
        ...


@dataclass(frozen=True)
class Score:
    """A map of uncertainty: higher is more uncertain, entropy in nats.

    Attributes:
        name: as typed after a flag.
        function: from a ``Prediction`` to a map (N, H, W), float32.
        variant: the forward pass it reads, None for the plain one.
        needs: fields of ``Prediction`` that must be present, such as ``temperature``.
        highest: the greatest value by the number of classes, where the least is 0; None for a
            score without such limits. The confidence is then 1 - value / highest.
        published: the same order of pixels in the published code's scale, most of it in [0, 1];
            None where there is none.
    """

    name: str
    function: Callable[[Prediction], Tensor]
    variant: ForwardVariant | None = None
    needs: frozenset[str] = frozenset()
    highest: Callable[[int], float] | None = None
    published: Callable[[Prediction], Tensor] | None = None
