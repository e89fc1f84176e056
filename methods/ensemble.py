"""Online ensemble: members trained side by side, pixels weighted by what they disagree on."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from datasets.base import SegDataset
from methods.base import Method
from methods.supervised import build_network, build_optimizer
from methods.temperature_logs import temperature_logs
from methods.training_loss import TrainingLoss
from network import MODELS
from network.ensemble import DeepEnsemble, joint_temperatures, log_mean_softmax
from uncertainty import instance_mean
from uncertainty.entropy import mean_softmax_entropy
from uncertainty.monte_carlo import top_class_deviation
from utils.arguments import Repeated, at_least, choice, within
from utils.types import FEATURES, Batch, Prediction, SegOutput, StepOutput


def member_models(opts: Namespace) -> list[str]:
    """The model of each member: those of ``--member``, or ``--num_models`` of ``--backbone``.

    Raises:
        ValueError: if the flags name no member or no model.
    """
    if opts.member:
        return list(opts.member)
    if opts.num_models and opts.backbone:
        for name in (opts.backbone, f"deeplabv3plus_{opts.backbone}"):
            if name in MODELS:
                return [name] * int(opts.num_models)
        raise ValueError(
            f"--backbone {opts.backbone} names no model for the members: try one of"
            f" {', '.join(MODELS)}"
        )
    raise ValueError(
        "--model ensemble needs members: --member deeplabv3plus_resnet50 --member ..., or"
        " --num_models 3 --backbone deeplabv3plus_resnet50"
    )


def unique_names(models: Sequence[str]) -> list[str]:
    """A name for each member: its model, and its place where several have one model."""
    repeated = Counter(models)
    return [
        name if repeated[name] == 1 else f"{name}-{index}" for index, name in enumerate(models, 1)
    ]


class Ensemble(Method):
    """Train members on the same batches, each on cross entropy weighted by the ensemble's U.

    U(x) is the instance uncertainty of the members' mean softmax (Almeida, Dutra, Renna 2024), and
    each member has its own optimizer and schedule. With ``--loss_type cross_entropy`` the members
    learn independently: the baseline.

    Args:
        opts: the flags.
        num_classes: number of classes.
        networks: trained members by name, in place of those that the flags describe.
    """

    reads_weights = True
    defaults: ClassVar[dict[str, Any]] = {
        "model": "ensemble",
        "loss_type": "uncertainty_cross_entropy",
    }

    def __init__(
        self, opts: Namespace, num_classes: int, networks: dict[str, nn.Module] | None = None
    ) -> None:
        super().__init__(opts, num_classes)
        self.loss = TrainingLoss(opts, num_classes)
        if networks is None:
            models = member_models(opts)
            networks = {
                name: build_network(member_flags(opts, model), num_classes)
                for name, model in zip(unique_names(models), models, strict=True)
            }
        self.names = tuple(networks)
        self.network = DeepEnsemble(networks.values())

    @classmethod
    def add_flags(cls, group: _ArgumentGroup) -> None:
        """Members and their rates."""
        add = group.add_argument
        models = choice("model", MODELS)
        add("--member", type=models, action=Repeated, metavar="MODEL", help="once for each member")
        add(
            "--ensemble_lr",
            type=within(0, 100),
            action=Repeated,
            metavar="LR",
            help="a classifier's rate, once for each member; default: --lr for all",
        )
        add("--num_models", type=at_least(1), help="that many members of the model --backbone")

    @classmethod
    def check(cls, opts: Namespace) -> Iterable[str]:
        """Members and rates have to match in number."""
        try:
            count = len(member_models(opts))
        except ValueError as error:
            yield str(error)
            return
        if opts.member and opts.num_models not in (None, count):
            yield f"--num_models {opts.num_models}, but --member is given {count} times: drop one"
        if opts.ensemble_lr and len(opts.ensemble_lr) != count:
            yield (
                f"--ensemble_lr is given {len(opts.ensemble_lr)} times for {count} members: give it"
                " once for each, in their order, or not at all"
            )

    @classmethod
    def check_training(cls, opts: Namespace) -> Iterable[str]:
        """Validations need the members, whose best states are kept."""
        yield from super().check_training(opts)
        if opts.eval_crf:
            yield "--eval_crf leaves no members, whose best states are kept: give it to --test_only"

    def members(self) -> dict[str, nn.Module]:
        """The members by name."""
        return dict(zip(self.names, self.network.members, strict=True))

    def prepare(self, dataset: SegDataset, cache_dir: Path) -> None:
        """Measure on the training labels what the loss asks for."""
        self.loss.prepare(dataset, cache_dir)

    def optimizers(self) -> dict[str, Optimizer]:
        """One optimizer for each member, under its name."""
        rates = self.opts.ensemble_lr or [self.opts.lr] * len(self.names)
        return {
            name: build_optimizer(network, self.opts, lr)  # type: ignore[arg-type]
            for (name, network), lr in zip(self.members().items(), rates, strict=True)
        }

    def training_step(self, batch: Batch, step: int) -> StepOutput:
        """One loss for each member, over the same images and the same uncertainty."""
        outputs = self.network.member_outputs(batch["image"])
        logits = [output.logits for output in outputs]
        pixels, logs = batch.get("weight"), {}
        if self.loss.entry.reads == "uncertainty":
            pixels = self.uncertainty(logits)
            logs = {"uncertainty": pixels.mean()}
        logs |= temperature_logs(outputs, batch["label"])
        losses = [
            self.loss.of_heads(output, batch["label"], pixels, step=step) for output in outputs
        ]
        return StepOutput(dict(zip(self.names, losses, strict=True)), logs)

    @torch.no_grad()
    def uncertainty(self, member_logits: Sequence[Tensor]) -> Tensor:
        """What the loss weighs pixels by, (N, H, W), from each member's logits (N, C, H, W).

        The instance uncertainty of the mean softmax; for ``uce`` the deviation of the top class's
        probability over the members.
        """
        if self.opts.loss_type == "uce":
            return top_class_deviation(logits.float().softmax(1) for logits in member_logits)
        return instance_mean(*mean_softmax_entropy(member_logits))

    def predict(
        self, images: Tensor, needs: frozenset[str] = frozenset(), at_stride: bool = False
    ) -> Prediction:
        """The log of the mean softmax with the members' logits; their features joined.

        Raises:
            ValueError: if only some members have a second head, or maps at the resolution of the
                heads differ in size.
        """
        outputs = self.network.member_outputs(
            images, pooled_features=FEATURES in needs, at_stride=at_stride
        )
        refuse_other_sizes(output.logits for output in outputs)
        logits = torch.stack([output.logits for output in outputs])
        features = [output.features for output in outputs if output.features is not None]
        temperatures = joint_temperatures([output.temperature for output in outputs])
        return Prediction(
            log_mean_softmax(logits),
            member_logits=logits,
            temperature=None if temperatures is None else temperatures.mean(0),
            member_temperatures=temperatures,
            member_aux_logits=self.second_heads(outputs),
            features=torch.cat(features, 1) if features else None,
        )

    def second_heads(self, outputs: Sequence[SegOutput]) -> Tensor | None:
        """The auxiliary logits (M, N, C, H, W) of members; None if no member has them.

        Raises:
            ValueError: naming the members without a second head, if others have one.
        """
        heads = [output.aux_logits for output in outputs if output.aux_logits is not None]
        if not heads:
            return None
        if len(heads) < len(outputs):
            pairs = zip(self.names, outputs, strict=True)
            without = ", ".join(name for name, output in pairs if output.aux_logits is None)
            raise ValueError(
                f"some members have a second head and {without} has none: their fused logits do"
                " not compare; join members with --aux_head, or members without"
            )
        return torch.stack(heads)

    def deployable(self) -> nn.Module:
        """The ensemble as one network."""
        return self.network


def refuse_other_sizes(members: Iterable[Tensor]) -> None:
    """Refuse members' maps (N, C, h, w) of different resolution.

    Raises:
        ValueError: naming the sizes.
    """
    sizes = sorted({(logits.shape[-2], logits.shape[-1]) for logits in members})
    if len(sizes) > 1:
        listed = " and ".join(f"{height}x{width}" for height, width in sizes)
        raise ValueError(
            f"--upsample probs averages members at one resolution, and their heads give {listed}"
            " pixels: leave the flag out"
        )


def member_flags(opts: Namespace, model: str) -> Namespace:
    """The flags of one member as a network of its own."""
    backbone = opts.backbone if model == "deeplabv3plus_timm" else None
    return Namespace(**{**vars(opts), "model": model, "backbone": backbone})
