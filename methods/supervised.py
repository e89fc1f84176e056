"""Training on labels: one network, one loss, one optimizer."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from datasets.base import SegDataset
from datasets.statistics import class_weights
from losses import LOSSES, build_loss
from methods.base import Method
from network import build_model
from network.deeplab import SegmentationModel
from utils.log import logger
from utils.types import FEATURES, Batch, Prediction, StepOutput


def build_network(opts: Namespace, num_classes: int) -> SegmentationModel:
    """The network that the flags describe."""
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
    )


def build_optimizer(network: SegmentationModel, opts: Namespace, lr: float) -> Optimizer:
    """The optimizer behind ``--optimizer``; the backbone's rate is ``--backbone_lr_factor`` lr.

    Fused kernels skip an update on the device when its gradients are not finite.
    """
    parts = network.parameter_groups()
    groups = [
        {"params": parts["backbone"], "lr": opts.backbone_lr_factor * lr},
        {"params": parts["classifier"], "lr": lr},
    ]
    if opts.optimizer == "sgd":
        return SGD(groups, lr, momentum=opts.momentum, weight_decay=opts.weight_decay, fused=True)
    kind = {"adam": Adam, "adamw": AdamW}[opts.optimizer]
    return kind(groups, lr, weight_decay=opts.weight_decay, fused=True)


class Supervised(Method):
    """Minimise ``--loss_type`` between the logits and the labels."""

    def __init__(self, opts: Namespace, num_classes: int) -> None:
        super().__init__(opts, num_classes)
        binary_only = LOSSES[opts.loss_type].binary_only
        if binary_only and num_classes != 2:
            raise ValueError(
                f"--loss_type {opts.loss_type} is for two classes; this data set has {num_classes}:"
                " use cross_entropy or focal_loss"
            )
        self.network = build_network(opts, num_classes)
        self.register_buffer("class_weights", None, persistent=False)

    def prepare(self, dataset: SegDataset, cache_dir: Path) -> None:
        """Measure the class weights on the training labels where the loss asks for them."""
        if "class_weights" in LOSSES[self.opts.loss_type].options:
            self.class_weights = class_weights(dataset, cache_dir)
            named = zip(dataset.class_names, self.class_weights.tolist(), strict=True)
            logger.info(
                "class weights: %s", ", ".join(f"{name} {weight:.2f}" for name, weight in named)
            )

    def optimizers(self) -> dict[str, Optimizer]:
        """One optimizer for the network."""
        return {"network": build_optimizer(self.network, self.opts, self.opts.lr)}

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """The loss of one batch."""
        loss = build_loss(
            self.opts.loss_type,
            normalize=self.opts.loss_normalize,
            focal_gamma=self.opts.focal_gamma,
            focal_alpha=self.opts.focal_alpha,
            class_weights=self.class_weights,
        )
        logits = self.network(batch["image"]).logits
        return StepOutput({"network": loss(logits, batch["label"], batch.get("weight"))}, {})

    def predict(self, images: Tensor, needs: frozenset[str] = frozenset()) -> Prediction:
        """The network's logits, and its pooled features where needed."""
        output = self.network(images, pooled_features=FEATURES in needs)
        return Prediction(
            output.logits,
            temperature=output.temperature,
            aux_logits=output.aux_logits,
            features=output.features,
        )

    def deployable(self) -> nn.Module:
        """The network itself."""
        return self.network
