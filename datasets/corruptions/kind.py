"""What the fifteen corruptions have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class CorruptionKind:
    """One kind of corruption at five severities.

    Attributes:
        group: ``noise``, ``blur``, ``weather`` or ``digital``, as published.
        description: what it imitates.
        levels: its parameters from severity 1 to 5.
        function: from an image (3, H, W) float32 in [0, 1], one entry of ``levels`` and a CPU
            generator to the corrupted image, which may leave [0, 1].
    """

    group: str
    description: str
    levels: tuple[Any, ...]
    function: Callable[[Tensor, Any, torch.Generator], Tensor]

    def __post_init__(self) -> None:
        assert len(self.levels) == len(SEVERITIES)

    def apply(self, image: Tensor, severity: int, generator: torch.Generator) -> Tensor:
        """Corrupt an image (3, H, W) float32 in [0, 1], at severity 1 to 5; same shape and range.

        The image and the generator are on the CPU.
        """
        return self.function(image, self.levels[severity - 1], generator).clamp(0, 1)
