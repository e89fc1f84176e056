"""What main.py can be asked to do: one function an action, from flags to exit status."""

from __future__ import annotations

import sys
from argparse import Namespace
from functools import partial
from typing import Any

import torch

from datasets.base import SegDataset
from datasets.loaders import train_batches
from datasets.statistics import check_data
from datasets.unlabelled import Unlabelled
from engine import build, checkpoint
from engine.batch import prepare
from engine.checkpoint import Training
from engine.consumers import PredictionWriter, SampleTriptychs
from engine.evaluate import run_pass
from engine.memory import ADVICE, free_gigabytes, training_gigabytes
from engine.run import (
    Run,
    claim,
    joint_hash,
    network_name,
    run_name,
)
from engine.score_maps import score_writers
from engine.testing import member_metrics
from engine.train import Trainer, Validate, start, train
from engine.trained import checkpoints, trained_method
from metrics import METRICS
from uncertainty import SCORES
from utils.distributed import is_main, rank, world_size
from utils.log import RunLog, logger, progress
from utils.provenance import describe_device, write_opts
from utils.report import save_curves
from utils.visualizer import Visualizer

PREDICTION_SCORES = ("entropy", "instance")  # the maps of --predict where --scores names none


def run_training(opts: Namespace) -> int:
    """Train, or go on training; leave checkpoints, logs and curves."""
    dataset, held_out = build.training_data(opts), build.evaluation_data(opts)
    run = Run(run_name(opts), opts.output_dir)
    content = claim(run, opts)
    build.be_deterministic(opts)
    torch.manual_seed(opts.random_seed)
    method = build.method_to_train(opts, dataset, resumed=content is not None)
    device = build.choose_device(opts)
    method.prepare(dataset, run.folder.parent / "class_statistics")
    training = start(build.place(method, opts, device), opts, device)
    if content is not None:
        checkpoint.resume(content, run.checkpoint("latest"), training)
    sampler = {"seed": opts.random_seed, "images": len(dataset)}
    batches = train_batches(
        dataset,
        batch_size=opts.batch_size // (opts.accumulate * world_size()),
        accumulation=opts.accumulate,
        seed=opts.random_seed,
        start_step=training.step,
        num_workers=opts.num_workers,
        rank=rank(),
        world_size=world_size(),
    )
    if is_main():
        write_opts(run.folder, checkpoint.plain(opts), device=device)
    visualizer = Visualizer(opts.vis_port, opts.vis_env) if opts.enable_vis else None
    trainer = Trainer(
        opts=opts,
        run=run,
        log=RunLog(run.folder, resume_step=training.step if content is not None else None),
        device=device,
        validate=validation(opts, training, held_out, device, visualizer),
        classes=dataset.classes,
        sampler=sampler,
        visualizer=visualizer,
    )
    if visualizer is not None:
        visualizer.log_options(checkpoint.plain(opts))
    announce(trainer, training, dataset, held_out)
    stopped = train(training, batches, trainer)
    batches.close()
    trainer.log.close()
    if visualizer is not None:
        visualizer.close()
    if is_main():
        save_curves(trainer.log.path, run.folder / "curves.png", run.name)
    if stopped is not None:
        logger.info(
            "stopped at step %d of %d and saved; go on with --continue_training",
            training.step,
            opts.total_itrs,
        )
        return 128 + stopped.signal
    logger.info("finished: %s, logs and curves in %s", run.checkpoint("best"), run.folder)
    return 0


def announce(
    trainer: Trainer, training: Training, dataset: SegDataset, held_out: SegDataset
) -> None:
    """Log what is about to be trained, on what, and whether its memory will do."""
    opts = trainer.opts
    network = training.method.deployable()
    logger.info(
        "run %s: %s, %.1f million parameters, on %s",
        trainer.run.name,
        ", ".join(training.method.members()) or opts.model,
        sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        f"{world_size()} x {describe_device(trainer.device)}",
    )
    logger.info(
        "%s: %d images to train on, %d to validate on, %d classes",
        opts.dataset,
        len(dataset),
        len(held_out),
        dataset.num_classes,
    )
    images = opts.batch_size // (opts.accumulate * world_size())
    needed = training_gigabytes(network, (images, *opts.crop_size), half=opts.amp != "off")
    free = free_gigabytes(trainer.device)
    logger.info("a training step takes about %.1f GB of memory; %.0f GB are free", needed, free)
    if needed > free:
        logger.warning("that may be too much: %s", ADVICE["train"])
    if training.step:
        logger.info("going on at step %d of %d", training.step, opts.total_itrs)


def validation(
    opts: Namespace,
    training: Training,
    dataset: SegDataset,
    device: torch.device,
    visualizer: Visualizer | None,
) -> Validate:
    """A function that scores the method on the held-out data and shows samples of it."""
    loader = build.evaluation_batches(dataset, opts)
    predictor = build.build_predictor(opts, training.method)

    def validate() -> dict[str, Any]:
        """One pass over the held-out data."""
        metric = METRICS["segmentation"](dataset.class_names)
        members = member_metrics(training.method, dataset.class_names)
        samples = SampleTriptychs(opts.vis_num_samples if visualizer else 0, dataset.palette)
        results = run_pass(
            predictor,
            training.method.deployable(),
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
    trained = trained_method(opts)
    device = build.choose_device(opts)
    method = build.place(trained.method, opts, device)
    network = network_name(opts, joint_hash(checkpoints(opts)))
    folder = opts.output_dir / "predictions" / (opts.run_name or network)
    writer = PredictionWriter(
        folder, trained.palette, trained.class_names, save_probs=opts.save_probs
    )
    scores = PREDICTION_SCORES if opts.scores is None else opts.scores
    maps = score_writers(
        folder, [SCORES[name] for name in scores], trained.palette, trained.class_names
    )
    run_pass(
        build.build_predictor(opts, method, samples=opts.mc_samples),
        method.deployable(),
        progress(build.evaluation_batches(dataset, opts), desc="predict", unit="batch"),
        [writer, *maps],
        prepare=partial(prepare, device=device, channels_last=opts.channels_last),
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
