"""What class heads see of data: mean features, and a histogram of penultimate activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from utils.distributed import all_reduce_sum
from utils.types import ClassHead

CODE_SHIFT = 15  # bits of a float32 that are dropped: bins are 2^-8 of the activation wide
ZERO_BIN = 1 << (31 - CODE_SHIFT)  # the bin that begins at 0
BINS = 2 * ZERO_BIN
LARGEST_COUNT = 1 << 24  # what float32 counts of histc cannot overrun
HEAD_PARTS = (*ClassHead.__annotations__, "class_weights", "class_features")


@dataclass(frozen=True, eq=False)
class HeadStatistics:
    """What a class head of the network sees.

    Attributes:
        pixels: how many, at the size of the features.
        mean_features: (P,), float64, mean of ``ClassHead.class_features``.
        bins: (K,), int64, ascending codes of the activations that occur, see ``activation_codes``.
        counts: (K,), int64, how many activations each has.
    """

    pixels: int
    mean_features: Tensor
    bins: Tensor
    counts: Tensor

    def percentile(self, share: float) -> float:
        """The activation that ``share`` percent lie below, within 2^-8 of its value.

        Linear between the two nearest in the order of the activations, each of which is placed
        evenly in its bin.

        Args:
            share: in [0, 100].
        """
        last = int(self.counts.sum()) - 1
        place = share / 100 * last
        low, high = self._ordered(int(place)), self._ordered(min(int(place) + 1, last))
        return low + (place - int(place)) * (high - low)

    def _ordered(self, rank: int) -> float:
        """The activation of a rank, from 0 for the least."""
        reached = self.counts.cumsum(0)
        index = int(torch.searchsorted(reached, rank, right=True))
        among = int(self.counts[index])
        inside = (rank + 0.5 - (int(reached[index]) - among)) / among
        edges = torch.stack((self.bins[index], self.bins[index] + 1))
        lower, upper = activation_of_codes(edges).double().tolist()
        return float(lower + inside * (upper - lower))


class HeadSums:
    """Running ``HeadStatistics`` of one head, on its device."""

    def __init__(self, head: ClassHead) -> None:
        channels, device = head.class_weights().shape[1], head.weight.device
        self.head = head
        self.pixels = 0
        self.features = torch.zeros(channels, dtype=torch.float64, device=device)
        self.counts = torch.zeros(BINS, dtype=torch.int64, device=device)

    def hook(self, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Count the features (N, P, h, w) that the head is called with."""
        features = arguments[0].detach()
        self.pixels += features.numel() // features.shape[1]
        with torch.no_grad():
            used = self.head.class_features(features)
        self.features += used.sum((0, 2, 3), dtype=torch.float64)
        codes = activation_codes(features).flatten()
        if codes.is_cuda:  # bincount would wait for the largest code
            for part in codes.split(LARGEST_COUNT):
                self.counts += torch.histc(part.float(), BINS, 0, BINS).long()
        else:
            self.counts += torch.bincount(codes, minlength=BINS)

    def all_reduce(self) -> None:
        """Add up over the processes."""
        pixels = torch.tensor([self.pixels], device=self.counts.device)
        self.pixels = int(all_reduce_sum(pixels))
        all_reduce_sum(self.features)
        all_reduce_sum(self.counts)

    def result(self) -> HeadStatistics:
        """What was counted, on the CPU."""
        counts = self.counts.cpu()
        bins = counts.nonzero().squeeze(1)
        mean = self.features.cpu() / max(self.pixels, 1)
        return HeadStatistics(self.pixels, mean, bins, counts[bins])


def class_heads(network: nn.Module) -> list[ClassHead]:
    """The class heads of a network, in the order of its modules (and so of members).

    Parts are looked up one by one: from Python 3.12 on, ``isinstance`` with a protocol does not
    see parameters of a module, such as ``weight``.
    """
    return [
        cast(ClassHead, module)
        for module in network.modules()
        if all(hasattr(module, part) for part in HEAD_PARTS)
    ]


def activation_codes(activations: Tensor) -> Tensor:
    """Bins of activations, int32 in [0, 2^17): the leading bits of float32, in order of value."""
    bits = activations.float().contiguous().view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative numbers count down
    return (ordered >> CODE_SHIFT) + ZERO_BIN


def activation_of_codes(codes: Tensor) -> Tensor:
    """The least activation of each bin, float32, given int64 codes."""
    ordered = ((codes - ZERO_BIN) << CODE_SHIFT).int()
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
