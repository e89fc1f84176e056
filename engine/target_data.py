"""The unlabelled domain that a method adapts to, and the pseudo labels made on one."""

from __future__ import annotations

from argparse import Namespace, _ArgumentGroup
from collections.abc import Iterable
from pathlib import Path

from datasets import DATASETS, build_dataset
from datasets.base import SegDataset
from datasets.transforms import target_transform
from methods import METHODS
from utils.arguments import choice, size, within

OF_TARGET = (
    *("target_root", "target_split", "target_condition", "target_input_size", "target_flip"),
    "autoaug_target",
)


def add_target_flags(group: _ArgumentGroup) -> None:
    """Images of another domain, whose labels are never read, and pseudo labels."""
    add = group.add_argument
    add("--target_dataset", type=choice("data set", DATASETS), help="adapt to its images")
    add("--target_root", type=Path, help="folder of that data set; streets needs none")
    add("--target_split", default="train")
    add("--target_condition", help="acdc, streets: only this condition, such as night")
    add("--target_input_size", type=size, help="N or HxW before the crop; default: their own")
    add("--target_flip", type=within(0, 1), default=0.0, help="probability of a mirrored image")
    add("--autoaug_target", action="store_true", help="AutoAugment's colours on them")
    add("--pseudo_dir", type=Path, metavar="DIR", help="default: <data_root>/pseudo_labels")
    add(
        "--pseudo_threshold",
        type=within(0, 1),
        default=0.0,
        help="pixels whose probability is below have no pseudo label",
    )


def check_target_flags(opts: Namespace) -> Iterable[str]:
    """Problems with the target domain, each one sentence that names the fix."""
    if opts.target_dataset is None:
        for name in OF_TARGET:
            if name in opts.typed:
                yield f"--{name} is of the images that a method adapts to: add --target_dataset"
        return
    if not METHODS[opts.method].reads_target(opts):
        yield (
            f"--method {opts.method} reads no target domain: leave --target_dataset out, or take"
            " --method mrnet"
        )
    if DATASETS[opts.target_dataset].needs_root and opts.target_root is None:
        yield f"--target_dataset {opts.target_dataset} needs its folder: add --target_root DIR"
    wanted, crop = opts.target_input_size, opts.crop_size
    if wanted is not None and (wanted[0] < crop[0] or wanted[1] < crop[1]):
        yield (
            f"--target_input_size {wanted[0]}x{wanted[1]} is smaller than --crop_size"
            f" {crop[0]}x{crop[1]}"
        )


def target_data(opts: Namespace) -> SegDataset | None:
    """The images to adapt to, with their random transforms; None where the method reads none.

    Label files are neither needed nor opened.

    Raises:
        ValueError: if the data set is missing or incomplete.
    """
    if not METHODS[opts.method].reads_target(opts):
        return None
    return build_dataset(
        opts.target_dataset,
        opts.target_root,
        opts.target_split,
        transform=target_transform(
            opts.crop_size,
            opts.target_input_size,
            flip=opts.target_flip,
            autoaug=opts.autoaug_target,
        ),
        seed=opts.random_seed,
        cache=opts.cache,
        condition=opts.target_condition,
        labelled=False,
    )
