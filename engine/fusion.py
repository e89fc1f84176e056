"""Means over passes, members and windows of predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from engine.evaluate import LOGIT_FIELDS, MAP_FIELDS
from network.ensemble import log_mean_softmax
from utils.types import HEADS, Prediction


def with_ensemble_mean(prediction: Prediction) -> Prediction:
    """The logits as the log of the members' mean softmax, where there are members."""
    members = prediction.member_logits
    if members is None:
        return prediction
    return prediction._replace(logits=log_mean_softmax(members))


class Fusion:
    """Running mean over passes of one size: of logits, or of the softmax as its log."""

    def __init__(self, fuse: str) -> None:
        self.fuse = fuse
        self.count = 0
        self.total: dict[str, Tensor] = {}

    def add(self, prediction: Prediction) -> None:
        """Take in one pass."""
        self.count += 1
        for name, value in _present(prediction):
            if name not in self.total:
                self.total[name] = value
            elif self._in_probs(name):
                if self.count == 2:
                    self.total[name] = self.total[name].log_softmax(-3)
                self.total[name] = torch.logaddexp(self.total[name], value.log_softmax(-3))
            else:
                self.total[name] = self.total[name] + value

    def result(self) -> Prediction:
        """The mean; a single pass as it came."""
        if self.count == 1:
            return Prediction(**self.total)
        return Prediction(
            **{
                name: value - math.log(self.count) if self._in_probs(name) else value / self.count
                for name, value in self.total.items()
            }
        )

    def _in_probs(self, name: str) -> bool:
        return self.fuse == "probs" and name in LOGIT_FIELDS


class Members:
    """Passes of one size as members of an ensemble, all passes of each member together."""

    def __init__(self) -> None:
        self.passes: list[Prediction] = []

    def add(self, prediction: Prediction) -> None:
        """Take in one pass."""
        self.passes.append(prediction)

    def result(self) -> Prediction:
        """All members with the mean of what belongs to the whole; a single pass as it came."""
        first = self.passes[0]
        if len(self.passes) == 1:
            return first
        logits = by_member([as_members(one.member_logits, one.logits) for one in self.passes])
        temperatures = None
        if first.temperature is not None:
            temperatures = by_member(
                [
                    as_members(one.member_temperatures, one.temperature)
                    for one in self.passes
                    if one.temperature is not None
                ]
            )
        features = [one.features for one in self.passes if one.features is not None]
        heads = {
            name: log_mean_softmax(torch.stack([getattr(one, name) for one in self.passes]))
            for name in HEADS
            if getattr(first, name) is not None
        }
        return Prediction(
            log_mean_softmax(logits),
            member_logits=logits,
            temperature=None if temperatures is None else temperatures.mean(0),
            member_temperatures=temperatures,
            features=torch.stack(features).mean(0) if features else None,
            **heads,
        )


def by_member(passes: Sequence[Tensor]) -> Tensor:
    """Maps (M, ...) of each of P passes as (M P, ...): all passes of a member, then the next's."""
    return torch.stack(tuple(passes), 1).flatten(0, 1)


def as_members(members: Tensor | None, whole: Tensor) -> Tensor:
    """Maps of members (M, N, ...), or those of the only one (N, ...) as such."""
    return whole[None] if members is None else members


class WindowMean:
    """Sums of windows and how many cover each pixel.

    Args:
        images: (N, 3, H, W), of which the windows are parts.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = len(images)
        self.size = images.shape[-2:]
        self.covered = images.new_zeros(self.size)
        self.windows = 0
        self.total: dict[str, Tensor] = {}

    def add(self, prediction: Prediction, places: Sequence[tuple[int, int]]) -> None:
        """Take in the windows at these places, (top, left), all images of each together."""
        height, width = prediction.logits.shape[-2:]
        spots = [(slice(top, top + height), slice(left, left + width)) for top, left in places]
        self.windows += len(places)
        for spot in spots:
            self.covered[spot] += 1
        for name, value in _present(prediction):
            parts = value.split(self.images, dim=1 if name.startswith("member_") else 0)
            if name not in MAP_FIELDS:  # features: one vector for the whole image
                self.total[name] = self.total.get(name, 0) + torch.stack(parts).sum(0)
                continue
            if name not in self.total:
                self.total[name] = value.new_zeros((*parts[0].shape[:-2], *self.size))
            for part, spot in zip(parts, spots, strict=True):
                self.total[name][..., *spot] += part

    def result(self) -> Prediction:
        """The means."""
        return Prediction(
            **{
                name: value / (self.covered if name in MAP_FIELDS else self.windows)
                for name, value in self.total.items()
            }
        )


def _present(prediction: Prediction) -> Iterator[tuple[str, Tensor]]:
    return (item for item in prediction._asdict().items() if item[1] is not None)
