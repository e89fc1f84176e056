"""Vector scaling (Guo et al. 2017, section 4.2): a weight and a bias for every class."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from uncertainty.calibrators.base import Calibrator, with_logits
from uncertainty.calibrators.pixels import check_pixels, labelled_chunks, warn_of_void
from utils.types import Prediction

RIDGE = 1e-6  # pulls towards the identity what the pixels leave open; makes the optimum unique
TOLERANCE = 1e-14  # squared Newton decrement, in nats
MAX_STEPS = 200


class Vector(Calibrator):
    """Turns the logits z_c into weight_c z_c + bias_c, which can change the predicted class.

    Args:
        weight: (C,) finite.
        bias: (C,) finite.
    """

    kind = "vector"

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        assert weight.shape == bias.shape, "one weight and one bias for every class"
        self.weight = weight
        self.bias = bias
        self.num_classes = len(weight)

    def calibrate(self, prediction: Prediction, images: Tensor) -> Prediction:
        """Scale and shift the logits, and those of each member, class by class."""
        if self.weight.device != prediction.logits.device:
            self.weight = self.weight.to(prediction.logits.device)
            self.bias = self.bias.to(prediction.logits.device)
        weight, bias = self.weight[:, None, None], self.bias[:, None, None]
        members = prediction.member_logits
        return with_logits(
            prediction,
            prediction.logits * weight + bias,
            None if members is None else members * weight + bias,
        )

    def state(self) -> dict[str, Any]:
        """Weights and biases."""
        return {"weight": self.weight.cpu(), "bias": self.bias.cpu()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The calibrator whose ``state`` this is."""
        return cls(state["weight"], state["bias"])


class Objective(NamedTuple):
    """Regularised likelihood at some parameters (2C: the weights, then the biases), float64."""

    value: Tensor  # scalar, nats
    gradient: Tensor  # (2C,)
    hessian: Tensor  # (2C, 2C)


def fit_vector(logits: Tensor, labels: Tensor) -> Vector:
    """The weights and biases of greatest likelihood, by Newton's method with halved steps.

    Minimised is the mean negative log likelihood of softmax(weight * z + bias), which is convex,
    plus RIDGE/2 (|weight - 1|^2 + |bias|^2), RIDGE = 1e-6. The ridge makes the optimum unique: a
    constant added to all biases changes nothing, and pixels that are all right would drive the
    weights to infinity. The sum of the biases is 0 at the optimum. No randomness is involved.

    Args:
        logits: (n, C), finite.
        labels: (n,), void 255.

    Returns:
        The calibrator; the identity, with a warning, when all is void.

    Raises:
        ValueError: for logits that are not finite and labels that are no classes.
    """
    check_pixels(logits, labels)
    classes = logits.shape[1]
    identity = torch.cat([torch.ones(classes), torch.zeros(classes)]).double().to(logits.device)
    if not any(True for _ in labelled_chunks(logits, labels)):
        warn_of_void("vector scaling")
        return Vector(*identity.float().chunk(2))
    parameters, found = identity, objective(logits, labels, identity)
    for _ in range(MAX_STEPS):
        step = torch.linalg.solve(found.hessian, found.gradient)
        decrement = float(found.gradient @ step)
        if decrement < TOLERANCE:
            break
        length = 1.0
        following = objective(logits, labels, parameters - step)
        while following.value > found.value - 0.25 * length * decrement and length > 1e-6:
            length /= 2
            following = objective(logits, labels, parameters - length * step)
        if following.value >= found.value:  # rounding, nothing is left to gain
            break
        parameters, found = parameters - length * step, following
    return Vector(*parameters.float().chunk(2))


def objective(logits: Tensor, labels: Tensor, parameters: Tensor) -> Objective:
    """Value, gradient and Hessian of what ``fit_vector`` minimises, one pass over the pixels.

    With p = softmax(w * z + b) and y one-hot, the gradient by (w, b) is the mean of
    ((p - y) * z, p - y), and the Hessian that of diag(p) over (z, 1) minus the outer product of
    (p * z, p).
    """
    weight, bias = parameters.chunk(2)
    classes = len(weight)
    value = parameters.new_zeros(())
    gradient = torch.zeros_like(parameters)
    diagonal = parameters.new_zeros(3, classes)  # sums of p z^2, p z and p
    outer = parameters.new_zeros(2 * classes, 2 * classes)
    count = 0
    for part, truth in labelled_chunks(logits, labels):
        plain = part.double()
        scaled = plain * weight + bias
        value += F.cross_entropy(scaled, truth, reduction="sum")
        likely = scaled.softmax(1)
        weighted = likely * plain
        surplus = likely - F.one_hot(truth, classes)
        gradient += torch.cat([(surplus * plain).sum(0), surplus.sum(0)])
        diagonal += torch.stack([(weighted * plain).sum(0), weighted.sum(0), likely.sum(0)])
        both = torch.cat([weighted, likely], 1)
        outer += both.T @ both
        count += len(truth)
    squares, products, masses = diagonal.diag_embed()
    blocks = torch.cat([torch.cat([squares, products], 1), torch.cat([products, masses], 1)])
    identity = torch.cat([torch.ones_like(weight), torch.zeros_like(bias)])
    away = parameters - identity
    return Objective(
        value / count + RIDGE / 2 * away.square().sum(),
        gradient / count + RIDGE * away,
        (blocks - outer) / count + RIDGE * torch.eye(2 * classes).to(parameters),
    )
