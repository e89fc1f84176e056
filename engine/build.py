"""From flags to objects: device, data sets, method and predictor."""

from __future__ import annotations

import os
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from datasets import DATASETS, build_dataset
from datasets.base import SegDataset
from datasets.corruptions import build_corruption, parse_corruption
from datasets.loaders import eval_batches
from datasets.parts import Part, build_parts, parse_part
from datasets.transforms import eval_transform
from engine import checkpoint
from engine.crf import RefinedByCrf
from engine.evaluate import PredictionSource
from engine.fuse_heads import HeadFusion
from engine.monte_carlo import MonteCarloDropout
from engine.predict import Predictor, Predicts, fitting
from methods import METHODS, Method
from uncertainty.dense_crf import RESPONSE_CRF
from utils.distributed import launched_by_torchrun, local_rank, rank, world_size
from utils.log import logger
from utils.types import Predict


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


def data_set(opts: Namespace, split: str, transform: Any, **common: Any) -> SegDataset:
    """One split of ``--dataset``; further keywords are those of ``SegDataset``.

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
        **common,
    )
    if opts.num_classes not in (None, dataset.num_classes):
        raise ValueError(
            f"--num_classes {opts.num_classes}, but {opts.dataset} has {dataset.num_classes}"
            f" classes ({', '.join(dataset.class_names)}): leave the flag out"
        )
    return dataset


def evaluation_data(opts: Namespace) -> SegDataset:
    """The split to validate, test or fit on, or every part of ``--eval_on``, at ``--eval_size``.

    Raises:
        ValueError: as ``data_set`` and ``build_parts`` do.
    """
    stretched = opts.crop_size if opts.eval_size == "crop" else None
    transform = eval_transform(stretched, opts.eval_centre)
    corruption = parse_corruption(opts.corruption) if opts.corruption else None
    if not opts.eval_on:
        return data_set(
            opts,
            opts.val_split,
            transform,
            scenes=opts.scenes,
            ood_ids=ood_ids(opts).get(opts.dataset, ()),
            appearance=build_corruption(*corruption, opts.random_seed) if corruption else None,
        )
    main = Part(
        opts.dataset,
        split=opts.val_split,
        condition=opts.condition,
        root=opts.data_root,
        year=opts.year,
    )
    return build_parts(
        [parse_part(text) for text in opts.eval_on],
        defaults=main,
        transform=transform,
        seed=opts.random_seed,
        cache=opts.cache,
        ood_ids=ood_ids(opts),
    )


def ood_ids(opts: Namespace) -> dict[str, list[int]]:
    """The label ids of unknown objects by data set.

    They are those of ``--ood_classes``, of ``--dataset`` unless another is named; where the
    metric ood is asked for without that flag, what is usual for each data set.
    """
    if opts.ood_classes:
        found: dict[str, list[int]] = {}
        for dataset, raw in opts.ood_classes:
            found.setdefault(dataset or opts.dataset, []).append(raw)
        return found
    if not opts.test_only or "ood" not in opts.metrics:
        return {}
    names = [parse_part(text).dataset for text in opts.eval_on or ()] or [opts.dataset]
    return {name: list(ids) for name in names if (ids := DATASETS[name].usual_ood_ids)}


def evaluation_batches(dataset: SegDataset, opts: Namespace) -> Any:
    """This process's share of a data set, in order."""
    return eval_batches(
        dataset,
        batch_size=opts.val_batch_size,
        num_workers=opts.num_workers,
        rank=rank(),
        world_size=world_size(),
    )


def build_predictor(
    opts: Namespace, method: Method, *, samples: int | None = None
) -> Predict | PredictionSource:
    """How ``method`` is run over whole images, with that many dropout samples if any.

    Raises:
        ValueError: if its networks upsample in different ways and ``--upsample`` is to do it.
    """
    if isinstance(method, PredictionSource):
        return method
    predicts: Predicts = method
    if samples is not None:
        predicts = MonteCarloDropout(method, method.deployable(), samples, opts.random_seed)
    predictor = Predictor(
        predicts,
        infer_size=partial(fitting, box=opts.infer_fit) if opts.infer_fit else opts.infer_size,
        short_side=opts.infer_short_side,
        window=opts.sliding_window,
        overlap=opts.window_overlap,
        flip=opts.eval_flip,
        scales=tuple(opts.eval_scales),
        fuse=opts.fuse,
        amp=opts.eval_amp,
        heads=HeadFusion(opts.fuse_heads, opts.fuse_weight_aux),
        upsample=opts.upsample,
        align_corners=opts.upsample == "probs" and aligns_corners(method),
    )
    return RefinedByCrf(predictor, RESPONSE_CRF) if opts.eval_crf else predictor


def aligns_corners(method: Method) -> bool:
    """Whether the networks of a method upsample with aligned corners.

    Raises:
        ValueError: if they differ in it.
    """
    networks = method.members().values() or [method.deployable()]
    found = {bool(getattr(network, "align_corners", False)) for network in networks}
    if len(found) > 1:
        raise ValueError(
            "--upsample probs upsamples all members alike, and only some align corners: leave the"
            " flag out"
        )
    return found.pop()


def without_pretraining(opts: Namespace) -> Namespace:
    """The flags for a network whose weights a checkpoint is about to replace."""
    return Namespace(**{**vars(opts), "pretrained_backbone": "none"})


def method_to_train(opts: Namespace, dataset: SegDataset, *, resumed: bool) -> Method:
    """The method at its start: backbone weights, or all weights of ``--init`` or ``--ckpt``.

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
    first = opts.init or opts.ckpt
    if first is None:
        return kind(opts, dataset.num_classes)
    content = checkpoint.read(first)
    if not opts.reset_head:
        refuse_other_head(content.get("opts", {}), opts, first)
    method = kind(without_pretraining(opts), dataset.num_classes)
    left = checkpoint.load_network(
        method.deployable(), content["model_state"], first, reset_head=opts.reset_head
    )
    if left:
        logger.info("%s loaded but for %s", first, ", ".join(left))
    return method


def refuse_other_head(stored: dict[str, Any], opts: Namespace, path: Path) -> None:
    """Refuse weights of another kind of class head, whose tensors may have the same names.

    Raises:
        ValueError: naming both and the flags that would help.
    """
    there = stored.get("head", opts.head)
    if there != opts.head:
        raise ValueError(
            f"{path} was trained with --head {there}, this run has --head {opts.head}: its class"
            " weights mean something else; add --reset_head for new ones, or type its head"
        )


def place(method: Method, opts: Namespace, device: torch.device) -> Method:
    """Bring a method to the device in the memory layout and form that the flags ask for."""
    if opts.sync_bn:
        method = torch.nn.SyncBatchNorm.convert_sync_batchnorm(method)
    method = method.to(device)
    if opts.channels_last:
        method = method.to(memory_format=torch.channels_last)
    if opts.compile:
        for network in method.members().values() or [method.deployable()]:
            network.compile()
    return method
