"""Learning-rate schedules, stepped after every optimizer step."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

LR_POLICIES = ("poly", "poly_floor", "step", "epoch_poly", "scl_poly")
FLOOR = 1e-6  # least rate of both policies by step

WARM_UP_START = 0.1  # of the rate, as published with MRNet


def scale_rates(optimizers: Iterable[Optimizer], factor: float) -> None:
    """Multiply every learning rate; before the schedules are made, which start from them.

    With factor batch / reference batch it is the linear scaling of Goyal et al. 2017
    ("Accurate, Large Minibatch SGD", arXiv 1706.02677). A floor of a schedule stays where it is.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] *= factor


class PolyLR(LRScheduler):
    """lr(t) = max(lr(0) (1 - t / total)^power, floor), the poly policy of DeepLab.

    With a warm-up of w steps lr(t) = lr(0) (0.1 + 0.9 t / w) for t < w: the rate then falls from
    lr(0) to that of the policy at once, as published with MRNet.

    Args:
        optimizer: the groups keep their ratio of learning rates until the floor is reached.
        total: number of optimizer steps at which the rate would reach zero.
        power: 0.9 in DeepLab.
        floor: least learning rate.
        warm_up: w.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total: int,
        power: float = 0.9,
        floor: float = FLOOR,
        warm_up: int = 0,
    ) -> None:
        self.total = total
        self.warm_up = warm_up
        self.power = power
        self.floor = floor
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of every group at ``last_epoch`` steps."""
        if self.last_epoch < self.warm_up:
            rise = WARM_UP_START + (1 - WARM_UP_START) * self.last_epoch / self.warm_up
            return [base * rise for base in self.base_lrs]
        left = max(0.0, 1 - self.last_epoch / self.total) ** self.power
        return [max(base * left, self.floor) for base in self.base_lrs]


class PolyFloorLR(LRScheduler):
    """lr(t) = (lr(0) - floor) (1 - t / total)^power + floor, the poly policy of mmsegmentation.

    It falls strictly and reaches the floor at the end, where ``PolyLR`` is cut off at it.

    Args:
        optimizer: whose groups all end at the floor.
        total: number of optimizer steps at which the rate is the floor; it stays so.
        power: 0.9 as published.
        floor: least learning rate.

    Raises:
        ValueError: if the floor is above a learning rate.
    """

    def __init__(
        self, optimizer: Optimizer, total: int, power: float = 0.9, floor: float = FLOOR
    ) -> None:
        self.total = total
        self.power = power
        self.floor = floor
        least = min(group["lr"] for group in optimizer.param_groups)
        if least < floor:
            raise ValueError(
                f"--lr_floor {floor:g} is above the learning rate {least:g} of some parameters:"
                " give a lower one"
            )
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of every group at ``last_epoch`` steps."""
        left = max(0.0, 1 - self.last_epoch / self.total) ** self.power
        return [(base - self.floor) * left + self.floor for base in self.base_lrs]


class EpochPolyLR(LRScheduler):
    """lr(e) = lr(0) (1 - e / E)^power, constant within an epoch e = 0, 1, ..., E - 1.

    From epoch R = ``restart`` on, if given, lr(0) rescale ((E - e) / (E - R))^repoly: with rescale
    1 a warm restart at the full rate (Zhu et al. 2019, code). R is the first epoch of the second
    part, while the relaxed boundary loss still relaxes in epoch R and stops after it: published
    like this.

    Args:
        optimizer: the groups keep their ratio of learning rates.
        epochs: E, the epoch at which the rate would reach zero; it is zero from there on.
        epoch_itrs: optimizer steps of an epoch.
        power: exponent of the first part.
        restart: R, above 0; None for no restart.
        rescale: factor of the second part.
        repoly: exponent of the second part.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        epochs: int,
        epoch_itrs: int,
        *,
        power: float = 1.0,
        restart: int | None = None,
        rescale: float = 1.0,
        repoly: float = 1.5,
    ) -> None:
        assert epochs > 0
        assert epoch_itrs > 0
        self.epochs = epochs
        self.epoch_itrs = epoch_itrs
        self.power = power
        self.restart = restart
        self.rescale = rescale
        self.repoly = repoly
        super().__init__(optimizer)

    def factor(self, epoch: int) -> float:
        """What the base rates are multiplied by in an epoch."""
        if epoch >= self.epochs:
            return 0.0
        if self.restart is None or epoch < self.restart:
            return (1 - epoch / self.epochs) ** self.power
        left = 1 - (epoch - self.restart) / (self.epochs - self.restart)
        return self.rescale * left**self.repoly

    def get_lr(self) -> list[float | Tensor]:
        """The rate of every group after ``last_epoch`` steps."""
        factor = self.factor(self.last_epoch // self.epoch_itrs)
        return [base * factor for base in self.base_lrs]


def build_scheduler(  # noqa: PLR0913 - an argument per flag
    optimizer: Optimizer,
    policy: str,
    total_itrs: int,
    step_size: int,
    *,
    poly_exp: float | None = None,
    epoch_itrs: int | None = None,
    restart_epoch: int = -1,
    rescale: float = 1.0,
    repoly: float = 1.5,
    warm_up: int = 0,
    floor: float = FLOOR,
) -> LRScheduler:
    """The schedule behind ``--lr_policy``.

    Args:
        optimizer: whose groups get the rates.
        policy: "poly" (``PolyLR``) and "poly_floor" (``PolyFloorLR``) by step, "step" for a tenth
            every ``step_size`` steps, "epoch_poly" by epoch (``EpochPolyLR``), "scl_poly" the same
            with a restart.
        total_itrs: optimizer steps of the run.
        step_size: of "step".
        poly_exp: exponent; None for 0.9 by step and 1 by epoch.
        epoch_itrs: optimizer steps of an epoch, for the policies by epoch; a begun epoch counts.
        restart_epoch: epoch from which "scl_poly" starts anew, above 0.
        rescale: factor after the restart.
        repoly: exponent after the restart.
        warm_up: steps of "poly" in which the rate rises.
        floor: learning rate at the end of "poly_floor".

    Raises:
        ValueError: if "scl_poly" has no epoch to restart at, or the floor is above a rate.
    """
    power = 0.9 if poly_exp is None else poly_exp
    if policy == "poly":
        return PolyLR(optimizer, total_itrs, power, warm_up=warm_up)
    if policy == "poly_floor":
        return PolyFloorLR(optimizer, total_itrs, power, floor)
    if policy == "step":
        return StepLR(optimizer, step_size, gamma=0.1)
    if policy == "scl_poly" and restart_epoch <= 0:
        raise ValueError(
            f"--lr_policy scl_poly restarts at the epoch of --rlx_off_epoch, which is"
            f" {restart_epoch}: give an epoch above 0 (100 in the published Cityscapes run)"
        )
    assert epoch_itrs is not None, f"{policy} needs the number of steps of an epoch"
    return EpochPolyLR(
        optimizer,
        ceil(total_itrs / epoch_itrs),
        epoch_itrs,
        power=1.0 if poly_exp is None else poly_exp,
        restart=restart_epoch if policy == "scl_poly" else None,
        rescale=rescale,
        repoly=repoly,
    )
