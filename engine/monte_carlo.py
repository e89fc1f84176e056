"""Monte Carlo dropout: one network with dropout on, several times, as an ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from engine.predict import Predicts, as_members
from network.ensemble import log_mean_softmax
from utils.types import Prediction


class Samples(NamedTuple):
    """The samples of one image, those of one member after the other."""

    logits: Tensor  # (M, 1, C, H, W)
    temperatures: Tensor | None  # (M, 1, 1, H, W)
    features: Tensor | None  # (1, D), of the last sample


def by_member(samples: list[Tensor]) -> Tensor:
    """Samples (M, ...) one by one to (M * samples, ...), member by member."""
    return torch.stack(samples, dim=1).flatten(0, 1)


class MonteCarloDropout:
    """Predicts with dropout on, ``samples`` times for each image (Gal and Ghahramani 2016).

    A sample draws the same noise for every image, which is predicted by itself, so a prediction
    depends neither on its batch nor on the order. An ensemble gives ``samples`` for each member,
    one member after the other.

    Args:
        method: predicts; only its network's dropout changes mode, and only meanwhile.
        network: the method's deployable network.
        samples: at least 1.
        seed: of the noise; the global generators are left as they are.

    Raises:
        ValueError: if the network has no dropout.
    """

    def __init__(self, method: Predicts, network: nn.Module, samples: int, seed: int) -> None:
        self.method = method
        self.samples = samples
        self.seed = seed
        self.dropouts = [
            module for module in network.modules() if isinstance(module, _DropoutNd) and module.p
        ]
        if not self.dropouts:
            raise ValueError("--mc_samples draws from dropout, and this network has none")

    def predict(self, images: Tensor, needs: frozenset[str] = frozenset()) -> Prediction:
        """The mean softmax of all samples, as log, with each sample in ``member_logits``."""
        devices = [images.device] if images.is_cuda else []
        with self._dropping(), torch.random.fork_rng(devices):
            drawn = [self._predict_one(image[None], needs) for image in images]
        members = torch.cat([one.logits for one in drawn], dim=1)
        features = [one.features for one in drawn if one.features is not None]
        temperatures = [one.temperatures for one in drawn if one.temperatures is not None]
        joint = torch.cat(temperatures, dim=1) if temperatures else None
        return Prediction(
            log_mean_softmax(members),
            member_logits=members,
            temperature=None if joint is None else joint.mean(0),
            member_temperatures=joint,
            features=torch.cat(features) if features else None,
        )

    def _predict_one(self, image: Tensor, needs: frozenset[str]) -> Samples:
        """What dropout draws for one image (1, 3, H, W)."""
        logits: list[Tensor] = []
        temperatures: list[Tensor] = []
        for number in range(self.samples):
            torch.manual_seed(self.seed + number)
            prediction = self.method.predict(image, needs)
            logits.append(as_members(prediction.member_logits, prediction.logits))
            if prediction.temperature is not None:
                temperatures.append(
                    as_members(prediction.member_temperatures, prediction.temperature)
                )
        return Samples(
            by_member(logits),
            by_member(temperatures) if temperatures else None,
            prediction.features,
        )

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        modes = [module.training for module in self.dropouts]
        for module in self.dropouts:
            module.train()
        try:
            yield
        finally:
            for module, mode in zip(self.dropouts, modes, strict=True):
                module.train(mode)
