"""Averaged weights: validated and deployed in place of those that are trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a network's weights and buffers.

    After step t = 1, 2, ... average <- d average + (1 - d) weights, d = min(decay, t / (9 + t)),
    so that a short run is not ruled by its first weights; whole numbers are copied.

    Args:
        network: its present weights are the first average.
        decay: greatest d, in [0, 1].
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = network
        self.decay = decay
        self.state = {
            name: tensor.detach().clone() for name, tensor in network.state_dict().items()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        share = 1 - min(self.decay, step / (9 + step))
        averages, weights = [], []
        for name, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                averages.append(self.state[name])
                weights.append(tensor)
            else:
                self.state[name].copy_(tensor)
        torch._foreach_lerp_(averages, weights, share)

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over the average of a checkpoint, which has the network's names and shapes."""
        for name, tensor in self.state.items():
            tensor.copy_(state[name])

    @contextmanager
    def deployed(self) -> Iterator[dict[str, Tensor]]:
        """The network holds the average inside; the value holds the trained weights then."""
        self._exchange()
        try:
            yield self.state
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, tensor in self.network.state_dict().items():
            kept = tensor.clone()
            tensor.copy_(self.state[name])
            self.state[name].copy_(kept)
