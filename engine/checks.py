"""What has to hold between the shared flags, before any work."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable

import torch

from network import ENSEMBLES
from uncertainty import SCORES
from utils.arguments import missing_file
from utils.distributed import planned_world_size

ACTIONS = ("test_only", "predict", "make_uncertainty_masks", "report", "check_data", "list")
OF_TRAINED = ("test_only", "predict", "make_uncertainty_masks")  # actions that need a network


def chosen_actions(opts: Namespace) -> list[str]:
    """The action flags that are set; none means training."""
    return [name for name in ACTIONS if getattr(opts, name)]


def check(opts: Namespace) -> Iterable[str]:
    """Problems with the shared flags, each one sentence that names the fix."""
    actions = chosen_actions(opts)
    if len(actions) > 1:
        yield f"--{actions[0]} and --{actions[1]} are two actions; give one"
    if opts.list or opts.report:
        return
    yield from check_data_flags(opts)
    yield from check_network_flags(opts)
    if not actions:
        yield from check_train_flags(opts)


def check_network_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the flags that say which network is trained or where it comes from."""
    action = next(iter(chosen_actions(opts)), "train")
    if opts.model == "deep_ensemble":
        yield from check_deep_ensemble(opts, action)
    elif opts.weight:
        yield "--weight names members of --model deep_ensemble; a single network is --ckpt FILE"
    elif action in OF_TRAINED and opts.ckpt is None:
        yield f"--{action} needs a trained network: add --ckpt checkpoints/best_NAME.pth"
    if (opts.model == "ensemble") != (opts.method == "ensemble"):
        yield f"--model ensemble and --method ensemble go together, not with {opts.model}"
    if opts.model == "deeplabv3plus_timm" and not opts.backbone and opts.ckpt is None:
        yield "--model deeplabv3plus_timm needs --backbone NAME, such as resnet18"
    if opts.model not in ENSEMBLES and opts.mc_samples is None:
        for name in opts.scores or ():
            if "member_logits" in SCORES[name].needs:
                yield (
                    f"--scores {name} compares members: give a --model deep_ensemble or ensemble,"
                    " or --mc_samples N"
                )
    if opts.ckpt is not None and not opts.ckpt.is_file():
        yield missing_file("ckpt", opts.ckpt)


def check_deep_ensemble(opts: Namespace, action: str) -> Iterable[str]:
    """Problems with the members of a deep ensemble."""
    if action == "train":
        yield (
            "--model deep_ensemble joins trained networks: train its members one by one, or"
            " together with --model ensemble"
        )
    if not opts.weight:
        yield "--model deep_ensemble needs its members: --weight FILE --weight FILE ..."
    if opts.ckpt is not None:
        yield "--model deep_ensemble is read from --weight FILE ..., not from --ckpt"
    for path in opts.weight or []:
        if not path.is_file():
            yield missing_file("weight", path)


def check_data_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the flags about data."""
    if opts.crop_val and opts.eval_size == "native":
        yield "--crop_val means --eval_size crop, but --eval_size is native; drop one"
    opts.eval_size = opts.eval_size or ("crop" if opts.crop_val else "native")
    if opts.data_root is None and opts.dataset != "streets" and not opts.predict:
        yield f"--dataset {opts.dataset} needs its folder: add --data_root DIR"
    if opts.save_probs and not opts.predict:
        yield "--save_probs goes with --predict PATH"
    if opts.scale_range[0] > opts.scale_range[1]:
        yield f"--scale_range goes from small to large: {opts.scale_range[1]} {opts.scale_range[0]}"


def check_train_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the flags about training."""
    processes = planned_world_size()
    share, rest = divmod(opts.batch_size, processes * opts.accumulate)
    if rest:
        yield (
            f"--batch_size {opts.batch_size} is the total over {processes} processes x"
            f" {opts.accumulate} accumulation steps and must be divisible by"
            f" {processes * opts.accumulate}"
        )
    elif share == 1 and not (opts.sync_bn and processes > 1):
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
