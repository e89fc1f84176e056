"""Training of class activation maps on image-level labels alone."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from datasets.base import SegDataset
from losses.image_labels import (
    background_loss,
    classification_loss,
    cross_loss,
    equivariance_loss,
    normalised_maps,
)
from methods.base import Method
from methods.supervised import build_network, predicted
from network import CAM_MODELS
from network.backbone.base import BATCH_NORMS
from network.cam import CamNetwork
from network.upsampling import upsample
from utils.arguments import at_least, within
from utils.log import logger
from utils.types import Batch, Prediction, StepOutput

NEW_LAYERS = 10  # times the rate of the backbone, as published
BIASES = 2  # times the rate of the weights beside them
_OPTIMIZERS = {"adam": Adam, "adamw": AdamW, "sgd": SGD}
OF_HEADS = ("head", "temperature", "aux_head", "separable_conv")


class Cam(Method):
    """Train a classifier whose maps say where the classes of an image are.

    With x_2 a smaller copy of the images x_1 the loss is SEAM's (CVPR 2020), as "Pseudo-mask
    Matters" (ICCV 2021) trains it: classification and background, each the mean of both views,
    + equivariance + cross (``losses.image_labels``). Where a data set has no background class
    every pixel shows some foreground, and the background loss is left out.
    ``--cam_consistency none`` is the classification loss of x_1 alone, without the refinement of
    the maps. Pixel labels are never read.

    The published optimizer passed the weight decay as its momentum: what its --lr 0.02 did takes
    ``--momentum 0.0005``. The default is 0.9 with a rate that moves weights as far, a tenth.

    Args:
        opts: the flags.
        num_classes: number of classes, the background included.
        network: in place of the one that the flags describe.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "model": "cam_mobilenet",
        "output_stride": 8,
        "optimizer": "sgd",
        "lr": 0.002,
        "weight_decay": 5e-4,
        "val_split": "none",  # which would read pixel labels to choose a state
    }

    def __init__(
        self, opts: Namespace, num_classes: int, network: CamNetwork | None = None
    ) -> None:
        super().__init__(opts, num_classes)
        built = network or build_network(opts, num_classes)
        assert isinstance(built, CamNetwork), "checked by the flags"
        self.network = built
        if opts.cam_consistency == "none":
            self.network.correlation = None  # nothing would train it
        for part in self.fixed_parts():
            part.requires_grad_(requires_grad=False)

    @classmethod
    def add_flags(cls, group: _ArgumentGroup) -> None:
        """What is compared, and what of the backbone stays as it is."""
        add = group.add_argument
        add(
            "--cam_consistency",
            choices=("none", "seam"),
            default="seam",
            help="of two views and of raw and refined maps; none: classification alone",
        )
        add("--cam_view_scale", type=within(0.01, 1), default=0.3, help="size of the second view")
        add(
            "--cam_norm",
            choices=("frozen", "trained"),
            default="frozen",
            help="batch norms; frozen: stored statistics, weights as they are",
        )
        add(
            "--cam_frozen_stages",
            type=at_least(0),
            default=1,
            help="first stages of the backbone that stay as they are, the stem with the first",
        )

    @classmethod
    def check(cls, opts: Namespace) -> Iterable[str]:
        """The network must give activation maps."""
        if opts.model not in CAM_MODELS:
            yield (
                f"--method cam trains class activation maps, which --model {opts.model} has not:"
                " take --model cam_mobilenet or another cam_ model"
            )

    @classmethod
    def check_training(cls, opts: Namespace) -> Iterable[str]:
        """Flags of other heads, losses and rates are refused; the second view has some pixels."""
        for flag in OF_HEADS:
            if flag in opts.typed:
                yield f"--{flag} is of segmentation heads, which a cam_ model has not: leave it out"
        if opts.loss_type != "cross_entropy":
            yield "--method cam has its own losses: leave --loss_type out"
        if "backbone_lr_factor" in opts.typed:
            yield (
                f"--method cam trains the backbone at --lr and new layers at {NEW_LAYERS} times"
                " that: leave --backbone_lr_factor out"
            )
        if opts.lr_repeat == "faithful":
            yield "--lr_repeat faithful is of MRNet's backbone: leave it out with --method cam"
        if opts.cam_consistency == "none":
            if "cam_view_scale" in opts.typed:
                yield "--cam_view_scale is of the second view, which --cam_consistency none has not"
            return
        side = int(min(opts.crop_size) * opts.cam_view_scale)
        if side <= opts.output_stride:
            yield (
                f"--cam_view_scale {opts.cam_view_scale:g} makes a second view of {side} pixels of"
                f" --crop_size {opts.crop_size[0]}x{opts.crop_size[1]}, a single one at"
                f" --output_stride {opts.output_stride}: take a larger crop or view"
            )

    @classmethod
    def reads_image_labels(cls, opts: Namespace) -> bool:
        """Always, in place of pixel labels."""
        return True

    def fixed_parts(self) -> list[nn.Module]:
        """Modules that are not trained and stay in evaluation mode: first stages, batch norms.

        Raises:
            ValueError: if there are fewer stages.
        """
        stages = self.network.backbone.stages()
        count = self.opts.cam_frozen_stages
        if count > len(stages):
            raise ValueError(
                f"--cam_frozen_stages {count}: the backbone of --model {self.opts.model} has"
                f" {len(stages)}"
            )
        parts = [module for _, modules in stages[:count] for module in modules]
        if self.opts.cam_norm == "frozen":
            parts += [part for part in self.network.modules() if isinstance(part, BATCH_NORMS)]
        return parts

    def train(self, mode: bool = True) -> Self:
        """Training mode for all but the fixed parts."""
        super().train(mode)
        for part in self.fixed_parts():
            part.eval()
        return self

    def prepare(self, dataset: SegDataset, cache_dir: Path) -> None:
        """Take the data set's background; warn where what stays as it is has random weights.

        Raises:
            ValueError: if the backbone cannot take images as small as one of the views.
        """
        opts = self.opts
        scale = 1.0 if opts.cam_consistency == "none" else opts.cam_view_scale
        side, least = int(min(opts.crop_size) * scale), self.network.backbone.smallest_input
        if side < least:
            raise ValueError(
                f"--crop_size {opts.crop_size[0]}x{opts.crop_size[1]} at --cam_view_scale"
                f" {scale:g} has {side} pixels on a side, and the backbone of --model {opts.model}"
                f" needs {least}: take a larger crop or view"
            )
        self.network.set_background(dataset.background)  # --ckpt may have brought another
        random = opts.pretrained_backbone == "none" and opts.init is None and opts.ckpt is None
        if random and self.fixed_parts():
            logger.warning(
                "frozen parts of the backbone keep random weights: with --pretrained_backbone none"
                " add --cam_frozen_stages 0 --cam_norm trained"
            )

    def optimizers(self) -> dict[str, Optimizer]:
        """One optimizer of four groups: --lr for the backbone, 10 times that for new layers.

        Biases learn at twice the rate and do not decay, as published.
        """
        opts = self.opts
        trained: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                kind = (not name.startswith("backbone."), name.endswith("bias"))
                trained.setdefault(kind, []).append(parameter)
        groups = [
            {
                "params": parameters,
                "lr": opts.lr * (NEW_LAYERS if new else 1) * (BIASES if bias else 1),
                "weight_decay": 0.0 if bias else opts.weight_decay,
            }
            for (new, bias), parameters in sorted(trained.items())
        ]
        options: dict[str, Any] = {"lr": opts.lr, "fused": True}
        if opts.optimizer == "sgd":
            options |= {"momentum": opts.momentum, "nesterov": opts.nesterov}
        return {"network": _OPTIMIZERS[opts.optimizer](groups, **options)}

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """The sum of the losses of one batch, each of them in the log."""
        if self.opts.cam_consistency == "none":
            images, labels = batch["image"], batch["image_labels"]
            raw = self.network.raw_maps(images, images.shape[-2:])
            parts = {"classification": classification_loss(raw, labels, self.network.background)}
        else:
            parts = self.two_views(batch["image"], batch["image_labels"])
        logs = {f"loss_{name}": part.detach() for name, part in parts.items()}
        return StepOutput({"network": torch.stack(list(parts.values())).sum()}, logs)

    def two_views(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The losses of images (N, 3, H, W) and a smaller copy, by name.

        Args:
            images: normalised.
            labels: (N, C), 0 or 1.
        """
        background = self.network.background
        size = [max(1, int(side * self.opts.cam_view_scale)) for side in images.shape[-2:]]
        views = (images, upsample(images, size, align_corners=True))
        outputs = [self.network.maps(view, view.shape[-2:]) for view in views]

        def both(losses: list[Tensor]) -> Tensor:
            """The mean of the views' losses."""
            return torch.stack(losses).mean()

        def compared(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
            """The normalised maps of both views at the second view's size."""
            first, second = (normalised_maps(each, labels) for each in maps)
            return upsample(first, size, align_corners=True), second

        raw = compared([output.raw for output in outputs])
        refined = compared([output.refined for output in outputs])
        parts = {
            "classification": both(
                [classification_loss(output.raw, labels, background) for output in outputs]
            ),
            "equivariance": equivariance_loss(*raw, background),
            "cross": cross_loss(raw, refined, background),
        }
        if background is not None:
            parts["background"] = both(
                [background_loss(output.refined, labels, background) for output in outputs]
            )
        return parts

    def predict(
        self, images: Tensor, needs: frozenset[str] = frozenset(), at_stride: bool = False
    ) -> Prediction:
        """The refined maps of the predicted classes as logits, see ``CamNetwork.forward``."""
        return predicted(self.network, images, needs, at_stride)

    def deployable(self) -> nn.Module:
        """The classifier with its refinement of maps."""
        return self.network
