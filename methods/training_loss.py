"""The loss of a training step: ``--loss_type`` with what it knows of the training data."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from torch import Tensor, nn

from datasets.base import SegDataset
from datasets.statistics import class_weights
from losses import LOSSES, build_loss
from utils.log import logger


class TrainingLoss(nn.Module):
    """The loss that the flags name, a function of logits, labels and a map over the pixels.

    Raises:
        ValueError: if the loss is for two classes and there are others.
    """

    def __init__(self, opts: Namespace, num_classes: int) -> None:
        super().__init__()
        self.opts = opts
        self.entry = LOSSES[opts.loss_type]
        if self.entry.binary_only and num_classes != 2:
            raise ValueError(
                f"--loss_type {opts.loss_type} is for two classes; this data set has {num_classes}:"
                " use cross_entropy or focal_loss"
            )
        self.register_buffer("class_weights", None, persistent=False)

    def prepare(self, dataset: SegDataset, cache_dir: Path) -> None:
        """Measure the class weights on the training labels where the loss asks for them."""
        if "class_weights" in self.entry.options:
            self.class_weights = class_weights(dataset, cache_dir)
            named = zip(dataset.class_names, self.class_weights.tolist(), strict=True)
            logger.info(
                "class weights: %s", ", ".join(f"{name} {weight:.2f}" for name, weight in named)
            )
        if self.opts.loss_type == "uce" and self.opts.alpha == 0:
            logger.warning("--loss_type uce with --alpha 0 is cross entropy")

    def forward(self, logits: Tensor, labels: Tensor, pixels: Tensor | None = None) -> Tensor:
        """A scalar from logits (N, C, H, W), labels (N, H, W) and a map (N, H, W).

        The map holds the factor of each pixel, or its uncertainty where the loss reads that.
        """
        loss = build_loss(
            self.opts.loss_type,
            normalize=self.opts.loss_normalize,
            focal_gamma=self.opts.focal_gamma,
            focal_alpha=self.opts.focal_alpha,
            alpha=self.opts.alpha,
            class_weights=self.class_weights,
        )
        return loss(logits, labels, pixels)
