"""Learning-rate schedules, stepped after every optimizer step."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

LR_POLICIES = ("poly", "step")


class PolyLR(LRScheduler):
    """lr(t) = max(lr(0) (1 - t / total)^power, floor), the poly policy of DeepLab.

    Args:
        optimizer: the groups keep their ratio of learning rates until the floor is reached.
        total: number of optimizer steps at which the rate would reach zero.
        power: 0.9 in DeepLab.
        floor: least learning rate.
    """

    def __init__(
        self, optimizer: Optimizer, total: int, power: float = 0.9, floor: float = 1e-6
    ) -> None:
        self.total = total
        self.power = power
        self.floor = floor
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of every group at ``last_epoch`` steps."""
        left = max(0.0, 1 - self.last_epoch / self.total) ** self.power
        return [max(base * left, self.floor) for base in self.base_lrs]


def build_scheduler(
    optimizer: Optimizer, policy: str, total_itrs: int, step_size: int
) -> LRScheduler:
    """The schedule behind ``--lr_policy``: poly, or a tenth every ``step_size`` steps."""
    if policy == "poly":
        return PolyLR(optimizer, total_itrs)
    return StepLR(optimizer, step_size, gamma=0.1)
