"""How the scores of several members become one: members, samples of dropout, fused passes.

A score is written for one network. A rule makes it one for every prediction:

- ``mean_prob``: the score of the mean of the members' softmaxes;
- ``mean_score``: the mean of the members' scores;
- ``mean_logit``: the score of the mean of the members' logits, at their mean temperature;
- ``deviation``: the standard deviation of the members' scores, with M in the divisor.

A prediction without members has the score of its one network under the first three. So has an
ensemble of one, bit for bit: it is never averaged, and its own logits are read rather than the
log of their softmax. The order of the members matters to rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from uncertainty.monte_carlo import running_moments
from utils.types import Prediction

ScoreFunction = Callable[[Prediction], Tensor]
# The score function for a member by its place, and for a joint prediction by None.
FunctionOf = Callable[[int | None], ScoreFunction]
Rule = Callable[[FunctionOf, Prediction], Tensor]


def member_count(prediction: Prediction) -> int:
    """How many members a prediction has, 1 where it comes from a single network."""
    return 1 if prediction.member_logits is None else len(prediction.member_logits)


def members_of(prediction: Prediction) -> Iterator[Prediction]:
    """Each member's own prediction, in their order; a single network's is itself."""
    logits, temperatures = prediction.member_logits, prediction.member_temperatures
    if logits is None:
        yield prediction
        return
    assert prediction.temperature is None or temperatures is not None, "members have their own"
    for place, member in enumerate(logits):
        temperature = None if temperatures is None else temperatures[place]
        yield Prediction(member, temperature=temperature)


def mean_prob(function_of: FunctionOf, prediction: Prediction) -> Tensor:
    """The score of the mean of the members' softmaxes."""
    if member_count(prediction) == 1:
        return function_of(0)(next(members_of(prediction)))
    return function_of(None)(prediction)


def mean_score(function_of: FunctionOf, prediction: Prediction) -> Tensor:
    """The mean of the members' scores."""
    return mean_map(member_scores(function_of, prediction))


def mean_logit(function_of: FunctionOf, prediction: Prediction) -> Tensor:
    """The score of the mean of the members' logits, at their mean temperature."""
    place = 0 if member_count(prediction) == 1 else None
    return function_of(place)(mean_logits(prediction))


def deviation(function_of: FunctionOf, prediction: Prediction) -> Tensor:
    """The standard deviation of the members' scores, with M in the divisor."""
    moments = running_moments(member_scores(function_of, prediction))
    return (moments.squares / moments.maps).sqrt_()


RULES: dict[str, Rule] = {
    rule.__name__: rule for rule in (mean_prob, mean_score, mean_logit, deviation)
}


def member_scores(function_of: FunctionOf, prediction: Prediction) -> Iterator[Tensor]:
    """The score of each member, (N, H, W), made when it is asked for."""
    for place, member in enumerate(members_of(prediction)):
        yield function_of(place)(member)


def mean_logits(prediction: Prediction) -> Prediction:
    """The mean of the members' logits and of their temperatures, of one member its own."""
    members = prediction.member_logits
    if members is None:
        return prediction
    if len(members) == 1:
        return next(members_of(prediction))
    temperature = prediction.temperature
    if prediction.member_temperatures is not None:
        temperature = mean_map(prediction.member_temperatures.detach())
    return Prediction(mean_map(members.detach()), temperature=temperature)


def mean_map(maps: Iterator[Tensor] | Tensor) -> Tensor:
    """The mean of maps of one size, float32, of which one at a time is held; of one, itself."""
    total, count = torch.empty(0), 0
    for count, values in enumerate(maps, start=1):
        if count == 1:
            total = values.float()
        elif count == 2:
            total = total + values  # a new map: the first may be somebody else's
        else:
            total += values
    assert count, "a mean is of at least one map"
    return total if count == 1 else total.div_(count)
