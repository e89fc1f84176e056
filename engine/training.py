"""Training as an action: a run claimed, its data, method and validation, the loop, its end."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import nn

from datasets.base import SegDataset
from datasets.epochs import EpochOrder
from datasets.loaders import Batches, paired, train_batches
from datasets.taxonomy import ClassMapping
from engine import build, checkpoint
from engine.batch import prepare
from engine.checkpoint import Training
from engine.consumers import SampleTriptychs
from engine.evaluate import PredictionSource, run_pass
from engine.measuring import member_metrics
from engine.memory import ADVICE, free_gigabytes, training_gigabytes
from engine.restore import NO_SPLIT
from engine.run import Run, claim, run_name, training_alone
from engine.target_data import target_data
from engine.train import Stopped, Trainer, Validate, start, train
from engine.trained import mapping_between
from engine.training_data import count_epochs, epoch_order, training_data
from methods import Method
from utils.distributed import is_main, rank, world_size
from utils.log import RunLog, logger, progress
from utils.provenance import describe_device, write_opts
from utils.report import save_curves
from utils.types import Predict
from utils.visualizer import Visualizer

CLASS_STATISTICS = "class_statistics"  # folder of what is measured on training labels


class RunData(NamedTuple):
    """What a run sees.

    Attributes:
        train: to train on.
        held_out: to validate on; None for a run that does not validate.
        target: unlabelled images of another domain, of which every batch has as many.
        order: which images each epoch shows; None for every image once.
    """

    train: SegDataset
    held_out: SegDataset | None
    target: SegDataset | None = None
    order: EpochOrder | None = None


def run_training(opts: Namespace) -> int:
    """Train, or go on training; leave checkpoints, logs and curves."""
    dataset, target = training_data(opts), target_data(opts)
    held_out = None if opts.val_split == NO_SPLIT else build.evaluation_data(opts)
    if held_out is not None:
        mapping_between(dataset.class_names, held_out)  # refuses what cannot be compared
    run = Run(run_name(opts), opts.output_dir)
    order = epoch_order(opts, dataset, run.folder.parent / CLASS_STATISTICS)
    count_epochs(opts, order)
    with training_alone(run):
        return train_method(
            opts,
            run,
            RunData(dataset, held_out, target, order),
            lambda resumed: build.method_to_train(opts, dataset, resumed=resumed),
            partial(build.build_predictor, opts),
        )


def train_method(
    opts: Namespace,
    run: Run,
    data: RunData,
    make_method: Callable[[bool], Method],
    make_predictor: Callable[[Method], Predict | PredictionSource],
    epoch: int | None = None,
) -> int:
    """Claim a run and train a method in it, or go on; leave checkpoints, logs and curves.

    Args:
        opts: the flags of the run.
        run: where its files are.
        data: to train and to validate on.
        make_method: the method at its start; told whether a checkpoint will replace its weights.
        make_predictor: how validation runs the method.
        epoch: steps of an epoch, see ``Trainer``.

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
    method.prepare(data.train, run.folder.parent / CLASS_STATISTICS)
    training = start(build.place(method, opts, device), opts, device)
    if content is not None:
        checkpoint.resume(content, run.checkpoint("latest"), training)
    batches = batches_from(training.step, data, opts)
    if is_main():
        write_opts(run.folder, checkpoint.plain(opts), device=device)
    visualizer = open_visualizer(opts)
    trainer = Trainer(
        opts=opts,
        run=run,
        log=RunLog(run.folder, resume_step=training.step if content is not None else None),
        device=device,
        validate=held_out_validation(opts, method, data, make_predictor(method), visualizer),
        classes=data.train.classes,
        sampler={"seed": opts.random_seed, "images": len(data.train)},
        visualizer=visualizer,
        epoch=epoch,
    )
    announce(trainer, training, data)
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


def batches_from(step: int, data: RunData, opts: Namespace) -> Batches:
    """This process's share of the batches from a step on, without end."""
    stream = partial(
        train_batches,
        batch_size=opts.batch_size // (opts.accumulate * world_size()),
        accumulation=opts.accumulate,
        start_step=step,
        num_workers=opts.num_workers,
        rank=rank(),
        world_size=world_size(),
    )
    source = stream(data.train, seed=opts.random_seed, order=data.order)
    if data.target is None:
        return source
    return paired(source, stream(data.target, seed=data.target.seed))


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
    kind = "latest" if trainer.validate is None else "best"
    logger.info("finished: %s, logs and curves in %s", run.checkpoint(kind), run.folder)
    return 0


def announce(trainer: Trainer, training: Training, data: RunData) -> None:
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
        "%s: %d images to train on, %s to validate on, %d classes",
        data.train.name,
        len(data.train),
        "none" if data.held_out is None else len(data.held_out),
        data.train.num_classes,
    )
    if data.target is not None:
        logger.info("%s: %d images without labels to adapt to", data.target.name, len(data.target))
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


def held_out_validation(
    opts: Namespace,
    method: Method,
    data: RunData,
    predictor: Predict | PredictionSource,
    visualizer: Visualizer | None,
) -> Validate | None:
    """The validation of a run, in the classes that it and the held-out images have in common.

    None without such images.
    """
    if data.held_out is None:
        return None
    mapping = mapping_between(data.train.class_names, data.held_out)
    return validation(opts, method, data.held_out, predictor, mapping, visualizer)


def validation(
    opts: Namespace,
    method: Method,
    dataset: SegDataset,
    predictor: Predict | PredictionSource,
    mapping: ClassMapping | None = None,
    visualizer: Visualizer | None = None,
) -> Validate:
    """A function that scores a method on its device on held-out data and shows samples of it.

    Args:
        opts: the flags.
        method: on its device.
        dataset: to validate on.
        predictor: how the method is run.
        mapping: between the method's classes and the data set's, None where they are the same.
        visualizer: shows the samples.
    """
    names = mapping.names if mapping else dataset.class_names
    loader = build.evaluation_batches(dataset, opts)
    device = next(method.deployable().parameters()).device

    def validate() -> dict[str, Any]:
        """One pass over the held-out data."""
        metric = method.selection.metric(names)
        members = member_metrics(method, names)
        samples = SampleTriptychs(opts.vis_num_samples if visualizer else 0, dataset.palette)
        results = run_pass(
            predictor,
            method.deployable(),
            progress(loader, desc="validate", unit="batch"),
            [metric, *members, samples],
            prepare=partial(prepare, device=device, channels_last=opts.channels_last),
            mapping=mapping,
        )
        if visualizer is not None:
            for index, triptych in enumerate(samples.triptychs):
                visualizer.log_sample(index, *triptych)
        return results

    return validate
