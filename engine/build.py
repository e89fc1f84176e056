"""From flags to objects: device, data sets, method and predictor."""

from __future__ import annotations

import os
from argparse import Namespace
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from datasets import build_dataset
from datasets.base import SegDataset
from datasets.taxonomy import (
    ROAD,
    VOC,
    ClassMapping,
    SegClass,
    class_mapping,
    names_of,
    palette_of,
)
from datasets.transforms import eval_transform, train_transform
from engine import checkpoint
from engine.predict import Predictor
from methods import METHODS, Method
from utils.distributed import launched_by_torchrun, local_rank
from utils.log import logger


def choose_device(opts: Namespace) -> torch.device:
    """The GPU of ``--gpu_id``, or of this process under torchrun; the CPU where there is none.

    Raises:
        ValueError: if the machine has no GPU of that number.
    """
    if not torch.cuda.is_available():
        logger.info("no GPU found: running on the CPU")
        return torch.device("cpu")
    if launched_by_torchrun():
        if "gpu_id" in opts.typed:
            logger.info("--gpu_id is ignored under torchrun: each process takes its own GPU")
        index = local_rank()
    else:
        index = int(opts.gpu_id)
    if index >= torch.cuda.device_count():
        raise ValueError(
            f"GPU {index} does not exist: this machine has {torch.cuda.device_count()}, from 0;"
            " change --gpu_id or --nproc_per_node"
        )
    torch.cuda.set_device(index)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch.device("cuda", index)


def be_deterministic(opts: Namespace) -> None:
    """Choose between the fastest algorithms and those that repeat bit for bit."""
    torch.backends.cudnn.benchmark = not opts.deterministic
    if opts.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    # A warning, not an error: counts are integers, whose sums do not depend on the order.
    torch.use_deterministic_algorithms(opts.deterministic, warn_only=True)


def data_set(opts: Namespace, split: str, transform: Any) -> SegDataset:
    """One split of ``--dataset``.

    Raises:
        ValueError: if it is missing or incomplete, or has other classes than ``--num_classes``.
    """
    dataset = build_dataset(
        opts.dataset,
        opts.data_root,
        split,
        transform=transform,
        seed=opts.random_seed,
        cache=opts.cache,
        year=opts.year,
        condition=opts.condition,
        download=opts.download,
    )
    if opts.num_classes not in (None, dataset.num_classes):
        raise ValueError(
            f"--num_classes {opts.num_classes}, but {opts.dataset} has {dataset.num_classes}"
            f" classes ({', '.join(dataset.class_names)}): leave the flag out"
        )
    return dataset


def training_data(opts: Namespace) -> SegDataset:
    """The split to train on, with its random transforms."""
    return data_set(
        opts,
        opts.train_split,
        train_transform(
            opts.train_transform,
            opts.crop_size,
            flip=opts.flip,
            colour_jitter=opts.color_jitter,
            scale_range=tuple(opts.scale_range),
        ),
    )


def evaluation_data(opts: Namespace) -> SegDataset:
    """The split to validate or test on, at ``--eval_size``."""
    size = opts.crop_size if opts.eval_size == "crop" else None
    return data_set(opts, opts.val_split, eval_transform(size))


def build_predictor(opts: Namespace, method: Method) -> Predictor:
    """How ``method`` is run over whole images."""
    return Predictor(
        method,
        infer_size=opts.infer_size,
        window=opts.sliding_window,
        overlap=opts.window_overlap,
        flip=opts.eval_flip,
        scales=tuple(opts.eval_scales),
        fuse=opts.fuse,
        amp=opts.eval_amp,
    )


def without_pretraining(opts: Namespace) -> Namespace:
    """The flags for a network whose weights a checkpoint is about to replace."""
    return Namespace(**{**vars(opts), "pretrained_backbone": "none"})


def method_to_train(opts: Namespace, dataset: SegDataset, *, resumed: bool) -> Method:
    """The method at its start: backbone weights, or all weights of ``--ckpt``.

    Args:
        opts: the flags.
        dataset: what it will be trained on.
        resumed: whether a checkpoint of the run will replace all weights anyway.

    Raises:
        ValueError: if the weights cannot be had or do not fit.
    """
    kind = METHODS[opts.method]
    if resumed:
        return kind(without_pretraining(opts), dataset.num_classes)
    if opts.ckpt is None:
        return kind(opts, dataset.num_classes)
    content = checkpoint.read(opts.ckpt)
    method = kind(without_pretraining(opts), dataset.num_classes)
    left = checkpoint.load_network(
        method.deployable(), content["model_state"], opts.ckpt, reset_head=opts.reset_head
    )
    if left:
        logger.info("%s loaded but for %s", opts.ckpt, ", ".join(left))
    return method


@dataclass(frozen=True)
class Trained:
    """A trained network with what its checkpoint knows of it."""

    method: Method
    class_names: tuple[str, ...]  # in the order of the logits
    palette: Tensor  # (C, 3), uint8
    step: int | None


def trained_method(opts: Namespace) -> Trained:
    """The network of ``--ckpt``.

    Raises:
        ValueError: if it does not fit the flags, or its classes are unknown.
    """
    content = checkpoint.read(opts.ckpt)
    state = content["model_state"]
    try:
        num_classes = len(state[checkpoint.last_layer(state)[0]])
    except (IndexError, KeyError):
        raise ValueError(f"{opts.ckpt} holds no segmentation network: no convolution") from None
    method = METHODS[opts.method](without_pretraining(opts), num_classes)
    checkpoint.load_network(method.deployable(), state, opts.ckpt)
    if "classes" in content:
        named = zip(content["classes"], content["colours"], strict=True)
        classes = tuple(SegClass(name, tuple(colour)) for name, colour in named)
    else:
        classes = published_classes(opts, num_classes)
    return Trained(method.eval(), names_of(classes), palette_of(classes), content.get("cur_itrs"))


def published_classes(opts: Namespace, num_classes: int) -> tuple[SegClass, ...]:
    """The classes of a file that does not name them, from their number.

    Raises:
        ValueError: if no known set has that many.
    """
    for classes in (ROAD, VOC):
        if len(classes) == num_classes:
            return classes
    raise ValueError(
        f"{opts.ckpt} has {num_classes} classes and does not name them; files without names are"
        " taken for Cityscapes (19) or VOC (21)"
    )


def mapping_between(trained: Trained, dataset: SegDataset) -> ClassMapping | None:
    """How the network's classes and the data set's meet; None where they are the same.

    Raises:
        ValueError: if no mapping is known.
    """
    if trained.class_names == dataset.class_names:
        return None
    mapping = class_mapping(trained.class_names, dataset.class_names)
    if mapping is None:
        raise ValueError(
            f"the network's {len(trained.class_names)} classes"
            f" ({', '.join(trained.class_names[:4])}, ...) and the {dataset.num_classes} of"
            f" {dataset.name} ({', '.join(dataset.class_names[:4])}, ...) have no known mapping;"
            " test on a data set with its classes, or fine-tune with --ckpt and --reset_head"
        )
    return mapping


def place(method: Method, opts: Namespace, device: torch.device) -> Method:
    """Bring a method to the device in the memory layout and form that the flags ask for."""
    if opts.sync_bn:
        method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
    method = method.to(device)
    if opts.channels_last:
        method = method.to(memory_format=torch.channels_last)
    if opts.compile:
        method.deployable().compile()
    return method
