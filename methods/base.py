"""The contract of a method: how a batch becomes one loss per optimizer."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from datasets.base import SegDataset
from utils.scheduler import build_scheduler
from utils.types import Batch, Prediction, StepOutput


class Method(nn.Module):
    """A training rule around one or more networks.

    The train loop calls ``forward``, which is ``training_step``, so that under data parallelism
    the whole step is the forward pass of one wrapped module. State that must survive a restart
    lives in ``state_dict``.
    """

    defaults: ClassVar[dict[str, Any]] = {}  # flag values of the published command
    paired: ClassVar[bool] = False  # whether batches carry a target domain
    skips_parameters: ClassVar[bool] = False  # whether a step may leave parameters without gradient

    def __init__(self, opts: Namespace, num_classes: int) -> None:
        super().__init__()
        self.opts = opts
        self.num_classes = num_classes

    @classmethod
    def add_flags(cls, group: _ArgumentGroup) -> None:
        """Add the flags that only this method reads."""

    @classmethod
    def check(cls, opts: Namespace) -> Iterable[str]:
        """Problems with the flags, each one sentence that names the fix."""
        return ()

    @classmethod
    def reads_masks(cls, opts: Namespace) -> bool:
        """Whether training reads uncertainty masks from disk as the batch's ``weight``."""
        return False

    def members(self) -> dict[str, nn.Module]:
        """Networks of the method that are scored and kept apart as well; none for most."""
        return {}

    def prepare(self, dataset: SegDataset, cache_dir: Path) -> None:
        """Measure what the method needs to know of the training data, before the first step."""

    def optimizers(self) -> dict[str, Optimizer]:
        """The optimizers by name; their parameters are disjoint."""
        raise TypeError(f"{type(self).__name__} has no optimizers")

    def schedules(self, optimizers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        """A learning-rate schedule per optimizer, stepped after every optimizer step."""
        return {
            name: build_scheduler(
                optimizer, self.opts.lr_policy, self.opts.total_itrs, self.opts.step_size
            )
            for name, optimizer in optimizers.items()
        }

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """One loss per optimizer that is to step, from a batch on the device."""
        raise TypeError(f"{type(self).__name__} has no training step")

    def forward(self, batch: Batch, step: int) -> StepOutput:
        """Same as ``training_step``, so that data parallelism can wrap the whole step."""
        return self.training_step(batch, step)

    def predict(self, images: Tensor, needs: frozenset[str] = frozenset()) -> Prediction:
        """Predict normalised images (N, 3, H, W) at their own size."""
        raise TypeError(f"{type(self).__name__} cannot predict")

    def deployable(self) -> nn.Module:
        """The network that a checkpoint's ``model_state`` holds."""
        raise TypeError(f"{type(self).__name__} has no network to deploy")
