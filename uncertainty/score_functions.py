"""What each score computes: of one network's prediction, or by comparing members.

Each function takes a ``Prediction`` and returns (N, H, W), float32, on the device of its logits
and outside the graph, higher where more uncertain; it is to be read only. Those of one network do
not look at members: ``uncertainty.combination`` makes them scores of ensembles. The first line of
a docstring is the score's line in ``--list scores``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from uncertainty.combination import mean_map, mean_prob, member_scores
from uncertainty.entropy import softmax_entropy
from uncertainty.instance import instance_uncertainty
from uncertainty.logit_maps import log_sum_exp, top_logit
from uncertainty.response_variance import argmax_uncertainty
from uncertainty.statistics import ClassMoments
from utils.class_map import BLOCK_PIXELS
from utils.softmax import most_likely, probabilities, top_class
from utils.types import HEADS, Prediction

MEMBERS = frozenset({"member_logits"})
TEMPERATURE = frozenset({"temperature"})
# The rules that make sense for a score, the first of which is its default.
OF_SOFTMAX = ("mean_prob", "mean_score", "mean_logit", "deviation")
OF_LOGITS = ("mean_score", "mean_logit", "deviation")


def entropy(prediction: Prediction) -> Tensor:
    """Entropy of the predictive distribution, from 0 to log C nats."""
    return softmax_entropy(prediction.logits).entropy


def expected_entropy(prediction: Prediction) -> Tensor:
    """Mean over the members of the entropy of each, from 0 to log C nats.

    The part of the predictive entropy that the members share (aleatoric).
    """
    return mean_map(member_scores(lambda _: entropy, prediction))


def mutual_information(prediction: Prediction) -> Tensor:
    """Predictive entropy minus expected entropy, from 0 to log M nats.

    The part that comes from the members' disagreement (epistemic; Houlsby et al. 2011, "BALD").
    It is not negative; what rounding leaves below 0 is 0.
    """
    total = mean_prob(lambda _: entropy, prediction)
    return (total - expected_entropy(prediction)).clamp_(min=0)


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


def abet(prediction: Prediction) -> Tensor:
    """Negative logsumexp of the tempered logits, without the energy's leading T; unbounded.

    -log sum_c exp(g_c / T), AbeT (arXiv 2401.12129), section 4. A network without temperature has
    T = 1: there it is the energy.
    """
    return -log_sum_exp(prediction.logits)


def energy(prediction: Prediction) -> Tensor:
    """Free energy -T log sum_c exp(g_c / T), with T = 1 where none is learned; unbounded.

    Liu et al. 2020; g / T are the tempered logits.
    """
    total = log_sum_exp(prediction.logits)
    if prediction.temperature is None:
        return -total
    return -total * prediction.temperature.detach().float().squeeze(1)


def max_logit(prediction: Prediction) -> Tensor:
    """Negative maximum logit, tempered where a temperature is learned; unbounded.

    Hendrycks et al. 2022.
    """
    return -top_logit(prediction.logits).highest


def godin(prediction: Prediction) -> Tensor:
    """The learned temperature itself, which is to be high on unknown objects.

    Hsu et al. 2020, as the authors of AbeT use it.
    """
    temperature = prediction.temperature
    assert temperature is not None, "refused before: the score declares that it needs it"
    return temperature.detach().float().squeeze(1)


def sml(prediction: Prediction, moments: ClassMoments) -> Tensor:
    """Standardised maximum logit with its sign turned; needs statistics (--fit_score); unbounded.

    -(m - mu_k) / sqrt(var_k) with m = max z and k its class (Jung et al. 2021).

    Args:
        prediction: of one network.
        moments: of its maximum logits on data with known classes.

    Raises:
        ValueError: if the moments are of another number of classes.
    """
    known, classes = len(moments.count), prediction.logits.shape[1]
    if known != classes:
        raise ValueError(
            f"the statistics of sml are of {known} classes and this prediction of {classes}: make "
            "them again with --fit_score"
        )
    found = top_logit(prediction.logits)
    device, index = found.highest.device, found.classes.int()
    mean = moments.mean.float().to(device, non_blocking=True)[index]
    deviation = moments.variance.sqrt().float().to(device, non_blocking=True)[index]
    return mean.sub_(found.highest).div_(deviation)


def member_variance(prediction: Prediction) -> Tensor:
    """Variance of the softmax over the members, the mean over the classes; from 0 to 1/4.

    (1/C) sum_c (1/M) sum_m (p_mc - mean_m p_mc)^2, as Bayesian SegNet (Kendall et al. 2015) maps
    it: the variance of the sample, divided by M, so that one member has none.
    """
    members = prediction.member_logits
    assert members is not None, "refused before: the score declares that it needs members"
    parts = []
    for rows in members.detach().split(max(1, BLOCK_PIXELS // members.shape[-1]), dim=-2):
        likely = rows.float().softmax(2)  # of all members, for some rows only
        # var(0) takes nine times as long
        parts.append(likely.sub_(likely.mean(0)).square_().mean(2).mean(0))
    return torch.cat(parts, dim=-2)


def instance(prediction: Prediction) -> Tensor:
    """Mean entropy of the predicted instance that holds the pixel, from 0 to log C nats."""
    return instance_uncertainty(prediction.logits)


def response_scaling(prediction: Prediction) -> Tensor:
    """How easily a pixel changes sides when a class is widened or narrowed; from 0 to 1 an image.

    URN's uncertainty (arXiv 2112.07431) with its scales for VOC and the most likely class as the
    decoder; normalised by image, so that 0 is the least and 1 the greatest of each image.
    """
    pairs = zip(probabilities(prediction.logits), most_likely(prediction.logits), strict=True)
    return torch.stack([argmax_uncertainty(likely, labels) for likely, labels in pairs])


def disagreement(prediction: Prediction) -> Tensor:
    """How far a network's second head is from its main one, in nats; not below 0, unbounded.

    KL(S(main) || S(aux)) of the softmaxes S, the variance V of Zheng and Yang 2021. It compares
    the heads themselves, however they are fused; of members and passes the mean of each head's
    softmax. What rounding leaves below 0 is 0.
    """
    main, aux = prediction.main_logits, prediction.aux_logits
    assert main is not None, "refused before: the score declares that it needs both heads"
    assert aux is not None, "refused before: the score declares that it needs both heads"
    rows = main.shape[-2] if main.is_cuda else max(1, BLOCK_PIXELS // main.shape[-1])
    parts = []
    for first, second in zip(
        main.detach().split(rows, dim=-2), aux.detach().split(rows, dim=-2), strict=True
    ):
        reference, other = first.float().log_softmax(1), second.float().log_softmax(1)
        parts.append(other.sub_(reference).mul_(reference.exp_()).sum(1).neg_().clamp_(min=0))
    return torch.cat(parts, dim=-2)


def one(num_classes: int) -> float:  # noqa: ARG001 - called with the number of classes
    """The greatest probability."""
    return 1.0


@dataclass(frozen=True)
class ScoreKind:
    """A score before a rule, a modifier and statistics are chosen.

    Attributes:
        function: of one network's prediction and, with ``statistics``, its moments; of the whole
            prediction where there are no rules.
        rules: that it may be combined by, the default first; none if it compares members or heads
            itself.
        needs: fields of ``Prediction`` that must be present.
        highest: as of ``Score``.
        published: from the score and the number of classes to the published code's scale.
        statistics: whether it takes moments of the maximum logits.
    """

    function: Callable[..., Tensor]
    rules: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()
    highest: Callable[[int], float] | None = None
    published: Callable[[Tensor, int], Tensor] | None = None
    statistics: bool = False


def published_entropy(values: Tensor, classes: int) -> Tensor:
    """Entropy in [0, 1], 0 where there is only one class."""
    return values / math.log(classes) if classes > 1 else values


KINDS: dict[str, ScoreKind] = {
    kind.function.__name__: kind
    for kind in (
        ScoreKind(entropy, OF_SOFTMAX, highest=math.log, published=published_entropy),
        ScoreKind(expected_entropy, needs=MEMBERS, highest=math.log),
        # log M with fewer members than classes
        ScoreKind(mutual_information, needs=MEMBERS, highest=math.log),
        ScoreKind(msp, OF_SOFTMAX, highest=one, published=lambda values, _: values),
        ScoreKind(margin, OF_SOFTMAX, highest=one),
        ScoreKind(abet, OF_LOGITS, published=lambda values, classes: 1 + values / classes),
        ScoreKind(energy, OF_LOGITS),
        ScoreKind(max_logit, OF_LOGITS, published=lambda values, _: 1 + values / 30),
        ScoreKind(godin, OF_LOGITS, TEMPERATURE, published=lambda values, _: values),
        ScoreKind(
            sml,
            OF_LOGITS,
            published=lambda values, _: 0.3 + values / 10,
            statistics=True,
        ),
        # (1 - 1/M) / C, of members sure of M different classes
        ScoreKind(member_variance, needs=MEMBERS, highest=lambda classes: 1 / classes),
        ScoreKind(instance, OF_SOFTMAX, highest=math.log),
        ScoreKind(response_scaling, OF_SOFTMAX, highest=one),
        ScoreKind(disagreement, needs=HEADS),
    )
}
