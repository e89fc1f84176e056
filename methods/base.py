"""The contract of a method: how a batch becomes one loss per optimizer."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from datasets.base import SegDataset
from methods.temperature_logs import warn_if_saturated
from metrics.base import StreamingMetric
from metrics.segmentation import SegmentationMetrics
from utils.scheduler import build_scheduler
from utils.types import Batch, Prediction, StepOutput


class Selection(NamedTuple):
    """The validation score by which the best state of a run is chosen.

    Attributes:
        score: its name in the ``total`` of the results.
        title: what the log calls it.
        form: how the log writes it, as ``str.format`` reads it.
        metric: from the class names to the metric that reports it.
        higher: whether a higher score is better.
        from_start: whether the state before the first step is scored, too, and can be the best.
    """

    score: str
    title: str
    form: str
    metric: Callable[[Sequence[str]], StreamingMetric]
    higher: bool = True
    from_start: bool = False

    def better(self, value: float | None, best: float | None) -> bool:
        """Whether a score is better than the best so far; None stands for no score."""
        if value is None or best is None:
            return value is not None
        return value > best if self.higher else value < best

    def text(self, value: float | None) -> str:
        """A score for the log, ``n/a`` where nothing was labelled."""
        return "n/a" if value is None else self.form.format(value)


MIOU = Selection("miou", "mIoU", "{:.2f}%", SegmentationMetrics)


class Method(nn.Module):
    """A training rule around one or more networks.

    The train loop calls ``forward``, which is ``training_step``, so that under data parallelism
    the whole step is the forward pass of one wrapped module. State that must survive a restart
    lives in ``state_dict``.
    """

    defaults: ClassVar[dict[str, Any]] = {}  # flag values of the published command
    selection: ClassVar[Selection] = MIOU  # how validation tells the best state
    trains_network: ClassVar[bool] = True  # False: the segmentation network stays as it is
    reads_weights: ClassVar[bool] = False  # whether the loss weighs pixels by the batch's weight
    skips_parameters: ClassVar[bool] = False  # whether a step may leave parameters without gradient

    def __init__(self, opts: Namespace, num_classes: int) -> None:
        super().__init__()
        self.opts = opts
        self.num_classes = num_classes
        self.warned = False  # once is enough

    @classmethod
    def add_flags(cls, group: _ArgumentGroup) -> None:
        """Add the flags that only this method reads."""

    @classmethod
    def check(cls, opts: Namespace) -> Iterable[str]:
        """Problems with the flags, each one sentence that names the fix."""
        return ()

    @classmethod
    def check_training(cls, opts: Namespace) -> Iterable[str]:
        """Problems with what training alone needs, each one sentence that names the fix."""
        return ()

    @classmethod
    def reads_masks(cls, opts: Namespace) -> bool:
        """Whether training reads uncertainty masks from disk as the batch's ``weight``."""
        return False

    @classmethod
    def reads_pseudo_labels(cls, opts: Namespace) -> bool:
        """Whether training reads pseudo labels from disk in place of labels."""
        return False

    @classmethod
    def reads_image_labels(cls, opts: Namespace) -> bool:
        """Whether training reads image-level labels, and no pixel labels."""
        return False

    @classmethod
    def reads_target(cls, opts: Namespace) -> bool:
        """Whether batches carry the images of a target domain."""
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
                optimizer,
                self.opts.lr_policy,
                self.opts.total_itrs,
                self.opts.step_size,
                poly_exp=self.opts.poly_exp,
                epoch_itrs=self.opts.epoch_itrs,
                restart_epoch=self.opts.rlx_off_epoch,
                rescale=self.opts.rescale,
                repoly=self.opts.repoly,
                warm_up=self.opts.warm_up,
                floor=self.opts.lr_floor,
            )
            for name, optimizer in optimizers.items()
        }

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """One loss per optimizer that is to step, from a batch on the device."""
        raise TypeError(f"{type(self).__name__} has no training step")

    def noticed(self, values: Mapping[str, float], step: int) -> None:
        """Look at what was logged since the last print, to warn of what goes wrong."""
        self.warned = self.warned or warn_if_saturated(values, step)

    def forward(self, batch: Batch, step: int) -> StepOutput:
        """Same as ``training_step``, so that data parallelism can wrap the whole step."""
        return self.training_step(batch, step)

    def predict(
        self, images: Tensor, needs: frozenset[str] = frozenset(), at_stride: bool = False
    ) -> Prediction:
        """Predict normalised images at their own size, or at the heads' own resolution.

        Args:
            images: (N, 3, H, W).
            needs: fields that will be read beside the logits.
            at_stride: leave all maps at the resolution of the main head.

        Returns:
            Of two heads the main one's ``logits``, and ``aux_logits`` (of members
            ``member_aux_logits``), which ``engine.fuse_heads`` joins.
        """
        raise TypeError(f"{type(self).__name__} cannot predict")

    def deployable(self) -> nn.Module:
        """The network that a checkpoint's ``model_state`` holds."""
        raise TypeError(f"{type(self).__name__} has no network to deploy")
