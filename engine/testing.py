"""``--test_only``: a trained network scored on a split, with tables, result file and pictures."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from datasets.base import SegDataset
from engine import build, checkpoint
from engine.batch import prepare
from engine.consumers import SaveResults, ServerWriter
from engine.evaluate import run_pass
from engine.run import file_hash, joint_hash, network_name, refuse_other_result, result_file
from engine.score_maps import score_writers
from engine.trained import Source, checkpoints, mapping_between, trained_method
from methods import Method
from metrics import METRICS
from metrics.members import MemberMetrics
from metrics.per_image import PerImageCounts
from uncertainty import SCORES
from utils.distributed import is_main
from utils.files import write_json
from utils.log import logger, progress
from utils.provenance import git_state
from utils.report import results_table
from utils.types import Consumer


class Shown(NamedTuple):
    """The classes of a result."""

    class_names: tuple[str, ...]
    palette: Tensor  # (K, 3), uint8


def run_test(opts: Namespace) -> int:
    """Evaluate ``--ckpt``; print the table, write the result file and, if asked, pictures."""
    dataset = build.evaluation_data(opts)
    sha256 = joint_hash(checkpoints(opts))
    path = result_file(opts, network_name(opts, sha256), dataset.name)
    refuse_other_result(path, opts, sha256)
    build.be_deterministic(opts)
    trained = trained_method(opts)
    mapping = mapping_between(trained, dataset)
    device = build.choose_device(opts)
    method = build.place(trained.method, opts, device)
    names = mapping.names if mapping else dataset.class_names
    palette = trained.palette if names == trained.class_names else dataset.palette
    metrics = [METRICS[name](names) for name in opts.metrics]
    members = member_metrics(trained.method, names)
    counts = PerImageCounts(names)
    writers = test_writers(opts, path, dataset, Shown(names, palette), mapped=mapping is not None)
    began = time.perf_counter()
    results = run_pass(
        build.build_predictor(opts, method, samples=opts.mc_samples),
        method.deployable(),
        progress(build.evaluation_batches(dataset, opts), desc="test", unit="batch"),
        [*metrics, *members, counts, *writers],
        prepare=partial(prepare, device=device, channels_last=opts.channels_last),
        mapping=mapping,
    )
    if not is_main():
        return 0
    counts.save(path.with_suffix(".images.npz"))
    write_json(
        path,
        {
            "checkpoint": describe_sources(trained.sources, sha256),
            "dataset": {
                "name": dataset.name,
                "split": dataset.split,
                "condition": opts.condition,
                "images": len(dataset),
                "fingerprint": dataset.fingerprint(),
            },
            "classes": names,
            "units": {name: unit for metric in metrics for name, unit in metric.units.items()},
            "results": results,
            "seconds": round(time.perf_counter() - began, 1),
            "opts": checkpoint.plain(opts),
            "commit": git_state()[0],
        },
    )
    sys.stdout.write(f"{results_table(results, names)}\n")
    logger.info("results in %s", path)
    return 0


def describe_sources(sources: Sequence[Source], sha256: str) -> dict[str, Any]:
    """The checkpoint of a result; of an ensemble the hash of all and each as a member."""
    if len(sources) == 1:
        return {"sha256": sha256, **vars(sources[0])}
    members = [{"sha256": file_hash(source.path), **vars(source)} for source in sources]
    return {"sha256": sha256, "members": members}


def test_writers(
    opts: Namespace, path: Path, dataset: SegDataset, shown: Shown, *, mapped: bool
) -> list[Consumer]:
    """The writers behind ``--save_val_results``, ``--scores`` and ``--server_format``.

    Raises:
        ValueError: if the server's ids are asked of a network with other classes.
    """
    folder = path.with_suffix("")
    writers: list[Consumer] = []
    if opts.save_val_results:
        writers.append(SaveResults(folder, shown.palette))
    scores = [SCORES[name] for name in opts.scores or ()]
    writers += score_writers(folder, scores, shown.palette, shown.class_names)
    if opts.server_format:
        if mapped:
            raise ValueError(
                f"--server_format needs a network with the {dataset.num_classes} classes of"
                f" {dataset.name}; {opts.ckpt} has others"
            )
        writers.append(
            ServerWriter(folder.with_name(f"{folder.name}_server"), dataset.decode_label)
        )
    return writers


def member_metrics(method: Method, class_names: Sequence[str]) -> list[Consumer]:
    """The segmentation scores of every member, where the method has members."""
    build_metric = partial(METRICS["segmentation"], class_names)
    names = tuple(method.members())
    return [MemberMetrics(names, build_metric)] if names else []
