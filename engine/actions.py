"""What main.py can be asked to do: one function an action, from flags to exit status."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from datasets.base import SegDataset
from datasets.loaders import eval_batches, train_batches
from datasets.statistics import check_data
from datasets.unlabelled import Unlabelled
from engine import build, checkpoint
from engine.batch import prepare
from engine.checkpoint import Training
from engine.consumers import PredictionWriter, SampleTriptychs, SaveResults, ServerWriter
from engine.evaluate import run_pass
from engine.memory import ADVICE, free_gigabytes, training_gigabytes
from engine.run import Run, claim, file_hash, refuse_other_result, result_file, run_name
from engine.train import Trainer, Validate, start, train
from metrics import METRICS
from utils.distributed import is_main, rank, world_size
from utils.files import write_json
from utils.log import RunLog, logger, progress
from utils.provenance import describe_device, git_state, write_opts
from utils.report import results_table, save_curves
from utils.types import Consumer
from utils.visualizer import Visualizer


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
        opts.model,
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
    loader = evaluation_batches(dataset, opts)
    predictor = build.build_predictor(opts, training.method)

    def validate() -> dict[str, Any]:
        metric = METRICS["segmentation"](dataset.class_names)
        samples = SampleTriptychs(opts.vis_num_samples if visualizer else 0, dataset.palette)
        results = run_pass(
            predictor,
            training.method.deployable(),
            progress(loader, desc="validate", unit="batch"),
            [metric, samples],
            prepare=partial(prepare, device=device, channels_last=opts.channels_last),
        )
        if visualizer is not None:
            for index, triptych in enumerate(samples.triptychs):
                visualizer.log_sample(index, *triptych)
        return results

    return validate


def evaluation_batches(dataset: SegDataset, opts: Namespace) -> Any:
    """This process's share of a data set, in order."""
    return eval_batches(
        dataset,
        batch_size=opts.val_batch_size,
        num_workers=opts.num_workers,
        rank=rank(),
        world_size=world_size(),
    )


def run_test(opts: Namespace) -> int:
    """Evaluate ``--ckpt``; print the table, write the result file and, if asked, pictures."""
    dataset = build.evaluation_data(opts)
    path = result_file(opts, dataset.name)
    sha256 = file_hash(opts.ckpt)
    refuse_other_result(path, opts, sha256)
    build.be_deterministic(opts)
    trained = build.trained_method(opts)
    mapping = build.mapping_between(trained, dataset)
    device = build.choose_device(opts)
    method = build.place(trained.method, opts, device)
    names = mapping.names if mapping else dataset.class_names
    palette = trained.palette if names == trained.class_names else dataset.palette
    metrics = [METRICS[name](names) for name in opts.metrics]
    writers = test_writers(opts, dataset, palette, mapped=mapping is not None)
    began = time.perf_counter()
    results = run_pass(
        build.build_predictor(opts, method),
        method.deployable(),
        progress(evaluation_batches(dataset, opts), desc="test", unit="batch"),
        [*metrics, *writers],
        prepare=partial(prepare, device=device, channels_last=opts.channels_last),
        mapping=mapping,
    )
    if not is_main():
        return 0
    write_json(
        path,
        {
            "checkpoint": {"path": opts.ckpt, "sha256": sha256, "step": trained.step},
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


def test_writers(
    opts: Namespace, dataset: SegDataset, palette: Tensor, *, mapped: bool
) -> list[Consumer]:
    """The writers behind ``--save_val_results`` and ``--server_format``.

    Raises:
        ValueError: if the server's ids are asked of a network with other classes.
    """
    folder = result_file(opts, dataset.name).with_suffix("")
    writers: list[Consumer] = []
    if opts.save_val_results:
        writers.append(SaveResults(folder, palette))
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


def run_prediction(opts: Namespace) -> int:
    """Label images that have no labels."""
    dataset = Unlabelled(opts.predict)
    trained = build.trained_method(opts)
    device = build.choose_device(opts)
    method = build.place(trained.method, opts, device)
    folder = opts.output_dir / "predictions" / (opts.run_name or opts.ckpt.stem)
    writer = PredictionWriter(
        folder, trained.palette, trained.class_names, save_probs=opts.save_probs
    )
    run_pass(
        build.build_predictor(opts, method),
        method.deployable(),
        progress(evaluation_batches(dataset, opts), desc="predict", unit="batch"),
        [writer],
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
