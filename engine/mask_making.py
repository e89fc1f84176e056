"""Uncertainty masks of the training split: whose they are, which are missing, and their writer."""

from __future__ import annotations

import math
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Set
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.base import SegDataset
from datasets.loaders import eval_batches
from datasets.mask_files import (
    ENDING,
    LEVELS,
    DamagedMaskError,
    encode_mask,
    inspect_mask,
    is_mask,
)
from datasets.parallel import threaded
from datasets.transforms import eval_transform
from datasets.uncertainty_masks import (
    CONTENT,
    FORMAT,
    MANIFEST,
    NATIVE,
    PUBLISHED_ENDING,
    mask_path,
    read_manifest,
)
from engine import build, calibration, checkpoint
from engine.batch import prepare
from engine.consumers import ImageWriter
from engine.evaluate import run_pass
from engine.run import file_hash, joint_hash
from engine.trained import checkpoints, trained_method
from engine.training_data import mask_directory
from uncertainty import SCORES
from utils.distributed import barrier, broadcast_object, is_main, rank, world_size
from utils.files import json_ready, write_json
from utils.log import logger, progress
from utils.provenance import git_state
from utils.types import Batch, Prediction

# What the masks follow from beside the checkpoints and the images; random_seed with --mc_samples.
PREDICTION_FLAGS = (
    *("model", "method", "backbone", "output_stride", "condition", "infer_size", "infer_fit"),
    *("sliding_window", "window_overlap", "eval_flip", "eval_scales", "fuse", "eval_amp"),
    "mc_samples",
)
# What has to be equal for masks to lie in one folder; the rest of a manifest informs.
IDENTITY = (
    *("dataset", "split", "fingerprint", "images", "size", "num_classes", "scale"),
    *("checkpoints", "flags", "calibrator"),
)
LEFTOVER = re.compile(rf"\..+{re.escape(ENDING)}\.\d+\.tmp")


class MaskWriter(ImageWriter):
    """Writes the instance uncertainty of every image as ``ID.png`` (see ``datasets.mask_files``).

    Args:
        directory: made where it is missing.
        scale: the greatest uncertainty, log C.
        wanted: ids of the images whose masks are written; the others are passed over.
    """

    score = SCORES["instance"]
    variant = score.variant
    needs = score.needs

    def __init__(self, directory: Path | str, scale: float, wanted: Set[str]) -> None:
        super().__init__(directory)
        self.scale = scale
        self.wanted = wanted

    def arrays_of(self, batch: Batch, prediction: Prediction) -> dict[str, NDArray[Any]]:
        """The instance uncertainty.

        Raises:
            ValueError: if it is not finite, naming the image.
        """
        masks = self.score.function(prediction).cpu().numpy()
        for name, mask in zip(batch["id"], masks, strict=True):
            if not np.isfinite(mask).all():
                raise ValueError(
                    f"the prediction of {name} is not finite, so it has no uncertainty: the"
                    " network's weights are damaged, or --eval_amp fp16 is too narrow for them"
                )
        return {"mask": masks}

    def files_of(self, arrays: dict[str, NDArray[Any]]) -> Iterator[tuple[str, bytes]]:
        """One PNG file."""
        yield ENDING, encode_mask(arrays["mask"], self.scale)

    def _write(self, name: str, arrays: dict[str, NDArray[Any]]) -> None:
        if name in self.wanted:
            super()._write(name, arrays)


def run_mask_making(opts: Namespace) -> int:
    """Write the uncertainty mask of every image of the training split that has none yet."""
    size = opts.crop_size if opts.train_transform == "resize" else None
    dataset = build.data_set(opts, opts.train_split, eval_transform(size))
    # Masks that are completed later must be those of one go.
    build.be_deterministic(Namespace(deterministic=True))
    trained = trained_method(opts)
    loaded = calibration.load_fitting(opts, trained, joint_hash(checkpoints(opts)))
    directory = mask_directory(opts)
    manifest = {
        **describe_masks(opts, dataset, len(trained.class_names)),
        "calibrator": loaded.sha256 if loaded else None,
    }
    missing = claim_folder(directory, manifest, dataset, overwrite=opts.overwrite)
    if not missing:
        logger.info("all %d uncertainty masks are there, in %s", len(dataset), directory)
        return 0
    device = build.choose_device(opts)
    method = build.place(trained.method, opts, device)
    wanted = {dataset.items[index].id for index in missing}
    loader = eval_batches(
        dataset,
        batch_size=opts.val_batch_size,
        num_workers=opts.num_workers,
        rank=rank(),
        world_size=world_size(),
        only=missing,
    )
    run_pass(
        build.build_predictor(opts, method, samples=opts.mc_samples),
        method.deployable(),
        progress(loader, desc="masks", unit="batch"),
        [MaskWriter(directory, manifest["scale"], wanted)],
        prepare=partial(prepare, device=device, channels_last=opts.channels_last),
        calibrator=loaded.calibrator if loaded else None,
    )
    barrier()
    if is_main():
        write_json(directory / MANIFEST, {**manifest, "complete": True})
    logger.info("%d uncertainty masks written, in %s", len(missing), directory)
    return 0


def describe_masks(opts: Namespace, dataset: SegDataset, num_classes: int) -> dict[str, Any]:
    """The manifest of masks that are about to be made.

    Args:
        opts: the flags.
        dataset: what they are made of, at their size.
        num_classes: of the network.
    """
    flags = checkpoint.plain(opts)
    names = PREDICTION_FLAGS + ("random_seed",) * (opts.mc_samples is not None)
    size = dataset.transform.size
    files = checkpoints(opts)
    manifest = {
        "format": FORMAT,
        "content": CONTENT,
        "unit": f"nats, the grey value times scale / {LEVELS}",
        "dataset": dataset.name,
        "split": dataset.split,
        "fingerprint": dataset.fingerprint(),
        "images": len(dataset),
        "size": list(size) if size else NATIVE,
        "num_classes": num_classes,
        "scale": math.log(num_classes),
        "checkpoints": [{"file": path.name, "sha256": file_hash(path)} for path in files],
        "flags": {name: flags[name] for name in names},
        "commit": git_state()[0],
        "command": shlex.join(["python", *sys.argv]),
        "complete": False,
    }
    return dict(json_ready(manifest))


def claim_folder(
    directory: Path, manifest: dict[str, Any], dataset: SegDataset, *, overwrite: bool
) -> set[int]:
    """Decide whether masks may be made in a folder, and which are missing there.

    The first process removes what is to be overwritten and writes the manifest, before any mask.

    Args:
        directory: of the masks; need not exist.
        manifest: of ``describe_masks``.
        dataset: what the masks are made of.
        overwrite: replace the masks of another origin.

    Returns:
        The indices of the items without a good mask, the same on every process.

    Raises:
        ValueError: if the folder holds masks of another origin, or files that are no masks.
    """
    refuse_mixing(directory, manifest, dataset, overwrite=overwrite)
    barrier()
    missing: set[int] = set()
    if is_main():
        remove_files(directory, masks=overwrite)
        missing = missing_masks(directory, dataset)
        there = read_manifest(directory)
        if missing or there is None or not there["complete"]:
            write_json(directory / MANIFEST, {**manifest, "complete": not missing})
    return broadcast_object(missing)


def refuse_mixing(
    directory: Path, manifest: dict[str, Any], dataset: SegDataset, *, overwrite: bool
) -> None:
    """Refuse a folder with masks of another origin, or with files that are no masks.

    Raises:
        ValueError: saying what differs, and which flag would help.
    """
    there = read_manifest(directory)
    if there is None:
        refuse_foreign_files(directory, dataset, overwrite=overwrite)
    elif not overwrite and (differing := differences(manifest, there)):
        raise ValueError(
            f"{directory} holds uncertainty masks of another origin: {', '.join(differing)}."
            " Choose another --mask_dir, or replace them with --overwrite"
        )


def refuse_foreign_files(directory: Path, dataset: SegDataset, *, overwrite: bool) -> None:
    """Refuse a folder without a manifest that is not empty; files in the way always.

    Raises:
        ValueError: naming a file that is there.
    """
    found = sorted(directory.iterdir()) if directory.is_dir() else []
    if found and not overwrite:
        raise ValueError(
            f"{directory} holds {found[0].name} and no {MANIFEST}, so what is in it was not made by"
            " --make_uncertainty_masks. Choose another --mask_dir; with --overwrite masks are made"
            f" beside it, and any *{PUBLISHED_ENDING} are no longer read"
        )
    for item in dataset.items:
        path = mask_path(directory, item)
        if path.exists() and not (path.is_file() and is_mask(path)):
            raise ValueError(
                f"{path} exists and is no uncertainty mask; it is never replaced: choose another"
                " --mask_dir"
            )


def differences(mine: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """What two manifests differ in, one text each: ``split train (there val)``."""
    found = []
    for name in IDENTITY:
        if name == "flags":
            found += [
                f"--{flag} {value} (there {there.get(name, {}).get(flag)})"
                for flag, value in mine[name].items()
                if there.get(name, {}).get(flag) != value
            ]
        elif name == "checkpoints":
            hashes = [[file["sha256"] for file in one.get(name, [])] for one in (mine, there)]
            if hashes[0] != hashes[1]:
                names = [", ".join(f["file"] for f in one.get(name, [])) for one in (mine, there)]
                found.append(f"checkpoints {names[0]} (there {names[1]}, of other content)")
        elif mine.get(name) != there.get(name):
            found.append(f"{name} {mine.get(name)} (there {there.get(name)})")
    return found


def remove_files(directory: Path, *, masks: bool) -> None:
    """Delete what killed processes left of unfinished masks and, if asked, all masks.

    Only files that begin as this program's masks do are taken for masks.
    """
    if not directory.is_dir():
        return
    for path in sorted(directory.rglob(f"*{ENDING}*")):
        leftover = LEFTOVER.fullmatch(path.name) is not None
        if leftover or (masks and path.suffix == ENDING and path.is_file() and is_mask(path)):
            path.unlink()


def missing_masks(directory: Path, dataset: SegDataset) -> set[int]:
    """The items without a good mask; each damaged one is named in the log."""

    def problem(index: int) -> str | None:
        """What is wrong with the mask of an item, None if nothing is."""
        path = mask_path(directory, dataset.items[index])
        if not path.is_file():
            return "absent"
        try:
            size = inspect_mask(path.read_bytes())[0]
        except DamagedMaskError as error:
            return f"{path} is damaged, {error}"
        if size != dataset.size(index):
            return f"{path} has another size, {size[0]}x{size[1]}"
        return None

    missing = set()
    for index, found in enumerate(threaded(problem, len(dataset), "Masks there")):
        if found is None:
            continue
        missing.add(index)
        if found != "absent":
            logger.warning("%s: it is made again", found)
    return missing
