"""The train loop: the only one, for every method."""

from __future__ import annotations

import signal
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

from datasets.taxonomy import SegClass
from engine import checkpoint
from engine.averaging import WeightAverage
from engine.batch import prepare
from engine.checkpoint import Training, exhausted, last_step
from engine.memory import memory_advice
from engine.meter import Meter, NonFiniteLossError, joint_logs
from engine.run import Run, member_run_name
from engine.stop import StopRequest
from methods.base import MIOU, Method
from methods.ensemble import member_flags
from utils.distributed import any_process, rank, world_size
from utils.log import Progress, RunLog, logger, progress
from utils.scheduler import scale_rates
from utils.types import Batch, StepOutput
from utils.visualizer import Visualizer

AMP_DTYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
Validate = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Stopped:
    """Why a run ended before its last step."""

    signal: signal.Signals


def autocast(device: torch.device, amp: str) -> AbstractContextManager:
    """Autocast in the type behind ``--amp`` or ``--eval_amp``."""
    dtype = AMP_DTYPES[amp]
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def start(method: Method, opts: Namespace, device: torch.device) -> Training:
    """A run at step 0: optimizers, schedules and scaler around a method on its device.

    The scaler is on in every precision, since it is what masks an update whose gradients are not
    finite without asking the device; outside fp16 its scale is 1.
    """
    optimizers = method.optimizers()
    if opts.lr_batch_size is not None:
        factor = opts.batch_size / opts.lr_batch_size
        scale_rates(optimizers.values(), factor)
        logger.info(
            "learning rates times %g: they are for batches of %d, and these are of %d",
            factor,
            opts.lr_batch_size,
            opts.batch_size,
        )
    return Training(
        method=method,
        average=WeightAverage(method.deployable(), opts.ema) if opts.ema else None,
        optimizers=optimizers,
        schedules=method.schedules(optimizers),
        scaler=(
            GradScaler(device.type)
            if opts.amp == "fp16"
            else GradScaler(device.type, init_scale=1.0, growth_interval=2**31 - 1)
        ),
    )


def parallel(method: Method, device: torch.device) -> nn.Module:
    """The method, wrapped where there is more than one process."""
    if world_size() == 1:
        return method
    return DistributedDataParallel(
        method,
        device_ids=[device.index] if device.type == "cuda" else None,
        find_unused_parameters=method.skips_parameters,
        gradient_as_bucket_view=True,
    )


def seed_step(seed: int, step: int) -> None:
    """Seed dropout and the like by (seed, step, rank), so that a resumed run repeats them."""
    torch.manual_seed(((seed * 1_000_003 + step) * 4_099 + rank()) % 2**63)


def optimizer_step(
    module: nn.Module, batches: list[Batch], training: Training, amp: AbstractContextManager
) -> StepOutput:
    """One update from one or more micro-batches: one backward each over the sum of the losses.

    Returns:
        The last micro-batch's names with losses and logs joined over the micro-batches.
    """
    for optimizer in training.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    outputs = []
    for number, batch in enumerate(batches, 1):
        wait = number < len(batches) and isinstance(module, DistributedDataParallel)
        with module.no_sync() if wait else nullcontext():  # type: ignore[operator]
            with amp:
                out: StepOutput = module(batch, training.step)
            total = torch.stack(list(out.losses.values())).sum() / len(batches)
            training.scaler.scale(total).backward()
        outputs.append(out)
    for name in outputs[-1].losses:
        training.scaler.step(training.optimizers[name])
    training.scaler.update()
    if training.average is not None:
        training.average.update(training.step + 1)
    for schedule in training.schedules.values():
        schedule.step()
    losses = {
        name: torch.stack([out.losses[name].detach() for out in outputs]).mean()
        for name in outputs[-1].losses
    }
    return StepOutput(losses, joint_logs([out.logs for out in outputs]))


@dataclass
class Trainer:
    """What the loop needs beside the state of the training.

    Attributes:
        epoch: steps of an epoch, at whose end a validation is due and ``--val_interval`` counts
            anew; None for validations by ``--val_interval`` alone.
        first: whether the next validation is this process's first.
    """

    opts: Namespace
    run: Run
    log: RunLog
    device: torch.device
    validate: Validate | None
    classes: tuple[SegClass, ...]
    sampler: dict[str, Any]
    visualizer: Visualizer | None = None
    epoch: int | None = None
    first: bool = True

    def due(self, step: int) -> bool:
        """Whether a validation follows that many steps."""
        return (step % self.epoch if self.epoch else step) % int(self.opts.val_interval) == 0

    def save(self, training: Training, *, best: bool = False) -> None:
        """Write the latest checkpoint, and the best one where this is it."""
        # The latest comes last: it is what a run that is killed in between goes on from.
        kinds = ("best", "latest") if best else ("latest",)
        paths = [self.run.checkpoint(kind) for kind in kinds]
        checkpoint.save(paths, training, opts=self.opts, classes=self.classes, sampler=self.sampler)

    def validated(self, training: Training) -> None:
        """Validate, log the scores, keep the best; without held-out data, save."""
        if self.validate is None:
            self.save(training)
            return
        training.method.eval()
        with training.deployed():
            results = self.validate()
        training.method.train()
        if self.first:
            warn_of_absent_classes(results["total"].get("class_accuracy", {}))
            self.first = False
        selection = training.method.selection
        score = results["total"][selection.score]
        best = selection.better(score, training.best_score)
        training.stale = 0 if best else training.stale + 1
        if best:
            training.best_score = score
        better = self.better_members(training, results.get("member", {}))
        self.log.log_scalars("val", training.step, scalars(results))
        if self.visualizer is not None and selection is MIOU:
            self.visualizer.log_validation(training.step, results)
        for name in better:
            self.save_member(training, name)
        self.save(training, best=best)
        members = [
            f"  {name} {MIOU.text(values['miou'])}"
            for name, values in results.get("member", {}).items()
        ]
        logger.info(
            "step %d/%d  val %s %s  best %s%s",
            training.step,
            last_step(self.opts),
            selection.title,
            selection.text(score),
            selection.text(training.best_score),
            "".join(members),
        )

    def better_members(self, training: Training, results: Mapping[str, Any]) -> list[str]:
        """The members of an ensemble that are better than before; their scores are kept."""
        better = {
            name: values["miou"]
            for name, values in results.items()
            if MIOU.better(values["miou"], training.member_scores.get(name))
        }
        training.member_scores |= better
        return list(better)

    def save_member(self, training: Training, name: str) -> None:
        """Write the best checkpoint of one member, as a network of its own."""
        own = member_flags(self.opts, name.partition("-")[0])
        own.method = "supervised"
        path = Run(member_run_name(self.opts, name), self.run.output_dir).checkpoint("best")
        checkpoint.save_member(path, name, training, opts=own, classes=self.classes)


def warn_of_absent_classes(accuracy: Mapping[str, float | None]) -> None:
    """Say once which classes no label of the validation data holds."""
    absent = [name for name, value in accuracy.items() if value is None]
    if absent:
        logger.warning("no validation label shows %s: n/a in the tables", ", ".join(absent))


def scalars(results: dict[str, Any]) -> dict[str, float]:
    """The single numbers of a result, those of a group under ``group/name``."""
    flat = {name: v for name, v in results["total"].items() if isinstance(v, int | float)}
    groups = {**results.get("condition", {}), **results.get("member", {})}
    for group, values in groups.items():
        flat |= {f"{group}/{n}": v for n, v in values.items() if isinstance(v, int | float)}
    return flat


def train(training: Training, batches: Iterator[Batch], trainer: Trainer) -> Stopped | None:
    """Train to the last step, or until validation has not improved for ``--patience``.

    Nothing in the loop waits for the device except where a number is printed.

    Returns:
        Why it was stopped before its end, None if it was not.

    Raises:
        NonFiniteLossError: naming the step and its images; the last finite state is saved.
    """
    opts, device, end = trainer.opts, trainer.device, last_step(trainer.opts)
    training.method.train()
    module = parallel(training.method, device)
    meter = Meter(device)
    bar: Progress[Any] = progress(total=end, initial=training.step, desc="train", unit="it")
    with StopRequest() as stop, memory_advice("train"), bar:
        if training.method.selection.from_start and training.best_score is None:
            trainer.validated(training)
        while training.step < end and not exhausted(training.stale, opts.patience):
            seed_step(opts.random_seed, training.step)
            micro = [
                prepare(next(batches), device, channels_last=opts.channels_last)
                for _ in range(opts.accumulate)
            ]
            out = optimizer_step(module, micro, training, autocast(device, opts.amp))
            meter.add(training.step, out, [name for batch in micro for name in batch["id"]])
            training.step += 1
            bar.update()
            last = training.step == end
            due = last or trainer.due(training.step)
            if due or training.step % opts.print_interval == 0:
                report(training, meter, trainer, bar)
            if stop.agreed(training.step, opts.print_interval, device) and not last:
                trainer.save(training)
                return Stopped(stop.signal or signal.SIGTERM)
            if due:
                trainer.validated(training)
                meter.reset()
    if training.step < end:
        logger.info(
            "stopped at step %d: no improvement in %d validations", training.step, training.stale
        )
    return None


def report(training: Training, meter: Meter, trainer: Trainer, bar: Progress[Any]) -> None:
    """Log the means since the last report and check that they are finite."""
    try:
        values = meter.means()
    except NonFiniteLossError as error:
        raise NonFiniteLossError(f"{error}; {keep_finite(training, trainer)}") from None
    training.method.noticed(values, training.step)
    seconds = time.perf_counter() - meter.began
    values["images_per_second"] = meter.steps * trainer.opts.batch_size / seconds
    for name, schedule in training.schedules.items():
        key = "lr" if len(training.schedules) == 1 else f"lr_{name}"
        values[key] = float(schedule.get_last_lr()[-1])
    trainer.log.log_scalars("train", training.step, values)
    if trainer.visualizer is not None:
        trainer.visualizer.log_loss(training.step, values["loss"])
    rate = next(value for name, value in values.items() if name.startswith("lr"))
    bar.set_postfix(loss=values["loss"], lr=rate, images_per_second=values["images_per_second"])
    meter.reset()


def keep_finite(training: Training, trainer: Trainer) -> str:
    """Save the state if it is finite, and say what there is to go on from."""
    latest = trainer.run.checkpoint("latest")
    state = training.method.state_dict().values()
    finite = all(bool(torch.isfinite(t).all()) for t in state if t.is_floating_point())
    if not any_process(not finite, trainer.device):
        trainer.save(training)
        return f"the state before it was saved to {latest}. Try a smaller --lr or check the images"
    if latest.is_file():
        return f"{latest} holds the last finite state. Try a smaller --lr or check the images"
    return "no checkpoint had been written yet. Try a smaller --lr or check the images"
