"""What the instance uncertainty costs in a training step of the online ensemble."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import Samples, interleave, ratio
from engine.batch import prepare
from engine.build import place
from engine.train import autocast, optimizer_step, parallel, start
from methods.ensemble import Ensemble
from options import parse
from utils.types import IGNORE_INDEX, Batch

NUM_CLASSES = 19
BATCH_SIZE = 2
SIZE, QUICK_SIZE = 768, 64
SMALL = ("deeplabv3plus_mobilenet",) * 3
PUBLISHED = ("deeplabv3plus_resnet101", "deeplabv3plus_resnet50", "deeplabv3plus_mobilenet")
WITH, WITHOUT = "uncertainty_cross_entropy", "cross_entropy"
PRECISIONS = {"float32": "off", "bf16": "bf16"}
TARGETS = {"cpu": 0.10, "cuda": 0.05}
STEPS_PER_SAMPLE_ON_GPU = 5

METHOD = """\
`engine.train.optimizer_step` of `--model ensemble`: forward passes of the members, uncertainty,
losses, one backward pass, an Adam update for each member. Two images of 768x768, noise enlarged
16 times, 19 classes, output stride 16, random weights. `U` is the time of `Ensemble.uncertainty`
within that step, from the members' logits to the map that weighs the pixels; `without U` is the
step with `--loss_type cross_entropy`. The two steps take turns. Members are three MobileNetV2; on a
GPU, and on a CPU with `--repeats 1`, also the published ResNet101, ResNet50 and MobileNetV2. The
targets are about the CPU time, on a GPU about its own."""


class Mark(NamedTuple):
    """A moment: of the clock, of the process's CPU time and, on a GPU, in its queue."""

    wall: float
    cpu: float
    event: torch.cuda.Event | None


def mark(device: torch.device) -> Mark:
    """This moment."""
    event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
    if event is not None:
        event.record()
    return Mark(time.perf_counter(), time.process_time(), event)


class TimedEnsemble(Ensemble):
    """The online ensemble; ``spans`` holds beginning and end of each call of ``uncertainty``."""

    def __init__(self, opts: Namespace, num_classes: int) -> None:
        super().__init__(opts, num_classes)
        self.spans: list[tuple[Mark, Mark]] = []

    def uncertainty(self, member_logits: Sequence[Tensor]) -> Tensor:
        """As in training, between two marks."""
        device = member_logits[0].device
        began = mark(device)
        found = super().uncertainty(member_logits)
        self.spans.append((began, mark(device)))
        return found

    def samples(self, repeats: int, calls: int) -> Samples:
        """Seconds per call in each of the last samples of ``calls`` calls."""
        assert len(self.spans) >= repeats * calls, "the uncertainty is computed in every step"
        costs = [cost(*span) for span in self.spans[-repeats * calls :]]
        walls = [ended.wall - began.wall for began, ended in self.spans[-repeats * calls :]]
        return Samples(means(costs, calls), means(walls, calls))


def cost(began: Mark, ended: Mark) -> float:
    """Seconds between two marks: on a GPU its own, else CPU time."""
    if began.event is None or ended.event is None:
        return ended.cpu - began.cpu
    return began.event.elapsed_time(ended.event) / 1000


def means(values: Sequence[float], size: int) -> list[float]:
    """The mean of every ``size`` values that follow each other."""
    return [sum(values[first : first + size]) / size for first in range(0, len(values), size)]


def run(settings: Settings) -> Section:
    """Every choice of members in every precision."""
    section = Section("Online ensemble", METHOD)
    rows: list[Row] = []
    for members in member_choices(settings):
        for precision, amp in list(PRECISIONS.items())[-1 if settings.quick else 0 :]:
            samples = measure(members, amp, settings)
            names = "three MobileNetV2" if members == SMALL else "as published"
            share = ratio(samples["U"], samples[WITH])
            rows.append(row(names, precision, samples, settings.device))
            what = f"uncertainty of {names}, {precision}, of the step's time"
            bound = TARGETS[settings.device.type]
            section.targets.append(Target(what, share.median, bound, at_most=True))
    section.tables.append(Table("Seconds per step:", rows))
    return section


def member_choices(settings: Settings) -> list[tuple[str, ...]]:
    """The members to measure on this device."""
    published = settings.device.type == "cuda" or settings.repeats == 1
    return [SMALL, PUBLISHED] if published and not settings.quick else [SMALL]


def row(names: str, precision: str, samples: dict[str, Samples], device: torch.device) -> Row:
    """One line of the table."""
    unit = "GPU s" if device.type == "cuda" else "CPU s"
    return {
        "members": names,
        "precision": precision,
        f"step, {unit}": samples[WITH].median,
        f"U, {unit}": samples["U"].median,
        f"without U, {unit}": samples[WITHOUT].median,
        "U of the step": ratio(samples["U"], samples[WITH]),
        "step of that without U": ratio(samples[WITH], samples[WITHOUT]),
        "step, wall s": samples[WITH].wall_median,
        "U, wall s": samples["U"].wall_median,
    }


def measure(members: Sequence[str], amp: str, settings: Settings) -> dict[str, Samples]:
    """The step with and without the uncertainty, and the uncertainty within the step."""
    repeats = settings.rounds(3)
    calls = STEPS_PER_SAMPLE_ON_GPU if settings.device.type == "cuda" else 1
    methods = {loss: ensemble(members, loss, amp, settings) for loss in (WITH, WITHOUT)}
    samples = interleave(
        {loss: step(method, settings.device) for loss, method in methods.items()},
        repeats=repeats,
        calls=calls,
        device=settings.device,
    )
    return {**samples, "U": methods[WITH].samples(repeats, calls)}


def ensemble(members: Sequence[str], loss: str, amp: str, settings: Settings) -> TimedEnsemble:
    """The method on its device, the same weights each time."""
    flags = ["--dataset", "cityscapes", "--data_root", ".", "--pretrained_backbone", "none"]
    flags += ["--model", "ensemble", "--loss_type", loss, "--amp", amp, "--lr", "0.0001"]
    flags += ["--crop_size", str(side(settings)), "--batch_size", str(BATCH_SIZE)]
    for member in members:
        flags += ["--member", member]
    opts = parse(flags)
    torch.manual_seed(0)
    method = place(TimedEnsemble(opts, NUM_CLASSES), opts, settings.device).train()
    assert isinstance(method, TimedEnsemble)
    return method


def step(method: TimedEnsemble, device: torch.device) -> Callable[[], Any]:
    """One step of the train loop on a batch that is already on the device."""
    training = start(method, method.opts, device)
    module = parallel(method, device)
    batch = prepare(loaded_batch(method.opts.crop_size), device)

    def update() -> None:
        optimizer_step(module, [batch], training, autocast(device, method.opts.amp))
        training.step += 1

    return update


def side(settings: Settings) -> int:
    """Height and width of the images."""
    return QUICK_SIZE if settings.quick else SIZE


def loaded_batch(size: tuple[int, int]) -> Batch:
    """Images and labels (H, W) as a loader yields them."""
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH_SIZE, 3, size[0] // 16, size[1] // 16)
    noise = torch.rand(shape, generator=generator)
    image = torch.nn.functional.interpolate(noise, size=size, mode="bicubic").clamp_(0, 1)
    label = torch.randint(0, NUM_CLASSES, (BATCH_SIZE, *size), generator=generator)
    label[:, : size[0] // 20] = IGNORE_INDEX
    names = [f"image{index}" for index in range(BATCH_SIZE)]
    return Batch(image=image.mul_(255).byte(), label=label.byte(), id=names)
