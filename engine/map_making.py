"""Maps that a network makes of images, on disk: their manifest, their writer and their pass."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from datasets import DATASETS
from datasets.base import SegDataset
from datasets.loaders import eval_batches
from datasets.map_folders import MapKind, origin
from datasets.transforms import eval_transform
from engine import build, calibration, checkpoint
from engine.batch import prepare
from engine.calibration import Loaded
from engine.consumers import ImageWriter
from engine.evaluate import PredictionSource, run_pass
from engine.map_claims import Summary, claim_folder, write_manifest
from engine.trained import Trained, network_files, network_hash, trained_method
from methods import Method
from utils.distributed import barrier, is_main, rank, world_size
from utils.files import json_ready
from utils.folder_locks import release_folder
from utils.log import logger, progress
from utils.provenance import git_state

# What maps follow from beside the checkpoints and the images; random_seed with --mc_samples.
PREDICTION_FLAGS = (
    *("model", "method", "backbone", "output_stride", "condition", "infer_size", "infer_fit"),
    *("infer_short_side", "sliding_window", "window_overlap", "eval_flip", "eval_scales", "fuse"),
    *("eval_amp", "mc_samples", "fuse_heads", "fuse_weight_aux", "upsample", "eval_crf"),
)


class MapWriter(ImageWriter):
    """Writes the maps of some images.

    Args:
        directory: made where it is missing.
        wanted: ids of the images whose maps are written; the others are passed over.
    """

    def __init__(self, directory: Path | str, wanted: Set[str]) -> None:
        super().__init__(directory)
        self.wanted = wanted

    def _write(self, name: str, arrays: dict[str, NDArray[Any]]) -> None:
        if name in self.wanted:
            super()._write(name, arrays)


def refuse_not_finite(names: Iterable[str], finite: Iterable[bool], what: str) -> None:
    """Refuse predictions that are not finite.

    Args:
        names: ids of the images.
        finite: whether the prediction of each is finite.
        what: cannot be had of them.

    Raises:
        ValueError: naming the first image.
    """
    for name, good in zip(names, finite, strict=True):
        if not good:
            raise ValueError(
                f"the prediction of {name} is not finite, so it has no {what}: the"
                " network's weights are damaged, or --eval_amp fp16 is too narrow for them"
            )


def make_maps(
    opts: Namespace,
    kind: MapKind,
    dataset: SegDataset,
    directory: Path,
    *,
    describe: Callable[[Trained], dict[str, Any]],
    make_writer: Callable[[dict[str, Any], Set[str]], MapWriter],
    summary: Summary | None = None,
    make_source: Callable[[Method], PredictionSource] | None = None,
) -> int:
    """Write the maps of every image that has none yet; any number of processes share the work.

    Args:
        opts: the flags.
        kind: of the maps.
        dataset: what they are made of, at their size.
        directory: where they go.
        describe: the manifest, but for the calibrator, given the network.
        make_writer: given the manifest and the ids of the images whose maps are wanted.
        summary: what the manifest says of all maps once they are there.
        make_source: given the method on its device, what makes the maps of a batch in the
            predictor's place.

    Raises:
        ValueError: as ``trained_method``, ``load_fitting`` and ``claim_folder`` do.
    """
    # Maps that are completed later must be those of one go.
    build.be_deterministic(Namespace(deterministic=True))
    trained = trained_method(opts, dataset.classes)
    loaded = calibration.load_fitting(opts, trained, network_hash(opts, trained, dataset))
    manifest = {**describe(trained), "calibrator": loaded.sha256 if loaded else None}
    missing = claim_folder(
        kind, directory, manifest, dataset, overwrite=opts.overwrite, summary=summary
    )
    if not missing:
        logger.info("all %d %s are there, in %s", len(dataset), kind.content, directory)
        return 0
    writer = make_writer(manifest, {dataset.items[index].id for index in missing})
    write_maps(opts, kind, trained, loaded, dataset, missing, writer, make_source)
    return report_written(kind, directory, manifest, summary, len(missing))


def report_written(
    kind: MapKind,
    directory: Path,
    manifest: dict[str, Any],
    summary: Summary | None,
    written: int,
) -> int:
    """Write the manifest of a folder that is complete now, say so, and return exit status 0.

    Other runs may write the folder from then on (see ``hold_folder``).
    """
    if is_main():
        write_manifest(directory, manifest, summary, complete=True)
    release_folder(directory)
    logger.info("%d %s written, in %s", written, kind.content, directory)
    return 0


def write_maps(
    opts: Namespace,
    kind: MapKind,
    trained: Trained,
    loaded: Loaded | None,
    dataset: SegDataset,
    missing: Set[int],
    writer: MapWriter,
    make_source: Callable[[Method], PredictionSource] | None = None,
) -> None:
    """The pass over the images without maps; ends when every process has written its share."""
    device = build.choose_device(opts)
    method = build.place(trained.method, opts, device)
    samples = opts.mc_samples
    predictor = (
        make_source(method) if make_source else build.build_predictor(opts, method, samples=samples)
    )
    loader = eval_batches(
        dataset,
        batch_size=opts.val_batch_size,
        num_workers=opts.num_workers,
        rank=rank(),
        world_size=world_size(),
        only=missing,
    )
    run_pass(
        predictor,
        method.deployable(),
        progress(loader, desc=kind.short, unit="batch"),
        [writer],
        prepare=partial(prepare, device=device, channels_last=opts.channels_last),
        calibrator=loaded.calibrator if loaded else None,
    )
    barrier()


def describe_maps(
    kind: MapKind,
    opts: Namespace,
    dataset: SegDataset,
    trained: Trained,
    *,
    flags: Sequence[str] = PREDICTION_FLAGS,
    **own: Any,
) -> dict[str, Any]:
    """The manifest of maps that a network is about to make.

    Args:
        kind: of the maps.
        opts: the flags.
        dataset: what they are made of, at their size.
        trained: the network.
        flags: names of those that the maps follow from.
        own: entries of this kind alone.

    Raises:
        ValueError: if an image of the data set has no file of logits in ``--logits_dir``.
    """
    names = (*flags, *("random_seed",) * (opts.mc_samples is not None))
    files = network_files(opts, trained, dataset)
    classes = len(trained.class_names)
    return describe_files(kind, opts, dataset, classes, flags=names, **own, checkpoints=files)


def describe_files(
    kind: MapKind,
    opts: Namespace,
    dataset: SegDataset,
    num_classes: int,
    *,
    flags: Sequence[str],
    **own: Any,
) -> dict[str, Any]:
    """The manifest of maps that are about to be made, whether or not by a network.

    Args:
        kind: of the maps.
        opts: the flags.
        dataset: what they are made of, at their size.
        num_classes: that they are of.
        flags: names of those that the maps follow from.
        own: entries of this kind alone.
    """
    values = checkpoint.plain(opts)
    manifest = {
        "format": kind.format,
        "content": kind.content,
        **origin(kind, dataset),
        "images": len(dataset),
        "num_classes": num_classes,
        **own,
        "flags": {name: values[name] for name in flags},
        "commit": git_state()[0],
        "command": shlex.join(["python", *sys.argv]),
        "complete": False,
    }
    return dict(json_ready(manifest))


def images_of_maps(opts: Namespace, **common: Any) -> SegDataset:
    """The training split without its label files, at the size of maps that are the images' own.

    Generated images have the size at which training draws them: for ``--crop_size`` if it is the
    one to which they are resized, else their usual one.

    Args:
        opts: the flags.
        common: keywords of every data set.

    Raises:
        ValueError: as ``data_set`` does.
    """
    common = {"labelled": False, **common}
    dataset = build.data_set(opts, opts.train_split, eval_transform(None), **common)
    if opts.train_transform == "resize" and not DATASETS[opts.dataset].needs_root:
        drawn = build.data_set(opts, opts.train_split, eval_transform(opts.crop_size), **common)
        own = {"image_size": drawn.native_size(0), **common}
        dataset = build.data_set(opts, opts.train_split, eval_transform(None), **own)
    return dataset
