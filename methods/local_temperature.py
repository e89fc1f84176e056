"""Local temperature scaling: a head that learns a temperature of each pixel of a frozen network."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler

from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD
from methods.base import Method, Selection
from metrics.likelihood import ImageLikelihood, image_nll
from uncertainty.calibrators import LocalTemperature, LocalTemperatureHead
from uncertainty.calibrators.local import FLOORS, INITS, READS, denormalised
from utils.arguments import at_least, within
from utils.distributed import world_size
from utils.types import Batch, Predict, Prediction, StepOutput

HIGHEST_LOGIT = torch.finfo(torch.float16).max
NLL = Selection("nll", "NLL", "{:.5f}", lambda _: ImageLikelihood(), higher=False, from_start=True)

WRONG_USE = (
    "--method local_temperature trains the head of a calibrator, not a network: give the network as"
    " --ckpt, fit with --fit_calibrator local and use what that writes with --calibrator"
)


class LogitStore:
    """Logits of images in host memory, float16, as long as they fit.

    Args:
        gigabytes: limit (1e9 bytes); what comes after is not kept.
    """

    def __init__(self, gigabytes: float) -> None:
        self.free = int(gigabytes * 1e9)
        self.kept: dict[str, Tensor] = {}

    def add(self, name: str, logits: Tensor) -> None:
        """Keep the logits (C, H, W) float16 of an image if there is room, without waiting."""
        size = logits.numel() * logits.element_size()
        if size > self.free:
            return
        self.free -= size
        # Copies from and to pinned memory are in the order of the stream, so a later read is safe.
        place = torch.empty_like(logits, device="cpu", pin_memory=logits.is_cuda)
        self.kept[name] = place.copy_(logits, non_blocking=True)

    def get(self, name: str, device: torch.device) -> Tensor | None:
        """The logits of an image on a device, None if they are not kept."""
        kept = self.kept.get(name)
        return None if kept is None else kept.to(device, non_blocking=True)


class LocalTemperatureScaling(Method):
    """Minimise the cross entropy of z / T, where z is a frozen network's and T the head's.

    Ding et al. 2021, as the reliability study trains it: each image's mean over its labelled
    pixels, gradients summed over the images of an optimizer step, Adam at a constant rate, the
    state of the least validation likelihood kept. An image without a label adds nothing, where
    the published program's loss becomes NaN.

    The network is no submodule: it is never trained, stays in evaluation mode and is in no
    checkpoint. Its logits are rounded to float16, whether they are kept or computed again.

    Args:
        opts: the flags.
        num_classes: of the network.
        segmenter: the trained network; put into evaluation mode, its parameters are frozen.
        segment: how it is run over images, None for its ``predict``.

    Raises:
        ValueError: if there is no network.
    """

    selection: ClassVar[Selection] = NLL
    trains_network: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {
        "batch_size": 4,
        "accumulate": 4,
        "lr": 1e-4,
        "optimizer": "adam",
        "weight_decay": 0.0,
    }

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        opts: Namespace,
        num_classes: int,
        segmenter: Method | None = None,
        segment: Predict | None = None,
    ) -> None:
        super().__init__(opts, num_classes)
        if segmenter is None:
            raise ValueError(WRONG_USE)
        self._segmenter = (segmenter.eval().requires_grad_(False),)  # a tuple is no submodule
        self.segment: Predict = segment or segmenter.predict
        self.head = LocalTemperatureHead(
            num_classes,
            reads=opts.lts_reads,
            init_t=opts.lts_init_t,
            init=opts.lts_init,
            floor=opts.lts_floor,
            seed=opts.random_seed,
        )
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD), persistent=False)
        self.calibrator = LocalTemperature(self.head, IMAGENET_MEAN, IMAGENET_STD)
        self.store = LogitStore(opts.lts_cache_gb)

    @classmethod
    def add_flags(cls, group: _ArgumentGroup) -> None:
        """Head, data and cache of the fit."""
        add = group.add_argument
        add("--lts_reads", choices=READS, default="both", help="what the head sees")
        add("--lts_init_t", type=within(0.1, 10), default=2.0, help="first T; corrected: 1")
        add("--lts_init", choices=INITS, default="zero", help="weights; zero: published")
        add("--lts_floor", choices=FLOORS, default="original", help="least T: 1e-8, clamp: 0.05")
        add("--lts_epochs", type=at_least(1), default=10, help="at most")
        add("--lts_images", type=at_least(2), default=500, help="at most, drawn by seed")
        add("--lts_validation_share", type=within(0, 1), default=0.2, help="of these images")
        add("--lts_cache_gb", type=within(0, 1e6), default=4.0, help="logits kept in host memory")

    @classmethod
    def check(cls, opts: Namespace) -> Iterable[str]:
        """The method is chosen by ``--fit_calibrator`` alone."""
        if opts.fit_calibrator != "local":
            yield WRONG_USE

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Move the frozen network along."""
        self._segmenter[0].to(*args, **kwargs)
        return super().to(*args, **kwargs)

    def optimizers(self) -> dict[str, Optimizer]:
        """Adam for the head, with its default betas."""
        return {
            "head": Adam(
                self.head.parameters(),
                self.opts.lr,
                weight_decay=self.opts.weight_decay,
                fused=True,
            )
        }

    def schedules(self, optimizers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        """A constant learning rate."""
        return {name: ConstantLR(each, factor=1.0) for name, each in optimizers.items()}

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """The sum over the images of their mean cross entropies.

        The loop takes the mean over micro-batches and processes, so the loss is multiplied by
        their number: a step's gradient is the sum over all of its images.
        """
        logits = self.frozen_logits(batch)
        temperature = self.head(logits, denormalised(batch["image"], self.mean, self.std))
        losses = image_nll(logits / temperature, batch["label"])
        total = losses.sum() * (self.opts.accumulate * world_size())
        logs = {"nll": losses.mean(), "temperature": temperature.mean()}
        return StepOutput({"head": total}, {name: value.detach() for name, value in logs.items()})

    @torch.no_grad()
    def frozen_logits(self, batch: Batch) -> Tensor:
        """The network's logits (N, C, H, W), float32 holding values of float16; kept by image id.

        Images are predicted one by one and outside training's autocast, so that no value depends
        on which of them are kept.
        """
        logits = []
        for index, name in enumerate(batch["id"]):
            image = batch["image"][index : index + 1]
            known = self.store.get(name, image.device)
            if known is None:
                with torch.autocast(image.device.type, enabled=False):
                    fresh = self.segment(image).logits[0]
                known = fresh.clamp(-HIGHEST_LOGIT, HIGHEST_LOGIT).to(torch.float16)
                self.store.add(name, known)
            logits.append(known.float())
        return torch.stack(logits)

    def uncalibrated(self, batch: Batch) -> Prediction:
        """The network's prediction of a batch on the device, from kept logits."""
        return Prediction(self.frozen_logits(batch))

    def calibrated(self, batch: Batch) -> Prediction:
        """The calibrated prediction of a batch on the device, from kept logits."""
        return self.calibrator(self.uncalibrated(batch), batch["image"])

    @torch.no_grad()
    def predict(
        self,
        images: Tensor,
        needs: frozenset[str] = frozenset(),
        at_stride: bool = False,  # in vain: a temperature is one of the images' pixels
    ) -> Prediction:
        """The network's prediction, calibrated, at the size of the images."""
        return self.calibrator(self.segment(images, needs), images)

    def deployable(self) -> nn.Module:
        """The head."""
        return self.head
