"""The loss of a training step: ``--loss_type`` with what it knows of the training data."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from datasets.base import SegDataset
from datasets.statistics import class_weights
from losses import LOSSES, LossSettings, build_loss, underfit_mistake
from utils.arguments import at_least, choice, ids, within
from utils.log import logger
from utils.types import SegOutput

OF_RELAXATION = ("border_window", "strict_bdr_cls", "boundary_weight")
USERS = ("supervised", "ensemble")  # methods whose loss this is; the others have their own
OF_UNDERFITTING = ("underfit_beta", "underfit_k")
OF_IMAGE_LOSSES = ("wt_bound", "loss_reduction")


def add_loss_flags(group: _ArgumentGroup) -> None:
    """Which loss, and its settings."""
    add = group.add_argument
    add("--loss_type", type=choice("loss", LOSSES), default="cross_entropy")
    add(
        "--loss_normalize",
        choices=("all", "valid"),
        help="mean over all pixels (published for uncertainty, focal) or labelled ones (others)",
    )
    add("--focal_gamma", type=within(0, 10), default=0.0, help="0 is cross entropy; usual: 2")
    add("--focal_alpha", type=within(0, 10), default=1.0)
    add("--alpha", type=within(0, 100), default=0.0, help="of uce; 0 is cross entropy")
    add("--wt_bound", type=within(0, 100), default=1.0, help="greatest extra weight of a class")
    add("--batch_weighting", action="store_true", help="class shares of the batch, not the image")
    add("--loss_reduction", choices=("mean", "sum"), default="mean", help="over images of a batch")
    add("--border_window", type=at_least(0), default=1, help="pixels that relaxed_boundary reaches")
    add("--strict_bdr_cls", type=ids, metavar="ID,ID", help="not relaxed at borders")
    add("--rlx_off_epoch", type=int, default=-1, help="last relaxed epoch, restart of scl_poly")
    add("--lambda_seg", type=within(0, 100), default=0.1, help="of an auxiliary head's loss")
    add("--boundary_weight", type=within(0.01, 100), default=2.0, help="of borders, then")
    add(
        "--underfit",
        choices=("off", "clamp", "pow", "ignore"),
        default="off",
        help="pretended under-fitting: what becomes of large losses l once their mean is below"
        " underfit_beta: min(l, k), l^k, or 0 above k",
    )
    add("--underfit_beta", type=within(0, 100), default=0.5, help="per device, batch and head")
    add("--underfit_k", type=within(0, 100), default=0.5, help="limit or exponent k")


def check_loss_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the loss and what follows epochs, each one sentence that names the fix."""
    if opts.lr_policy == "scl_poly" and opts.rlx_off_epoch < 1:
        yield "--lr_policy scl_poly restarts at an epoch: add --rlx_off_epoch N, such as 100"
    if opts.lr_policy == "scl_poly" and opts.epochs and opts.rlx_off_epoch >= opts.epochs:
        yield (
            f"--rlx_off_epoch {opts.rlx_off_epoch} is not before the end, --epochs {opts.epochs}:"
            " --lr_policy scl_poly would never restart"
        )
    for names, losses in (
        (OF_RELAXATION, ("relaxed_boundary",)),
        (("batch_weighting",), ("image_weighted_cross_entropy",)),
        (OF_IMAGE_LOSSES, ("image_weighted_cross_entropy", "relaxed_boundary")),
    ):
        for name in names:
            if name in opts.typed and opts.loss_type not in losses:
                yield f"--{name} goes with --loss_type {' or '.join(losses)}, not {opts.loss_type}"
    yield from check_underfitting(opts)


def check_underfitting(opts: Namespace) -> Iterable[str]:
    """Problems with ``--underfit`` and the flags that belong to it."""
    if opts.underfit == "off":
        for name in OF_UNDERFITTING:
            if name in opts.typed:
                yield f"--{name} is of pretended under-fitting: add --underfit clamp"
    elif opts.method not in USERS:
        users = " or ".join(USERS)
        yield f"--underfit goes with --method {users}; {opts.method} has its own losses"
    elif not LOSSES[opts.loss_type].pixelwise:
        yield underfit_mistake(opts.loss_type)


class TrainingLoss(nn.Module):
    """The loss that the flags name, a function of logits, labels and a map over the pixels.

    Raises:
        ValueError: if the loss is for two classes and there are others, or a class that is not to
            be relaxed is none of the classes.
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
        for index in opts.strict_bdr_cls or ():
            if index >= num_classes:
                raise ValueError(
                    f"--strict_bdr_cls {index}: the data set has {num_classes} classes, from 0 to"
                    f" {num_classes - 1}"
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

    def forward(
        self, logits: Tensor, labels: Tensor, pixels: Tensor | None = None, *, step: int = 0
    ) -> Tensor:
        """A scalar from logits (N, C, H, W), labels (N, H, W) and a map (N, H, W).

        The map holds the factor of each pixel, or its uncertainty where the loss reads that; the
        step tells the epoch.
        """
        opts = self.opts
        settings = LossSettings(
            normalize=opts.loss_normalize,
            focal_gamma=opts.focal_gamma,
            focal_alpha=opts.focal_alpha,
            alpha=opts.alpha,
            class_weights=self.class_weights,
            wt_bound=opts.wt_bound,
            weights_over="batch" if opts.batch_weighting else "image",
            reduction=opts.loss_reduction,
            border_window=opts.border_window,
            relaxed=self.relaxed(step),
            strict_classes=opts.strict_bdr_cls or (),
            boundary_weight=opts.boundary_weight,
            underfit=opts.underfit,
            underfit_beta=opts.underfit_beta,
            underfit_k=opts.underfit_k,
        )
        return build_loss(opts.loss_type, settings)(logits, labels, pixels)

    def of_heads(
        self, output: SegOutput, labels: Tensor, pixels: Tensor | None = None, *, step: int = 0
    ) -> Tensor:
        """The loss of a network's head, plus ``--lambda_seg`` times that of its second one.

        Under ``--underfit`` each head's own loss is what tells whether it fits.
        """
        loss: Tensor = self(output.logits, labels, pixels, step=step)
        if output.aux_logits is None:
            return loss
        return loss + self.opts.lambda_seg * self(output.aux_logits, labels, pixels, step=step)

    def relaxed(self, step: int) -> bool:
        """Whether borders are relaxed in a step: up to and with ``--rlx_off_epoch``."""
        last = self.opts.rlx_off_epoch
        return bool(last < 0 or step // self.opts.epoch_itrs <= last)
