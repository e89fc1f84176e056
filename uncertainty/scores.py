"""Scores by name: maps of uncertainty from a prediction, higher is more uncertain.

Each function takes a ``Prediction`` and returns (N, H, W), float32, on the device of its logits
and outside the graph. The first line of its docstring is its line in ``--list scores``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from uncertainty.entropy import softmax_entropy
from uncertainty.instance import instance_uncertainty
from utils.softmax import most_likely, probabilities, top_class
from utils.types import Prediction, Score

MEMBERS = frozenset({"member_logits"})


def entropy(prediction: Prediction) -> Tensor:
    """Entropy of the predictive distribution, from 0 to log C nats."""
    return softmax_entropy(prediction.logits).entropy


def expected_entropy(prediction: Prediction) -> Tensor:
    """Mean over the members of the entropy of each, from 0 to log C nats.

    The part of the predictive entropy that the members share (aleatoric).
    """
    members = member_logits(prediction)
    return torch.stack([softmax_entropy(member).entropy for member in members]).mean(0)


def mutual_information(prediction: Prediction) -> Tensor:
    """Predictive entropy minus expected entropy, from 0 to log M nats.

    The part that comes from the members' disagreement (epistemic; Houlsby et al. 2011, "BALD").
    It is not negative; what rounding leaves below 0 is 0.
    """
    return (entropy(prediction) - expected_entropy(prediction)).clamp_(min=0)


def msp(prediction: Prediction) -> Tensor:
    """One minus the maximum softmax probability, from 0 to 1 - 1/C.

    Hendrycks and Gimpel 2017, with the sign turned.
    """
    return 1 - top_class(prediction.logits).confidence


def margin(prediction: Prediction) -> Tensor:
    """One minus the lead of the most likely class over the second, from 0 to 1.

    1 - (p1 - p2) of the sorted softmax; 0 where there is only one class.
    """
    first = most_likely(prediction.logits)[:, None].long()
    likely = probabilities(prediction.logits).clone()
    lead = likely.gather(1, first)
    return 1 - (lead - likely.scatter_(1, first, 0).amax(1, keepdim=True)).squeeze(1)


def energy(prediction: Prediction) -> Tensor:
    """Negative logsumexp of the logits, the mean over the members of an ensemble; unbounded.

    Liu et al. 2020 at temperature 1. An ensemble's own logits are log probabilities, whose
    logsumexp is 0; therefore the members' scores are averaged.
    """
    if prediction.member_logits is None:
        return -prediction.logits.detach().float().logsumexp(1)
    members = member_logits(prediction)
    return -torch.stack([member.float().logsumexp(1) for member in members]).mean(0)


def member_variance(prediction: Prediction) -> Tensor:
    """Variance of the softmax over the members, the mean over the classes; from 0 to 1/4.

    (1/C) sum_c (1/M) sum_m (p_mc - mean_m p_mc)^2, as Bayesian SegNet (Kendall et al. 2015) maps
    it: the variance of the sample, divided by M, so that one member has none.
    """
    likely = member_logits(prediction).float().softmax(2)
    # var(0) over such large maps takes nine times as long
    return likely.sub_(likely.mean(0)).square_().mean(2).mean(0)


def instance(prediction: Prediction) -> Tensor:
    """Mean entropy of the predicted instance that holds the pixel, from 0 to log C nats."""
    return instance_uncertainty(prediction.logits)


def member_logits(prediction: Prediction) -> Tensor:
    """The logits (M, N, C, H, W) of an ensemble's members, outside the graph."""
    members = prediction.member_logits
    assert members is not None, "refused before: the score declares that it needs members"
    return members.detach()


def one(num_classes: int) -> float:  # noqa: ARG001 - called with the number of classes
    """The greatest probability."""
    return 1.0


SCORES: dict[str, Score] = {
    function.__name__: Score(function.__name__, function, needs=needs, highest=highest)
    for function, needs, highest in (
        (entropy, frozenset[str](), math.log),
        (expected_entropy, MEMBERS, math.log),
        (mutual_information, MEMBERS, math.log),  # log M with fewer members than classes
        (msp, frozenset[str](), one),
        (margin, frozenset[str](), one),
        (energy, frozenset[str](), None),
        (member_variance, MEMBERS, lambda classes: 1 / classes),  # see score_scale
        (instance, frozenset[str](), math.log),
    )
}
