"""Monte Carlo dropout: one network with dropout on, several times, as an ensemble."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from engine.predict import Predicts
from network.ensemble import log_mean_softmax
from utils.types import Prediction


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
        members = torch.cat([members for members, _ in drawn], dim=1)
        features = [prediction.features for _, prediction in drawn]
        known = [feature for feature in features if feature is not None]
        return Prediction(
            log_mean_softmax(members),
            member_logits=members,
            features=torch.cat(known) if known else None,
        )

    def _predict_one(self, image: Tensor, needs: frozenset[str]) -> tuple[Tensor, Prediction]:
        """Samples (M, 1, C, H, W) of one image, and its last prediction."""
        samples = []
        for number in range(self.samples):
            torch.manual_seed(self.seed + number)
            prediction = self.method.predict(image, needs)
            members = prediction.member_logits
            samples.append(prediction.logits[None] if members is None else members)
        return torch.stack(samples, dim=1).flatten(0, 1), prediction

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
