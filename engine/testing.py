"""``--test_only``: a trained network scored on a split, with tables, result file and pictures."""

from __future__ import annotations

import time
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from datasets.base import SegDataset
from datasets.taxonomy import ClassMapping
from engine import build, calibration, checkpoint
from engine.batch import prepare
from engine.consumers import SaveResults, ServerWriter
from engine.evaluate import merge, run_pass
from engine.measuring import (
    first_metrics,
    member_metrics,
    metric_settings,
    refuse_missing_labels,
    without_unshared,
)
from engine.results import describe_data, describe_sources, save_image_scores, show
from engine.run import network_name, refuse_other_result, result_file
from engine.score_maps import score_writers
from engine.scoring import build_scores
from engine.second_pass import second_consumers
from engine.trained import Trained, mapping_between, network_hash, trained_method
from metrics import Metric, build_metrics
from metrics.per_image import PerImageCounts
from utils.distributed import is_main
from utils.files import write_json
from utils.log import progress
from utils.provenance import git_state
from utils.types import Consumer


class Shown(NamedTuple):
    """The classes of a result."""

    class_names: tuple[str, ...]
    palette: Tensor  # (K, 3), uint8


class Subject(NamedTuple):
    """A network and what it is tested on.

    Attributes:
        dataset: the images.
        trained: the network.
        sha256: of its weights.
        calibrator: of ``--calibrator``, if any.
        path: of the result file.
    """

    dataset: SegDataset
    trained: Trained
    sha256: str
    calibrator: calibration.Loaded | None
    path: Path


def run_test(opts: Namespace) -> int:
    """Evaluate a network; print the tables, write the result file and the pictures."""
    subject = tested(opts)
    dataset, trained, sha256, loaded, path = subject
    build.be_deterministic(opts)
    mapping = mapping_between(trained.class_names, dataset)
    names = mapping.names if mapping else dataset.class_names or trained.class_names
    began = time.perf_counter()
    results, metrics = measured(opts, subject, mapping, names)
    if not is_main():
        return 0
    save_image_scores(path.with_suffix(".image_scores.csv"), metrics)
    write_json(
        path,
        {
            "checkpoint": describe_sources(trained.sources, sha256),
            "calibrator": loaded.describe() if loaded else None,
            "dataset": describe_data(dataset, opts.condition),
            "classes": names,
            "units": {name: unit for metric in metrics for name, unit in metric.units.items()},
            "results": results,
            "seconds": round(time.perf_counter() - began, 1),
            "opts": checkpoint.plain(opts),
            "commit": git_state()[0],
        },
    )
    show(results, names, path)
    return 0


def tested(opts: Namespace) -> Subject:
    """The network of the flags and the images that it is tested on.

    Raises:
        ValueError: if one of them is missing or they do not fit, or the result file is another's.
    """
    dataset = build.evaluation_data(opts)
    refuse_missing_labels(dataset, opts.metrics)
    loaded = calibration.load(opts)
    if loaded is not None:
        calibration.refuse_overlap(loaded, dataset)
    trained = trained_method(opts, dataset.classes)
    sha256 = network_hash(opts, trained, dataset)
    if loaded is not None:
        calibration.refuse_misfit(loaded, opts, trained, sha256)
    label = loaded.label if loaded else None
    path = result_file(opts, network_name(opts, sha256), dataset, label)
    refuse_other_result(path, opts, sha256, loaded.sha256 if loaded else None)
    return Subject(dataset, trained, sha256, loaded, path)


def measured(
    opts: Namespace, subject: Subject, mapping: ClassMapping | None, names: tuple[str, ...]
) -> tuple[dict[str, Any], list[Metric]]:
    """The results of a test and the metrics behind them; what has to be written is written.

    Args:
        opts: the flags.
        subject: the network and the images.
        mapping: between their classes, None where they are the same.
        names: of the scored classes.
    """
    dataset, trained, sha256, loaded, path = subject
    device = build.choose_device(opts)
    method = build.place(trained.method, opts, device)
    palette = trained.palette if names == trained.class_names else dataset.palette
    settings = metric_settings(opts, dataset, trained, sha256)
    metrics = build_metrics(first_metrics(opts), names, settings)
    counts = [PerImageCounts(names)] if dataset.classes else []
    run = partial(
        run_pass,
        build.build_predictor(opts, method, samples=opts.mc_samples),
        method.deployable(),
        prepare=partial(prepare, device=device, channels_last=opts.channels_last),
        mapping=without_unshared(opts, mapping, names),
        calibrator=loaded.calibrator if loaded else None,
    )
    batches = build.evaluation_batches(dataset, opts)
    writers = test_writers(opts, subject, Shown(names, palette), mapped=mapping is not None)
    judged = dataset.classes and not opts.eval_crf  # which leaves no members
    members = member_metrics(trained.method, names, opts.metrics) if judged else []
    results = run(
        progress(batches, desc="test", unit="batch"), [*metrics, *members, *counts, *writers]
    )
    later = second_consumers(opts, settings, names, results, path.with_suffix(""))
    if later:
        merge(results, run(progress(batches, desc="components", unit="batch"), later))
    for each in counts if is_main() else ():
        each.save(path.with_suffix(".images.npz"))
    return results, metrics


def test_writers(
    opts: Namespace, subject: Subject, shown: Shown, *, mapped: bool
) -> list[Consumer]:
    """The writers behind ``--save_val_results``, ``--scores`` and ``--server_format``.

    Raises:
        ValueError: if the server's ids are asked of a network with other classes.
    """
    dataset, folder = subject.dataset, subject.path.with_suffix("")
    writers: list[Consumer] = []
    if opts.save_val_results:
        writers.append(SaveResults(folder, shown.palette))
    scores = build_scores(opts, opts.scores or (), subject.trained, subject.sha256)
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
