"""What main.py can be asked to do: one function an action, from flags to exit status."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from datasets import DATASETS
from datasets.base import SegDataset
from datasets.epochs import EpochOrder
from datasets.loaders import Batches, train_batches
from datasets.statistics import check_data
from datasets.unlabelled import Unlabelled
from engine import build, calibration, checkpoint
from engine.batch import prepare
from engine.checkpoint import Training
from engine.consumers import PredictionWriter, SampleTriptychs
from engine.evaluate import PredictionSource, run_pass
from engine.measuring import member_metrics
from engine.memory import ADVICE, free_gigabytes, training_gigabytes
from engine.run import Run, claim, network_name, run_name
from engine.score_maps import score_writers
from engine.scoring import build_scores
from engine.train import Stopped, Trainer, Validate, start, train
from engine.trained import network_hash, trained_method
from engine.training_data import count_epochs, epoch_order, training_data
from methods import Method
from utils.distributed import is_main, rank, world_size
from utils.log import RunLog, logger, progress
from utils.provenance import describe_device, write_opts
from utils.report import save_curves
from utils.types import Predict
from utils.visualizer import Visualizer

CLASS_STATISTICS = "class_statistics"  # folder of what is measured on training labels
PREDICTION_SCORES = ("entropy", "instance")  # the maps of --predict where --scores names none


def run_training(opts: Namespace) -> int:
    """Train, or go on training; leave checkpoints, logs and curves."""
    dataset, held_out = training_data(opts), build.evaluation_data(opts)
    run = Run(run_name(opts), opts.output_dir)
    order = epoch_order(opts, dataset, run.folder.parent / CLASS_STATISTICS)
    count_epochs(opts, order)
    return train_method(
        opts,
        run,
        dataset,
        held_out,
        lambda resumed: build.method_to_train(opts, dataset, resumed=resumed),
        partial(build.build_predictor, opts),
        order=order,
    )


def train_method(
    opts: Namespace,
    run: Run,
    dataset: SegDataset,
    held_out: SegDataset,
    make_method: Callable[[bool], Method],
    make_predictor: Callable[[Method], Predict | PredictionSource],
    epoch: int | None = None,
    order: EpochOrder | None = None,
) -> int:
    """Claim a run and train a method in it, or go on; leave checkpoints, logs and curves.

    Args:
        opts: the flags of the run.
        run: where its files are.
        dataset: to train on.
        held_out: to validate on.
        make_method: the method at its start; told whether a checkpoint will replace its weights.
        make_predictor: how validation runs the method.
        epoch: steps of an epoch, see ``Trainer``.
        order: which images each epoch shows; None for every image once.

    Returns:
        The exit status: 0, or 128 and the number of the signal that stopped it.

    Raises:
        ValueError: as ``claim`` does, or if the data or the method do not fit.
        FinishedRun: if the run has finished.
    """
    content = claim(run, opts)
    build.be_deterministic(opts)
    torch.manual_seed(opts.random_seed)
    method = make_method(content is not None)
    device = build.choose_device(opts)
    method.prepare(dataset, run.folder.parent / CLASS_STATISTICS)
    training = start(build.place(method, opts, device), opts, device)
    if content is not None:
        checkpoint.resume(content, run.checkpoint("latest"), training)
    batches = batches_from(training.step, dataset, opts, order)
    if is_main():
        write_opts(run.folder, checkpoint.plain(opts), device=device)
    visualizer = open_visualizer(opts)
    trainer = Trainer(
        opts=opts,
        run=run,
        log=RunLog(run.folder, resume_step=training.step if content is not None else None),
        device=device,
        validate=validation(opts, method, held_out, make_predictor(method), visualizer),
        classes=dataset.classes,
        sampler={"seed": opts.random_seed, "images": len(dataset)},
        visualizer=visualizer,
        epoch=epoch,
    )
    announce(trainer, training, dataset, held_out)
    stopped = train(training, batches, trainer)
    batches.close()
    trainer.log.close()
    if visualizer is not None:
        visualizer.close()
    if is_main():
        save_curves(trainer.log.path, run.folder / "curves.png", run.name)
    return tell_end(trainer, training, stopped)


def open_visualizer(opts: Namespace) -> Visualizer | None:
    """The windows of ``--enable_vis``, which show the flags at once."""
    if not opts.enable_vis:
        return None
    visualizer = Visualizer(opts.vis_port, opts.vis_env)
    visualizer.log_options(checkpoint.plain(opts))
    return visualizer


def batches_from(
    step: int, dataset: SegDataset, opts: Namespace, order: EpochOrder | None = None
) -> Batches:
    """This process's share of the batches from a step on, without end."""
    return train_batches(
        dataset,
        batch_size=opts.batch_size // (opts.accumulate * world_size()),
        accumulation=opts.accumulate,
        seed=opts.random_seed,
        start_step=step,
        num_workers=opts.num_workers,
        rank=rank(),
        world_size=world_size(),
        order=order,
    )


def tell_end(trainer: Trainer, training: Training, stopped: Stopped | None) -> int:
    """Log how a run ended and return its exit status."""
    run = trainer.run
    if stopped is not None:
        logger.info(
            "stopped at step %d of %d and saved; go on with --continue_training",
            training.step,
            trainer.opts.total_itrs,
        )
        return 128 + stopped.signal
    logger.info("finished: %s, logs and curves in %s", run.checkpoint("best"), run.folder)
    return 0


def announce(
    trainer: Trainer, training: Training, dataset: SegDataset, held_out: SegDataset
) -> None:
    """Log what is about to be trained, on what, and whether its memory will do."""
    opts, method = trainer.opts, training.method
    count = sum(parameter.numel() for parameter in method.deployable().parameters())
    logger.info(
        "run %s: %s, %s parameters, on %s",
        trainer.run.name,
        ", ".join(method.members()) or (opts.model if method.trains_network else opts.method),
        f"{count / 1e6:.1f} million" if method.trains_network else f"{count:,}",
        f"{world_size()} x {describe_device(trainer.device)}",
    )
    logger.info(
        "%s: %d images to train on, %d to validate on, %d classes",
        dataset.name,
        len(dataset),
        len(held_out),
        dataset.num_classes,
    )
    if method.trains_network:
        announce_memory(trainer, method.deployable())
    if training.step:
        logger.info("going on at step %d of %d", training.step, opts.total_itrs)


def announce_memory(trainer: Trainer, network: nn.Module) -> None:
    """Log the memory that a training step of a network takes, and warn where there is less."""
    opts = trainer.opts
    images = opts.batch_size // (opts.accumulate * world_size())
    needed = training_gigabytes(network, (images, *opts.crop_size), half=opts.amp != "off")
    free = free_gigabytes(trainer.device)
    logger.info("a training step takes about %.1f GB of memory; %.0f GB are free", needed, free)
    if needed > free:
        logger.warning("that may be too much: %s", ADVICE["train"])


def validation(
    opts: Namespace,
    method: Method,
    dataset: SegDataset,
    predictor: Predict | PredictionSource,
    visualizer: Visualizer | None = None,
) -> Validate:
    """A function that scores a method on its device on held-out data and shows samples of it."""
    loader = build.evaluation_batches(dataset, opts)
    device = next(method.deployable().parameters()).device

    def validate() -> dict[str, Any]:
        """One pass over the held-out data."""
        metric = method.selection.metric(dataset.class_names)
        members = member_metrics(method, dataset.class_names)
        samples = SampleTriptychs(opts.vis_num_samples if visualizer else 0, dataset.palette)
        results = run_pass(
            predictor,
            method.deployable(),
            progress(loader, desc="validate", unit="batch"),
            [metric, *members, samples],
            prepare=partial(prepare, device=device, channels_last=opts.channels_last),
        )
        if visualizer is not None:
            for index, triptych in enumerate(samples.triptychs):
                visualizer.log_sample(index, *triptych)
        return results

    return validate


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


def run_data_check(opts: Namespace) -> int:
    """Read every label of the training and the validation split and report."""
    reports = [check_data(build.data_set(opts, split, None)) for split in splits(opts)]
    sys.stdout.write("\n\n".join(map(str, reports)) + "\n")
    return int(any(report.problems for report in reports))


def splits(opts: Namespace) -> list[str]:
    """The training and the validation split, once where they are one."""
    return list(dict.fromkeys((opts.train_split, opts.val_split)))
