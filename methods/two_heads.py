"""Labels train two heads: classes balanced in the batch, hard pixels chosen, both heads added."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup

import torch
from torch import Tensor, nn

from losses.class_balance import (
    ClassBalance,
    class_counts,
    harder_labels,
    percentile,
    sums_of_map,
    weighted_loss_map,
)
from utils.arguments import at_least, within
from utils.distributed import all_gather, all_reduce_sum, ratio_over_processes, world_size
from utils.types import IGNORE_INDEX, SegOutput


def add_label_flags(group: _ArgumentGroup) -> None:
    """How labels train both heads."""
    add = group.add_argument
    add("--class_balance", action="store_true", help="weigh classes that are small in the batch")
    add("--often_balance", action="store_true", help="also those that were absent of late")
    add("--max_value", type=within(1, 1000), default=2.0, help="weight of a small class")
    add("--small_object_pixels", type=at_least(1), default=4096, help="an image; fewer are small")
    add("--only_hard_label", type=within(0, 100), default=0.0, help="train above this percentile")
    add("--hard_label_scope", choices=("all", "valid"), default="all", help="of that percentile")


class TwoHeadLoss(nn.Module):
    """CE(main, y) + lambda_seg CE(aux, y), each a mean weighted by class, over all processes.

    Args:
        opts: the flags of ``add_label_flags``.
        num_classes: number of classes.
    """

    def __init__(self, opts: Namespace, num_classes: int) -> None:
        super().__init__()
        self.opts = opts
        self.num_classes = num_classes
        self.balance = ClassBalance(
            num_classes,
            opts.max_value,
            often=opts.often_balance,
            small_object_pixels=opts.small_object_pixels,
        )

    def class_weights(self, labels: Tensor) -> Tensor:
        """The weight of each class, (C,), from the labels (N, H, W) of all processes.

        With ``--often_balance`` the running vector takes a step.
        """
        if not self.opts.class_balance:
            return torch.ones(self.num_classes, device=labels.device)
        counts = all_reduce_sum(class_counts(labels, self.num_classes))
        weights: Tensor = self.balance(counts, len(labels) * world_size())
        return weights

    def forward(self, output: SegOutput, labels: Tensor, class_weights: Tensor) -> Tensor:
        """The loss of both heads on labels (N, H, W)."""
        assert output.aux_logits is not None, "a network with two heads"
        main = self.cross_entropy(output.logits, labels, class_weights)
        aux = self.cross_entropy(output.aux_logits, labels, class_weights)
        return main + self.opts.lambda_seg * aux

    def cross_entropy(self, logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
        """The weighted mean over the labelled pixels, or over the hardest of them."""
        loss = weighted_loss_map(logits, labels, class_weights)
        if self.opts.only_hard_label:
            labels = self.hardest(loss, labels)
        return ratio_over_processes(*sums_of_map(loss, labels, class_weights))

    def hardest(self, loss: Tensor, labels: Tensor) -> Tensor:
        """The labels (N, H, W), void where the loss is below the percentile of all processes."""
        valid = None
        if self.opts.hard_label_scope == "valid":
            valid = all_gather(labels != IGNORE_INDEX)
        threshold = percentile(all_gather(loss.detach()), self.opts.only_hard_label, valid=valid)
        return harder_labels(loss, labels, threshold)
