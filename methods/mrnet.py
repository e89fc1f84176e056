"""MRNet, stage one of the adaptation to an unlabelled domain: aligned outputs, agreeing heads."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from datasets.base import SegDataset
from losses.adversarial import discriminator_loss, generator_loss, gradient_penalty
from losses.agreement import confidence_weighted_entropy, memory_regularization
from methods.base import Method
from methods.supervised import build_network, build_optimizer, predicted
from methods.two_heads import TwoHeadLoss, add_label_flags
from network import TWO_HEADED
from network.backbone.base import BATCH_NORMS
from network.deeplab import SegmentationModel
from network.discriminator import MultiScaleDiscriminator
from utils.arguments import at_least, within
from utils.log import logger
from utils.scheduler import PolyLR
from utils.types import IGNORE_INDEX, Batch, Prediction, SegOutput, StepOutput

DISCRIMINATOR_BETAS = (0.9, 0.99)
LABELLED = "labelled_share_max"  # in the logs: of the pixels of a batch
ONE_HEAD = "needs a network with two heads: add --aux_head, or take --model deeplab_multi_resnet101"


def add_target_loss_flags(group: _ArgumentGroup) -> None:
    """What unlabelled images of the target domain train."""
    add = group.add_argument
    add("--lambda_adv_target1", type=within(0, 100), default=0.0002, help="auxiliary head")
    add("--lambda_adv_target2", type=within(0, 100), default=0.001, help="main head")
    add("--lr_discriminator", type=within(0, 100), default=1e-4)
    add("--r1_every", type=at_least(1), default=1, help="steps; not published: k with weight k")
    add("--lambda_kl_target", type=within(0, 100), default=0.0, help="memory regularisation")
    add("--mr_target", choices=("fused", "symmetric"), default="fused", help="symmetric: paper")
    add("--mr_start", type=at_least(0), default=15_000, help="its first step")
    add("--lambda_me_target", type=within(0, 100), default=0.0, help="entropy, from the same step")
    add("--train_bn", action="store_true", help="train weight and bias of the backbone's norms")


class MRNet(Method):
    """Train two heads on labels of one domain and let them agree on images of another.

    Zheng and Yang, "Unsupervised Scene Adaptation with Memory Regularization in vivo" (IJCAI
    2020): the loss is L_seg + lambda_adv L_adv of each head + lambda_kl L_mr + lambda_me L_me.
    Each discriminator has an optimizer of its own; one backward pass serves all, since a
    discriminator's loss sees detached predictions and the network's a detached discriminator.

    Args:
        opts: the flags.
        num_classes: number of classes.
        network: in place of the one that the flags describe; it returns ``aux_logits``.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "model": "deeplab_multi_resnet101",
        "optimizer": "sgd",
        "nesterov": True,
        "weight_decay": 5e-4,
        "lr": 2.5e-3,
    }

    def __init__(self, opts: Namespace, num_classes: int, network: nn.Module | None = None) -> None:
        super().__init__(opts, num_classes)
        self.network = network or build_network(opts, num_classes)
        if not opts.train_bn and isinstance(self.network, SegmentationModel):
            freeze_norms(self.network.backbone)
        self.supervised_loss = TwoHeadLoss(opts, num_classes)
        weights = {"aux": opts.lambda_adv_target1, "main": opts.lambda_adv_target2}
        self.adversarial_weights = {name: weight for name, weight in weights.items() if weight}
        self.discriminators = nn.ModuleDict(
            {name: MultiScaleDiscriminator(num_classes) for name in self.adversarial_weights}
        )
        self.warned_of_labels = False

    @classmethod
    def add_flags(cls, group: _ArgumentGroup) -> None:
        """Losses on the labels of one domain and on the images of the other."""
        add_label_flags(group)
        add_target_loss_flags(group)

    @classmethod
    def check_training(cls, opts: Namespace) -> Iterable[str]:
        """Two heads are needed, and a target domain where its images are read."""
        if not (opts.aux_head or opts.model in TWO_HEADED):
            yield f"--method {opts.method} {ONE_HEAD}"
        if opts.optimizer == "sgd" and opts.nesterov and not opts.momentum:
            yield f"--method {opts.method} has Nesterov's momentum: --momentum 0 leaves none"
        if cls.reads_target(opts) and opts.target_dataset is None:
            yield (
                f"--method {opts.method} adapts to unlabelled images: name them with"
                " --target_dataset and --target_root"
            )
        if opts.loss_type != "cross_entropy":
            yield f"--method {opts.method} has its own losses: leave --loss_type out"
        if opts.often_balance and not opts.class_balance:
            yield "--often_balance concerns class weights: add --class_balance"

    @classmethod
    def reads_target(cls, opts: Namespace) -> bool:
        """Always: where no loss reads them, the batch norms do."""
        return True

    def prepare(self, dataset: SegDataset, cache_dir: Path) -> None:
        """Say what will train the heads."""
        if self.opts.only_hard_label == 100:
            logger.warning("--only_hard_label 100 trains on the hardest pixel of a batch alone")

    def optimizers(self) -> dict[str, Optimizer]:
        """One for the network, one for each discriminator."""
        network = build_optimizer(self.network, self.opts, self.opts.lr)  # type: ignore[arg-type]
        rivals = {
            f"discriminator_{name}": Adam(
                rival.parameters(),
                self.opts.lr_discriminator,
                betas=DISCRIMINATOR_BETAS,
                fused=True,
            )
            for name, rival in self.discriminators.items()
        }
        return {"network": network, **rivals}

    def schedules(self, optimizers: dict[str, Optimizer]) -> dict[str, LRScheduler]:
        """The network's from the flags; poly without warm-up for the discriminators."""
        network = super().schedules({"network": optimizers["network"]})
        rivals = {
            name: PolyLR(optimizer, self.opts.total_itrs, floor=0.0)
            for name, optimizer in optimizers.items()
            if name != "network"
        }
        return {**network, **rivals}

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """The network's loss, and that of each discriminator."""
        labels = batch["label"]
        weights = self.supervised_loss.class_weights(labels)
        source = self.network(batch["image"])
        supervised = self.labels_loss(source, labels, weights)
        logs = {
            "loss_labels": supervised.detach(),
            LABELLED: (labels != IGNORE_INDEX).float().mean(),
        }
        losses = {"network": supervised}
        if "target_image" in batch:
            target = self.network(batch["target_image"])
            terms = {**self.alignment(target), **self.agreement(target, step)}
            for name, (weight, term) in terms.items():
                losses["network"] = losses["network"] + weight * term
                logs[f"loss_{name}"] = term.detach()
            losses |= self.discriminator_losses(source, target, step)
        return StepOutput(losses, logs)

    def labels_loss(self, output: SegOutput, labels: Tensor, class_weights: Tensor) -> Tensor:
        """What labels (N, H, W) say of both heads."""
        loss: Tensor = self.supervised_loss(output, labels, class_weights)
        return loss

    def alignment(self, target: SegOutput) -> dict[str, tuple[float, Tensor]]:
        """How far each head's target predictions are from what a discriminator takes for source.

        Returns:
            Weight and value by the name in the log.
        """
        terms = {}
        for name, weight in self.adversarial_weights.items():
            rival = self.discriminators[name]
            frozen = {key: value.detach() for key, value in rival.named_parameters()}
            outputs = functional_call(rival, frozen, (probabilities(head_logits(target, name)),))
            terms[f"adversarial_{name}"] = (weight, generator_loss(outputs))
        return terms

    def agreement(self, target: SegOutput, step: int) -> dict[str, tuple[float, Tensor]]:
        """How far the heads disagree, and how unsure they are, from ``--mr_start`` on.

        Returns:
            Weight and value by the name in the log.
        """
        opts = self.opts
        terms: dict[str, tuple[float, Tensor]] = {}
        if step < opts.mr_start:
            return terms
        main, aux = head_logits(target, "main"), head_logits(target, "aux")
        if opts.lambda_kl_target:
            term = memory_regularization(
                main, aux, target=opts.mr_target, fuse_weight=opts.fuse_weight_aux
            )
            terms["agreement"] = (opts.lambda_kl_target, term)
        if opts.lambda_me_target:
            term = confidence_weighted_entropy(main, aux, fuse_weight=opts.fuse_weight_aux)
            terms["entropy"] = (opts.lambda_me_target, term)
        return terms

    def discriminator_losses(
        self, source: SegOutput, target: SegOutput, step: int
    ) -> dict[str, Tensor]:
        """By optimizer: the fused source prediction is real, a head's target prediction is not."""
        losses: dict[str, Tensor] = {}
        penalised = step % self.opts.r1_every == 0
        with torch.no_grad():
            fused = head_logits(source, "main") + self.opts.fuse_weight_aux * head_logits(
                source, "aux"
            )
            real = probabilities(fused)
        for name, rival in self.discriminators.items():
            fake = probabilities(head_logits(target, name).detach())
            if not penalised:
                losses[f"discriminator_{name}"] = discriminator_loss(rival(fake), rival(real))
                continue
            inputs = real.clone().requires_grad_()
            with torch.autocast(real.device.type, enabled=False):  # a second derivative follows
                outputs = rival(inputs)
                penalty = gradient_penalty(outputs, inputs) * self.opts.r1_every
            losses[f"discriminator_{name}"] = discriminator_loss(rival(fake), outputs) + penalty
        return losses

    def noticed(self, values: Mapping[str, float], step: int) -> None:
        """Warn once where no pixel was labelled since the last print."""
        if values.get(LABELLED) == 0 and not self.warned_of_labels:
            logger.warning("step %d: no pixel has had a label since the last line", step)
            self.warned_of_labels = True

    def predict(
        self, images: Tensor, needs: frozenset[str] = frozenset(), at_stride: bool = False
    ) -> Prediction:
        """The logits of both heads, and pooled features where needed."""
        return predicted(self.network, images, needs, at_stride)

    def deployable(self) -> nn.Module:
        """The network with both heads."""
        return self.network


def head_logits(output: SegOutput, name: str) -> Tensor:
    """The logits of the main or of the auxiliary head."""
    if name == "main":
        return output.logits
    assert output.aux_logits is not None, "a network with two heads"
    return output.aux_logits


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes in float32 or wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)


def freeze_norms(module: nn.Module) -> None:
    """Keep weights and biases of all batch norms inside as they are; statistics still follow."""
    for part in module.modules():
        if isinstance(part, BATCH_NORMS):
            part.requires_grad_(requires_grad=False)
