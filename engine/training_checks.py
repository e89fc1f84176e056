"""What has to hold between the flags of a training, before any work."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

import torch

from datasets import DATASETS
from datasets.anomalies import AnomalyDataset
from engine.restore import NO_SPLIT
from methods import METHODS
from network import CAM_MODELS, PSPNET_MODELS, TWO_HEADED
from utils.distributed import planned_world_size

OF_PYRAMID = ("head_norm", "use_se", "droprate", "drop", "head_init")


def check_train_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the flags about training."""
    kind = DATASETS[opts.dataset]
    if issubclass(kind, AnomalyDataset):
        yield f"{kind.name} has no class labels to train on: it is for --test_only"
    processes = planned_world_size()
    share, rest = divmod(opts.batch_size, processes * opts.accumulate)
    if rest:
        yield (
            f"--batch_size {opts.batch_size} is the total over {processes} processes x"
            f" {opts.accumulate} accumulation steps and must be divisible by"
            f" {processes * opts.accumulate}"
        )
    elif (
        share == 1
        and METHODS[opts.method].trains_network
        and opts.model not in TWO_HEADED - PSPNET_MODELS  # no pooling branch
        and opts.model not in CAM_MODELS
        and not (opts.sync_bn and processes > 1)
    ):
        fix = "--batch_size 2" if opts.accumulate == 1 else "a smaller --accumulate"
        yield (
            "batch norm cannot train on one image at a time (its pooling branch has one value"
            f" per channel): use at least {fix}, or --sync_bn under torchrun"
        )
    smallest = 2 * opts.output_stride + 1
    if min(opts.crop_size) < smallest:
        yield (
            f"--crop_size {opts.crop_size[0]}x{opts.crop_size[1]} and --output_stride"
            f" {opts.output_stride} do not fit: the smallest side is {smallest}"
        )
    yield from check_model(opts)
    yield from check_optimizer_flags(opts)
    yield from check_second_head(opts)
    if opts.patience and opts.val_split == NO_SPLIT:
        yield "--patience counts validations, and --val_split none has none: leave one of them out"
    if opts.sync_bn and processes == 1:
        yield "--sync_bn joins processes: start with torchrun --nproc_per_node N main.py ..."
    elif opts.sync_bn and not torch.cuda.is_available():
        yield "--sync_bn works between GPUs, and this machine has none: leave the flag out"
    if "," in opts.gpu_id:
        count = len(opts.gpu_id.split(","))
        yield (
            f"--gpu_id {opts.gpu_id} names {count} GPUs, and one process drives one: start with"
            f" torchrun --nproc_per_node {count} main.py ..."
        )


def check_model(opts: Namespace) -> Iterable[str]:
    """Problems with the model that is trained."""
    if opts.norm_eval and opts.model in CAM_MODELS:
        yield f"--norm_eval is of segmentation models; {opts.model} has --cam_norm"
    if opts.model in CAM_MODELS and not METHODS[opts.method].reads_image_labels(opts):
        yield f"--model {opts.model} gives class activation maps: add --method cam"
    if opts.model == "deeplabv3plus_timm" and not opts.backbone and opts.ckpt is None:
        yield "--model deeplabv3plus_timm needs --backbone NAME, such as resnet18"


def check_second_head(opts: Namespace) -> Iterable[str]:
    """Problems with flags of an auxiliary head that there is not, and of pseudo labels unread."""
    if not (opts.aux_head or opts.model in TWO_HEADED):
        for name in (*OF_PYRAMID, "lambda_seg"):
            if name in opts.typed:
                yield f"--{name} is of a second head, which this network has not: add --aux_head"
    if opts.model in PSPNET_MODELS:
        for name in ("aux_head", *OF_PYRAMID):
            if name in opts.typed:
                yield f"--{name} is of pyramid heads; PSPNet has a second head of its own"
    reads_labels = opts.pseudo_dir is not None or METHODS[opts.method].reads_pseudo_labels(opts)
    if "pseudo_threshold" in opts.typed and not reads_labels:
        yield "--pseudo_threshold is of pseudo labels: add --pseudo_dir DIR"


def check_optimizer_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the optimizer and its rates."""
    for name, active in (("nesterov", opts.nesterov), ("lr_repeat", opts.lr_repeat == "faithful")):
        if active and name in opts.typed and (opts.optimizer != "sgd" or not opts.momentum):
            yield f"--{name} is of stochastic gradient descent with momentum: add --optimizer sgd"
    if "lr_floor" in opts.typed and opts.lr_policy != "poly_floor":
        yield f"--lr_floor goes with --lr_policy poly_floor, not {opts.lr_policy}"
    if opts.lr_repeat == "faithful" and not opts.nesterov:
        yield "--lr_repeat faithful repeats Nesterov's update: add --nesterov"
    if opts.warm_up and opts.lr_policy != "poly":
        yield f"--warm_up goes with --lr_policy poly, not {opts.lr_policy}"
    if opts.warm_up and opts.warm_up >= opts.total_itrs:
        yield (
            f"--warm_up {opts.warm_up} is as long as the schedule, --total_itrs {opts.total_itrs}:"
            " the rate would never fall"
        )
