"""Training on labels: one network, one loss, one optimizer."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from datasets import DATASETS
from datasets.base import SegDataset
from methods.base import Method
from methods.repeated_sgd import RepeatedSGD, listed_times
from methods.temperature_logs import temperature_logs
from methods.training_loss import TrainingLoss
from network import TWO_HEADED, Network, PyramidOptions, build_model
from network.backbone.base import frozen_statistics
from network.heads import HeadOptions
from uncertainty.monte_carlo import top_class_deviation
from utils.types import FEATURES, Batch, Prediction, SegOutput, StepOutput

DROPOUT_PASSES = 10  # of the uce loss, as published


def build_network(opts: Namespace, num_classes: int) -> Network:
    """The network that the flags describe."""
    pyramid = PyramidOptions(
        opts.head_norm, opts.use_se, opts.droprate, full_init=opts.head_init == "full"
    )
    return build_model(
        opts.model,
        num_classes,
        output_stride=opts.output_stride,
        pretrained_backbone=opts.pretrained_backbone,
        separable_conv=opts.separable_conv,
        dropout=opts.dropout,
        backbone=opts.backbone,
        bn_momentum=opts.bn_momentum,
        checkpoint_activations=opts.activation_checkpointing,
        head=HeadOptions(
            opts.head, opts.temperature, opts.temperature_floor, fast=opts.fast_cosine
        ),
        pyramid=pyramid if opts.aux_head or opts.model in TWO_HEADED else None,
        freeze_bn=opts.norm_eval,
        background=DATASETS[opts.dataset].background,
    )


def build_optimizer(network: Network, opts: Namespace, lr: float) -> Optimizer:
    """The optimizer behind ``--optimizer``; the backbone's rate is ``--backbone_lr_factor`` lr.

    Fused kernels skip an update on the device when its gradients are not finite.
    """
    parts = network.parameter_groups()
    parts = {name: [p for p in part if p.requires_grad] for name, part in parts.items()}
    groups = [
        {"params": parts["backbone"], "lr": opts.backbone_lr_factor * lr},
        {"params": parts["classifier"], "lr": lr},
    ]
    decay = opts.weight_decay
    if opts.optimizer == "sgd" and opts.lr_repeat == "faithful":
        times = listed_times(network.backbone.children())
        return RepeatedSGD(groups, lr, momentum=opts.momentum, weight_decay=decay, times=times)
    if opts.optimizer == "sgd":
        return SGD(
            groups,
            lr,
            momentum=opts.momentum,
            weight_decay=decay,
            nesterov=opts.nesterov,
            fused=True,
        )
    kind = {"adam": Adam, "adamw": AdamW}[opts.optimizer]
    return kind(groups, lr, weight_decay=decay, fused=True)


def predicted(
    network: nn.Module,
    images: Tensor,
    needs: frozenset[str] = frozenset(),
    at_stride: bool = False,
) -> Prediction:
    """What a network says of images, see ``Method.predict``; pooled features where needed."""
    output: SegOutput = network(images, pooled_features=FEATURES in needs, at_stride=at_stride)
    return Prediction(
        output.logits,
        temperature=output.temperature,
        aux_logits=output.aux_logits,
        features=output.features,
    )


class Supervised(Method):
    """Minimise ``--loss_type`` between the logits and the labels."""

    reads_weights = True

    def __init__(self, opts: Namespace, num_classes: int) -> None:
        super().__init__(opts, num_classes)
        self.loss = TrainingLoss(opts, num_classes)
        self.network = build_network(opts, num_classes)

    @classmethod
    def reads_masks(cls, opts: Namespace) -> bool:
        """Whether the loss weighs pixels by masks that ``--make_uncertainty_masks`` wrote."""
        return bool(opts.loss_type == "uncertainty_cross_entropy")

    def prepare(self, dataset: SegDataset, cache_dir: Path) -> None:
        """Measure on the training labels what the loss asks for."""
        self.loss.prepare(dataset, cache_dir)

    def optimizers(self) -> dict[str, Optimizer]:
        """One optimizer for the network."""
        return {"network": build_optimizer(self.network, self.opts, self.opts.lr)}

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """The loss of one batch."""
        images = batch["image"]
        pixels = batch.get("weight")
        if self.opts.loss_type == "uce":
            pixels = self.dropout_deviation(images)
        output = self.network(images)
        loss = self.loss.of_heads(output, batch["label"], pixels, step=step)
        return StepOutput({"network": loss}, temperature_logs([output], batch["label"]))

    @torch.no_grad()
    def dropout_deviation(self, images: Tensor) -> Tensor:
        """Deviation of the top class's probability over dropout passes, (N, H, W).

        The network is in training mode, as published; its running statistics stay as they are.
        """
        with frozen_statistics([self.network]):
            return top_class_deviation(
                self.network(images).logits.float().softmax(1)
                for _ in range(self.opts.mc_samples or DROPOUT_PASSES)
            )

    def predict(
        self, images: Tensor, needs: frozenset[str] = frozenset(), at_stride: bool = False
    ) -> Prediction:
        """The network's logits, and its pooled features where needed."""
        return predicted(self.network, images, needs, at_stride)

    def deployable(self) -> nn.Module:
        """The network itself."""
        return self.network
