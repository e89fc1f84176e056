"""``--fit_score``: what sml, react and dice know of the training images, in a file."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

from engine import build
from engine.batch import prepare
from engine.checkpoint import plain
from engine.evaluate import PredictionSource, run_pass
from engine.run import network_name, tested_name
from engine.trained import network_hash, trained_method
from uncertainty import StatisticsCollector, load_statistics, save_statistics
from utils.distributed import barrier, is_main
from utils.files import json_ready
from utils.log import logger, progress
from utils.provenance import git_state

FITTED = ("sml", "react", "dice")  # one file serves all of them
# What the statistics follow from beside the network and the images.
OF_A_FIT = (
    *("infer_size", "infer_fit", "sliding_window", "window_overlap", "eval_flip", "eval_scales"),
    *("fuse", "eval_amp", "mc_samples", "eval_size", "fuse_heads", "fuse_weight_aux", "upsample"),
)


def run_fit_score(opts: Namespace) -> int:
    """Gather the statistics of scores on ``--train_split`` and write them with their manifest."""
    split = opts.val_split if "val_split" in opts.typed else opts.train_split
    opts = Namespace(**{**vars(opts), "val_split": split})
    dataset = build.evaluation_data(opts)
    build.be_deterministic(opts)
    trained = trained_method(opts, dataset.classes)
    sha256 = network_hash(opts, trained, dataset)
    name = opts.run_name or f"{network_name(opts, sha256)}_on_{tested_name(opts, dataset)}"
    path = Path(opts.output_dir) / "checkpoints" / f"score_statistics_{name}.pth"
    manifest: dict[str, Any] = json_ready(
        {
            "classes": list(trained.class_names),
            "network": sha256,
            "checkpoints": [str(source.path) for source in trained.sources],
            "gathered_on": {
                "dataset": dataset.name,
                "split": dataset.split,
                "images": len(dataset),
                "fingerprint": dataset.fingerprint(),
            },
            "flags": {flag: plain(opts)[flag] for flag in OF_A_FIT},
            "commit": git_state()[0],
            "command": shlex.join(["python", *sys.argv]),
        }
    )
    if finished(path, manifest, overwrite=opts.overwrite):
        logger.info("the statistics are there: %s", path)
        return 0
    device = build.choose_device(opts)
    method = build.place(trained.method, opts, device)
    of_logits = isinstance(method, PredictionSource)
    collector = StatisticsCollector(None if of_logits else method.deployable())
    with collector.attached():
        run_pass(
            build.build_predictor(opts, method, samples=opts.mc_samples),
            method.deployable(),
            progress(build.evaluation_batches(dataset, opts), desc="statistics", unit="batch"),
            [collector],
            prepare=partial(prepare, device=device, channels_last=opts.channels_last),
        )
    if is_main():
        save_statistics(path, collector.statistics(manifest))
    barrier()
    logger.info(
        "statistics of %d images in %s; use them with --score_statistics", len(dataset), path
    )
    return 0


def finished(path: Path, manifest: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether the very same statistics are in the file.

    Raises:
        ValueError: if it holds others.
    """
    if overwrite or not path.exists():
        return False
    there = load_statistics(path).manifest
    compared = ("classes", "network", "gathered_on", "flags")
    differing = [name for name in compared if there.get(name) != manifest[name]]
    if not differing:
        return True
    raise ValueError(
        f"{path} holds other statistics, of other {', '.join(differing)}; name these with"
        " --run_name or give --overwrite"
    )
