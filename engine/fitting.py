"""``--fit_calibrator``: a calibrator fitted to a trained network on one named split."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace, _ArgumentGroup
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from datasets.base import SegDataset
from engine import build, checkpoint
from engine.batch import prepare
from engine.calibration import kind_of_logits
from engine.evaluate import run_pass
from engine.local_fitting import fit_local
from engine.run import network_name, tested_name
from engine.sampling import PixelSample, PixelSampler
from engine.trained import Trained, network_hash, refuse_other_classes, trained_method
from uncertainty.calibrators import (
    Calibrator,
    Temperature,
    TemperatureGrid,
    fit_clusters,
    fit_temperature,
    fit_vector,
    load_calibrator,
    save_calibrator,
)
from utils.arguments import at_least
from utils.distributed import barrier, is_main
from utils.files import json_ready
from utils.log import logger, progress
from utils.provenance import git_state
from utils.types import IGNORE_INDEX, Prediction

# What a calibrator follows from beside the network and the images.
OF_EVERY_FIT = (
    *("fit_calibrator", "infer_size", "infer_fit", "sliding_window", "window_overlap", "eval_flip"),
    *("eval_scales", "fuse", "eval_amp", "mc_samples", "eval_size", "random_seed"),
    *("fuse_heads", "fuse_weight_aux", "upsample"),
)
OF_A_SEARCH = ("samples_per_image", "fit_objective", "min_t", "max_t", "t_step")
FLAGS = {
    "temperature": OF_A_SEARCH,
    "vector": ("samples_per_image",),
    "cluster": (
        *OF_A_SEARCH,
        *("n_clusters", "clustering_method", "cluster_assignment", "per_class_temperature"),
    ),
    "local": (
        *("lts_reads", "lts_init_t", "lts_init", "lts_floor", "lts_epochs", "lts_images"),
        "lts_validation_share",
    ),
}
UNITS = {"ece": "percent", "nll": "nats"}
Fitted = tuple[Calibrator, dict[str, Any]]  # with what to say of the fit


def add_calibration_flags(group: _ArgumentGroup) -> None:
    """How a calibrator is fitted."""
    add = group.add_argument
    add("--samples_per_image", type=int, default=20_000, help="pixels to fit on; -1: all")
    add("--fit_objective", choices=("ece", "nll"), default="ece", help="ece: over a grid")
    add("--min_t", type=float, default=0.5, help="first temperature of the grid")
    add("--max_t", type=float, default=10.0, help="end of the grid, not in it")
    add("--t_step", type=float, default=0.01, help="of the grid")
    add("--n_clusters", type=at_least(1), default=8, help="of images, for cluster")
    add("--clustering_method", choices=("kmeans", "gmm"), default="kmeans")
    add("--cluster_assignment", choices=("hard", "soft"), default="hard")
    add("--per_class_temperature", action="store_true", help="by cluster and predicted class")


def run_fit_calibrator(opts: Namespace) -> int:
    """Fit a calibrator on ``--val_split`` or ``--eval_on`` and write it with its manifest."""
    dataset = build.evaluation_data(opts)
    build.be_deterministic(opts)
    trained = trained_method(opts, dataset.classes)
    refuse_other_classes(trained, dataset)
    sha256 = network_hash(opts, trained, dataset)
    path = calibrator_file(opts, network_name(opts, sha256), dataset)
    manifest = describe_fit(opts, dataset, trained, sha256)
    if finished(path, manifest, overwrite=opts.overwrite):
        logger.info("the calibrator is there: %s", path)
        return 0
    if opts.fit_calibrator == "local":
        calibrator, found = fit_local(opts, dataset, trained)
    else:
        calibrator, found = fit_on_sample(opts, dataset, trained)
    if is_main():
        save_calibrator(path, calibrator, {**manifest, "fit": json_ready(found)})
        text = ", ".join(f"{name} {value}" for name, value in readable(found))
        sys.stdout.write(f"{opts.fit_calibrator}: {text}\n")
    barrier()
    logger.info("calibrator in %s; use it with --calibrator", path)
    return 0


def calibrator_file(opts: Namespace, network: str, dataset: SegDataset) -> Path:
    """Where the calibrator of a network and a data set is written."""
    name = opts.run_name or f"{opts.fit_calibrator}_{network}_on_{tested_name(opts, dataset)}"
    return Path(opts.output_dir) / "checkpoints" / f"calibrator_{name}.pth"


def describe_fit(
    opts: Namespace, dataset: SegDataset, trained: Trained, sha256: str
) -> dict[str, Any]:
    """The manifest of a calibrator that is about to be fitted."""
    flags = checkpoint.plain(opts)
    manifest = {
        "kind": opts.fit_calibrator,
        "classes": list(trained.class_names),
        "logits": kind_of_logits(opts, trained),
        "network": sha256,
        "checkpoints": [str(source.path) for source in trained.sources],
        "fitted_on": {
            "dataset": dataset.name,
            "split": dataset.split,
            "images": len(dataset),
            "fingerprint": dataset.fingerprint(),
        },
        "origins": sorted(dataset.origins()),
        "flags": {name: flags[name] for name in OF_EVERY_FIT + FLAGS[opts.fit_calibrator]},
        "commit": git_state()[0],
        "command": shlex.join(["python", *sys.argv]),
    }
    return dict(json_ready(manifest))


def finished(path: Path, manifest: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether the very same calibrator was fitted before.

    Raises:
        ValueError: if the file holds another one.
    """
    if overwrite or not path.exists():
        return False
    _, there = load_calibrator(path)
    differing = [
        name
        for name in ("kind", "classes", "logits", "network", "fitted_on", "flags")
        if there.get(name) != manifest[name]
    ]
    if not differing:
        return True
    raise ValueError(
        f"{path} holds another calibrator, of other {', '.join(differing)}; name this one with"
        " --run_name or give --overwrite"
    )


def fit_on_sample(opts: Namespace, dataset: SegDataset, trained: Trained) -> Fitted:
    """Fit temperatures or a vector on a sample of pixels."""
    device = build.choose_device(opts)
    method = build.place(trained.method, opts, device)
    sampler = PixelSampler(
        opts.samples_per_image, opts.random_seed, features=opts.fit_calibrator == "cluster"
    )
    run_pass(
        build.build_predictor(opts, method, samples=opts.mc_samples),
        method.deployable(),
        progress(build.evaluation_batches(dataset, opts), desc="sample", unit="batch"),
        [sampler],
        prepare=partial(prepare, device=device, channels_last=opts.channels_last),
    )
    sample = sampler.sample()
    logger.info("%d pixels of %d images drawn", len(sample.labels), len(sample.ids))
    if not is_main():
        return Temperature(1.0, len(trained.class_names)), {}  # only the first process writes
    with torch.no_grad():
        return FITS[opts.fit_calibrator](opts, sample)


def fit_one_temperature(opts: Namespace, sample: PixelSample) -> Fitted:
    """One temperature, by calibration error over a grid or by likelihood."""
    fit = fit_temperature(sample.logits, sample.labels, opts.fit_objective, grid_of(opts))
    factor = 100 if opts.fit_objective == "ece" else 1
    found: dict[str, Any] = {"temperature": fit.temperature}
    if fit.before is not None and fit.after is not None:  # else all pixels are void
        found |= change(opts.fit_objective, factor * fit.before, factor * fit.after)
    return Temperature(fit.temperature, sample.logits.shape[1]), found


def fit_class_vector(opts: Namespace, sample: PixelSample) -> Fitted:  # noqa: ARG001 - one of FITS
    """A weight and a bias of each class, by likelihood."""
    calibrator = fit_vector(sample.logits, sample.labels)
    image = Prediction(sample.logits.t()[None, :, :, None])  # one column of pixels
    losses = [
        cross_entropy(each.logits, sample.labels[None, :, None].long(), ignore_index=IGNORE_INDEX)
        for each in (image, calibrator(image, torch.empty(0)))
    ]
    return calibrator, change("nll", losses[0].item(), losses[1].item())


def change(name: str, before: float, after: float) -> dict[str, Any]:
    """What fitting did to an error on the sample, with its unit."""
    return {name: {"before": before, "after": after, "unit": UNITS[name]}}


def fit_cluster_temperatures(opts: Namespace, sample: PixelSample) -> Fitted:
    """A temperature of each cluster of images."""
    assert sample.features is not None
    calibrator = fit_clusters(
        sample.logits,
        sample.labels,
        sample.image_of_pixel,
        sample.features,
        clusters=opts.n_clusters,
        clustering=opts.clustering_method,
        assignment=opts.cluster_assignment,
        seed=opts.random_seed,
        grid=grid_of(opts),
        objective=opts.fit_objective,
        per_class=opts.per_class_temperature,
    )
    return calibrator, {"temperatures": calibrator.temperatures.tolist()}


FITS: dict[str, Callable[[Namespace, PixelSample], Fitted]] = {
    "temperature": fit_one_temperature,
    "vector": fit_class_vector,
    "cluster": fit_cluster_temperatures,
}


def grid_of(opts: Namespace) -> TemperatureGrid:
    """The temperatures that are tried."""
    return TemperatureGrid(opts.min_t, opts.max_t, opts.t_step)


def readable(found: dict[str, Any]) -> list[tuple[str, str]]:
    """What a fit found as short texts."""
    return [(name, text_of(value)) for name, value in found.items()]


def text_of(value: Any) -> str:
    """A number, a list of numbers or a change with four digits, anything else as it is."""
    if isinstance(value, dict):
        return f"{value['before']:.4g} -> {value['after']:.4g} {value['unit']}"
    if isinstance(value, list):
        return " ".join(map(text_of, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
