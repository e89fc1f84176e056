"""``--test_only``: a trained network scored on a split, with tables, result file and pictures."""

from __future__ import annotations

import csv
import io
import sys
import time
from argparse import Namespace, _ArgumentGroup
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from datasets.base import SegDataset
from datasets.joined import Joined
from engine import build, calibration, checkpoint
from engine.batch import prepare
from engine.consumers import SaveResults, ServerWriter
from engine.evaluate import run_pass
from engine.run import file_hash, network_name, refuse_other_result, result_file
from engine.score_maps import score_writers
from engine.trained import Source, mapping_between, network_hash, trained_method
from methods import Method
from metrics import METRICS, Metric, MetricSettings, build_metrics
from metrics.base import StreamingMetric
from metrics.bootstrap import Bootstrap
from metrics.calibration import Calibration
from metrics.image_ood import ImageOutOfDistribution
from metrics.members import MemberMetrics
from metrics.per_image import PerImageCounts
from metrics.segmentation import SegmentationMetrics
from uncertainty import SCORES
from utils.arguments import at_least, choice
from utils.distributed import is_main
from utils.files import write_atomically, write_json
from utils.log import logger, progress
from utils.provenance import git_state
from utils.report import reliability_table, results_table
from utils.types import Consumer

OF_MEMBERS: dict[str, Callable[[Sequence[str]], StreamingMetric]] = {
    "segmentation": SegmentationMetrics,
    "calibration": Calibration,
}


class Shown(NamedTuple):
    """The classes of a result."""

    class_names: tuple[str, ...]
    palette: Tensor  # (K, 3), uint8


def add_measurement_flags(group: _ArgumentGroup) -> None:
    """What a test measures."""
    add = group.add_argument
    add(
        "--metrics",
        nargs="+",
        type=choice("metric", METRICS),
        default=["segmentation"],
        metavar="NAME",
        help=f"of a test: {', '.join(METRICS)}",
    )
    add(
        "--confidence",
        nargs="+",
        type=choice("score", SCORES),
        default=["msp"],
        metavar="SCORE",
        help="scores whose ranking of the pixels is judged, see --list scores",
    )
    add("--ece_bins", type=at_least(1), default=15, help="of the calibration errors")
    add(
        "--ece_confidence",
        type=choice("score", [name for name, score in SCORES.items() if score.highest]),
        metavar="SCORE",
        help="1 - score / its maximum instead of the top probability",
    )
    add("--pavpu_patch", type=at_least(1), default=4, help="side of the patches, in pixels")
    add("--per_scene", action="store_true", help="report every scene, too")
    add("--image_bootstrap", type=at_least(0), default=0, metavar="N", help="resamples: intervals")
    add("--parity", choices=("none", "original"), default="none", help="add published variants")


def run_test(opts: Namespace) -> int:
    """Evaluate a network; print the tables, write the result file and the pictures."""
    dataset = build.evaluation_data(opts)
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
    build.be_deterministic(opts)
    mapping = mapping_between(trained, dataset)
    device = build.choose_device(opts)
    method = build.place(trained.method, opts, device)
    names = mapping.names if mapping else dataset.class_names
    palette = trained.palette if names == trained.class_names else dataset.palette
    metrics = build_metrics(opts.metrics, names, metric_settings(opts, dataset))
    members = member_metrics(trained.method, names, opts.metrics)
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
        calibrator=loaded.calibrator if loaded else None,
    )
    if not is_main():
        return 0
    counts.save(path.with_suffix(".images.npz"))
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


def show(results: dict[str, Any], names: Sequence[str], path: Path) -> None:
    """Print the tables of a result and draw its pictures beside it."""
    warn_of_void(results)
    if "class_iou" in results.get("total", {}):
        sys.stdout.write(f"{results_table(results, names)}\n")
    if table := reliability_table(results):
        sys.stdout.write(f"\n{table}\n")
        from utils.report.reliability import save_reliability_pictures  # matplotlib is slow

        save_reliability_pictures(results, path.with_suffix(""), path.stem)
    logger.info("results in %s", path)


def save_image_scores(path: Path, metrics: Sequence[Metric]) -> None:
    """Write the mean scores of every image as CSV, where images were told apart by them."""
    scored = [each.image_scores() for each in metrics if isinstance(each, ImageOutOfDistribution)]
    if not scored:
        return
    columns = {name: values for name, values in scored[0].items() if name != "scores"}
    for each in scored:
        columns |= each["scores"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomically(path, text.getvalue().encode())


def warn_of_void(results: dict[str, Any]) -> None:
    """Say which parts of a result no labelled pixel stands behind."""
    parts = {"the whole test": results.get("total", {})}
    for field in ("dataset", "condition", "scene"):
        parts |= {f"{field} {name}": part for name, part in results.get(field, {}).items()}
    for name, part in parts.items():
        if 0 in (part.get("pixels"), part.get("calibration", {}).get("pixels")):
            logger.warning("no labelled pixel in %s: its numbers are n/a", name)


def metric_settings(opts: Namespace, dataset: SegDataset) -> MetricSettings:
    """What the flags and the data tell the metrics."""
    parts = dataset.parts if isinstance(dataset, Joined) else (dataset,)
    return MetricSettings(
        scores=[SCORES[name] for name in opts.confidence],
        bins=opts.ece_bins,
        calibrated=SCORES[opts.ece_confidence] if opts.ece_confidence else None,
        parity=opts.parity == "original",
        patch=opts.pavpu_patch,
        unannotated={part.name: part.unannotated for part in parts},
        in_domain={(parts[0].name, item.condition) for item in parts[0].items},
        per_scene=opts.per_scene,
        bootstrap=Bootstrap(opts.image_bootstrap, opts.random_seed)
        if opts.image_bootstrap
        else None,
    )


def describe_data(dataset: SegDataset, condition: str | None) -> dict[str, Any]:
    """What a result says of the images it is over; of several data sets each as a part."""
    described: dict[str, Any] = {
        "name": dataset.name,
        "split": dataset.split,
        "condition": condition,
        "scenes": dataset.scenes,
        "corruption": dataset.appearance.name if dataset.appearance else None,
        "images": len(dataset),
        "fingerprint": dataset.fingerprint(),
    }
    if isinstance(dataset, Joined):
        described["parts"] = [
            describe_data(part, shared(item.condition for item in part.originals))
            for part in dataset.parts
        ]
    return described


def shared(values: Iterable[str]) -> str | None:
    """The one value that all have, None if there are several or it is empty."""
    different = set(values)
    return (different.pop() or None) if len(different) == 1 else None


def describe_sources(sources: Sequence[Source], sha256: str) -> dict[str, Any]:
    """The checkpoint of a result; of an ensemble the hash of all and each as a member."""
    if len(sources) == 1:
        return {"sha256": sha256, **vars(sources[0])}
    members = [{"sha256": file_hash(Path(source.path)), **vars(source)} for source in sources]
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


def member_metrics(
    method: Method, class_names: Sequence[str], names: Sequence[str] = ("segmentation",)
) -> list[Consumer]:
    """Those of the named metrics that concern every member, where the method has members."""
    members = tuple(method.members())
    kinds = [kind for name, kind in OF_MEMBERS.items() if name in names]
    return [MemberMetrics(members, partial(kind, class_names)) for kind in kinds if members]
