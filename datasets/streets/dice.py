"""Random choices that are the same on every platform."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

RGB = tuple[float, float, float]
Choice = TypeVar("Choice")


class Dice:
    """Random choices from one stream that depends on its entropy alone.

    Only uniform doubles of PCG64 are drawn: their stream is fixed on every platform.
    """

    def __init__(self, *entropy: int) -> None:
        self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        self._drawn: Iterator[float] = iter(())

    def share(self) -> float:
        """Uniform in [0, 1)."""
        for value in self._drawn:
            return value
        self._drawn = iter(self._rng.random(1024).tolist())
        return next(self._drawn)

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.share()

    def whole(self, low: int, high: int) -> int:
        """Uniform over low, ..., high."""
        return low + int((high - low + 1) * self.share())

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.share() < probability

    def pick(self, options: Sequence[Choice]) -> Choice:
        """One of some options."""
        return options[int(len(options) * self.share())]

    def weighted(self, options: dict[Choice, float]) -> Choice:
        """One of some options, by weight."""
        left = self.share() * sum(options.values())
        for option, weight in options.items():
            left -= weight
            if left < 0:
                return option
        return next(reversed(options))

    def tint(self, colour: RGB, spread: float = 0.1) -> RGB:
        """A colour a little brighter or darker, and a little off in hue."""
        factor = self.between(1 - spread, 1 + spread)
        red, green, blue = (c * factor * self.between(0.97, 1.03) for c in colour)
        return red, green, blue
