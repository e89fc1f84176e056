"""Other ways to run a network before a score is read: clipped, sparse, with perturbed images.

Each is the ``run`` of a ``ForwardVariant``. Two that were made with the same values are equal, so
that their scores share one forward pass. What they change in the network they restore, after an
error, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from uncertainty.activations import class_heads
from uncertainty.statistics import ScoreStatistics
from utils.types import ClassHead, Predict, Prediction


@dataclass(frozen=True)
class ClippedActivations:
    """ReAct (Sun et al. 2021): great penultimate activations are cut before the class head.

    The limit of each head is a percentile of the activations that it saw in the statistics. A
    learned temperature reads them uncut.

    Attributes:
        statistics: with what the heads see.
        percentile: in [0, 100].
    """

    statistics: ScoreStatistics
    percentile: float = 90.0

    def __call__(self, predict: Predict, network: nn.Module, images: Tensor) -> Prediction:
        """Predict images (N, 3, H, W) with clipped activations.

        Raises:
            ValueError: if the statistics are of other class heads than the network has.
        """
        heads = fitting_heads(network, self.statistics, "react")
        limits = [head.percentile(self.percentile) for head in self.statistics.heads]
        with changed(heads, "activation_limit", limits):
            return predict(images)


@dataclass(frozen=True)
class SparseWeights:
    """DICE (Sun and Li 2022): the class head keeps the weights that contribute most.

    The contribution of a weight is its product with the mean feature that it multiplies; those
    above a percentile over all classes and channels are kept.

    Attributes:
        statistics: with what the heads see.
        percentile: in [0, 100].
    """

    statistics: ScoreStatistics
    percentile: float = 90.0

    def __call__(self, predict: Predict, network: nn.Module, images: Tensor) -> Prediction:
        """Predict images (N, 3, H, W) with sparse class weights.

        Raises:
            ValueError: if the statistics are of other class heads than the network has.
        """
        heads = fitting_heads(network, self.statistics, "dice")
        means = [head.mean_features for head in self.statistics.heads]
        masks = [
            contributing_weights(head, mean, self.percentile)
            for head, mean in zip(heads, means, strict=True)
        ]
        with changed(heads, "weight_mask", masks):
            return predict(images)


@dataclass(frozen=True)
class PerturbedImages:
    """Input perturbation of ODIN (Liang et al. 2018): images step towards their own prediction.

    x + (epsilon / std) sign(d/dx sum over the pixels of log max_c softmax(z)_c), one image at a
    time, and the plain forward pass of the result. Of an ensemble it is the mean softmax. One
    epsilon serves all data; the published code chooses it by the data set that is scored.

    Attributes:
        epsilon: of images in [0, 1].
        std: that normalised images were divided by, one for each channel.
    """

    epsilon: float
    std: tuple[float, ...]

    def __call__(self, predict: Predict, network: nn.Module, images: Tensor) -> Prediction:
        """Predict images (N, 3, H, W) after their step."""
        step = self.epsilon / torch.tensor(self.std).view(-1, 1, 1)
        signs = torch.cat([ascent(predict, image) for image in images.split(1)])
        return predict(images + step.to(images, non_blocking=True) * signs)


def ascent(predict: Predict, images: Tensor) -> Tensor:
    """Sign of the gradient that raises the log of the greatest probability of the pixels.

    Args:
        predict: whose result depends on the images by differentiable operations.
        images: (N, 3, H, W).

    Returns:
        Like the images, -1, 0 or 1; no gradient is left on the network's parameters.
    """
    with torch.enable_grad():
        seen = images.detach().clone().requires_grad_()
        logits = predict(seen).logits.float()
        likelihood = (logits.amax(1) - logits.logsumexp(1)).sum()
        (gradient,) = torch.autograd.grad(likelihood, seen)
    return gradient.sign()


def contributing_weights(head: ClassHead, mean_features: Tensor, percentile: float) -> Tensor:
    """Which weights of a head contribute more than a percentile of all, (C, P) bool.

    Args:
        head: of C classes.
        mean_features: (P,), mean of what the weights multiply.
        percentile: in [0, 100].
    """
    weights = head.class_weights().detach().double()
    contributions = weights * mean_features.to(weights, non_blocking=True)
    return contributions > torch.quantile(contributions, percentile / 100)


def fitting_heads(network: nn.Module, statistics: ScoreStatistics, name: str) -> list[ClassHead]:
    """The class heads of a network that statistics are about.

    Args:
        network: whose heads are to be changed.
        statistics: of as many heads.
        name: of the modifier, for the message.

    Raises:
        ValueError: if number or width of the heads differ, or there is none.
    """
    heads = class_heads(network)
    if not heads:
        raise ValueError(f"{name} changes the class head of a network, and this one has none")
    widths = [head.class_weights().shape[1] for head in heads]
    known = [len(head.mean_features) for head in statistics.heads]
    if widths != known:
        raise ValueError(
            f"the statistics of {name} are of class heads with {known} channels, this network has "
            f"{widths}: make them again from this network with --fit_score"
        )
    return heads


@contextmanager
def changed(heads: Sequence[ClassHead], attribute: str, values: Sequence[Any]) -> Iterator[None]:
    """Give each head its value of an attribute meanwhile."""
    before = [getattr(head, attribute) for head in heads]
    try:
        for head, value in zip(heads, values, strict=True):
            setattr(head, attribute, value)
        yield
    finally:
        for head, value in zip(heads, before, strict=True):
            setattr(head, attribute, value)
