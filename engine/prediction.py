"""Prediction as an action: labels and maps of images that have no labels."""

from __future__ import annotations

from argparse import Namespace
from functools import partial

from datasets import DATASETS
from datasets.unlabelled import Unlabelled
from engine import build, calibration
from engine.batch import prepare
from engine.consumers import PredictionWriter
from engine.evaluate import run_pass
from engine.run import network_name
from engine.score_maps import score_writers
from engine.scoring import build_scores
from engine.trained import network_hash, trained_method
from utils.log import logger, progress

PREDICTION_SCORES = ("entropy", "instance")  # the maps of --predict where --scores names none


def run_prediction(opts: Namespace) -> int:
    """Label images that have no labels."""
    dataset = Unlabelled(opts.predict)
    trained = trained_method(opts, DATASETS[opts.dataset].classes)
    sha256 = network_hash(opts, trained, dataset)
    loaded = calibration.load_fitting(opts, trained, sha256)
    device = build.choose_device(opts)
    method = build.place(trained.method, opts, device)
    network = network_name(opts, sha256) + (f"_{loaded.label}" if loaded else "")
    folder = opts.output_dir / "predictions" / (opts.run_name or network)
    writer = PredictionWriter(
        folder, trained.palette, trained.class_names, save_probs=opts.save_probs
    )
    scores = dict.fromkeys((*(opts.scores or ()), *(opts.ood_score or ())))
    if opts.scores is None and opts.ood_score is None:
        scores = dict.fromkeys(PREDICTION_SCORES)
    maps = score_writers(
        folder,
        build_scores(opts, scores, trained, sha256),
        trained.palette,
        trained.class_names,
    )
    run_pass(
        build.build_predictor(opts, method, samples=opts.mc_samples),
        method.deployable(),
        progress(build.evaluation_batches(dataset, opts), desc="predict", unit="batch"),
        [writer, *maps],
        prepare=partial(prepare, device=device, channels_last=opts.channels_last),
        calibrator=loaded.calibrator if loaded else None,
    )
    logger.info("%d images labelled, in %s", len(dataset), folder)
    return 0
