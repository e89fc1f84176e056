"""Monte Carlo dropout: one network with dropout on, several times, as an ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from engine.fusion import as_members
from engine.predict import Predicts
from network.ensemble import log_mean_softmax
from utils.types import Prediction


class Samples(NamedTuple):
    """The samples of one image, those of one member after the other."""

    logits: Tensor  # (M, 1, C, H, W)
    aux_logits: Tensor | None  # (M, 1, C, H, W), of second heads
    temperatures: Tensor | None  # (M, 1, 1, H, W)
    features: Tensor | None  # (1, D), of the last sample


def by_member(samples: list[Tensor]) -> Tensor:
    """Samples (M, ...) one by one to (M * samples, ...), member by member."""
    return torch.stack(samples, dim=1).flatten(0, 1)


def joined(parts: list[Tensor | None], dim: int) -> Tensor | None:
    """What all images have along one axis, None where they have nothing."""
    known = [part for part in parts if part is not None]
    return torch.cat(known, dim) if known else None


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

    def predict(
        self, images: Tensor, needs: frozenset[str] = frozenset(), at_stride: bool = False
    ) -> Prediction:
        """The mean softmax of all samples, as log, with each sample in ``member_logits``."""
        devices = [images.device] if images.is_cuda else []
        with self._dropping(), torch.random.fork_rng(devices):
            drawn = [self._predict_one(image[None], needs, at_stride) for image in images]
        members = torch.cat([one.logits for one in drawn], dim=1)
        temperatures = joined([one.temperatures for one in drawn], dim=1)
        return Prediction(
            log_mean_softmax(members),
            member_logits=members,
            temperature=None if temperatures is None else temperatures.mean(0),
            member_temperatures=temperatures,
            member_aux_logits=joined([one.aux_logits for one in drawn], dim=1),
            features=joined([one.features for one in drawn], dim=0),
        )

    def _predict_one(self, image: Tensor, needs: frozenset[str], at_stride: bool) -> Samples:
        """What dropout draws for one image (1, 3, H, W)."""
        logits: list[Tensor] = []
        aux_logits: list[Tensor] = []
        temperatures: list[Tensor] = []
        options = {"at_stride": True} if at_stride else {}
        for number in range(self.samples):
            torch.manual_seed(self.seed + number)
            prediction = self.method.predict(image, needs, **options)
            logits.append(as_members(prediction.member_logits, prediction.logits))
            for members, whole, drawn in (
                (prediction.member_aux_logits, prediction.aux_logits, aux_logits),
                (prediction.member_temperatures, prediction.temperature, temperatures),
            ):
                if members is not None:
                    drawn.append(members)
                elif whole is not None:
                    drawn.append(whole[None])
        return Samples(
            by_member(logits),
            by_member(aux_logits) if aux_logits else None,
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
