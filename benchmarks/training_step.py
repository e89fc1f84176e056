"""Seconds per training step against segmentation_models_pytorch's DeepLabV3+."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import Samples, interleave, ratio, wall_ratio
from datasets.transforms import normalize
from engine.batch import prepare
from engine.build import place
from engine.train import Meter, autocast, optimizer_step, parallel, seed_step, start
from methods import METHODS
from network import build_model
from options import parse
from utils.types import IGNORE_INDEX, Batch

NUM_CLASSES = 19
LR, WEIGHT_DECAY = 1e-3, 1e-4
RATES = (6, 12, 18)  # dilations of the pyramid pooling at output stride 16, as ours
YARDSTICK = "smp"
Step = Callable[[], Any]

METHOD = """\
One step is forward, cross entropy, backward and a fused Adam update, output stride 16, 19
classes, random weights. `smp` is `segmentation_models_pytorch.DeepLabV3Plus` with the same encoder,
rates and optimizer, written as a plain loop. `separable` is our network with `--separable_conv`,
whose head is like smp's; `plain` has full convolutions, as published. `step` is the same plain loop
around our network; `loop` is the engine's own: uint8 batch to the device, normalisation, seeding,
gradient scaler, loss meter, schedule. Candidates take turns; a ratio is the median over the rounds
(least to greatest). The targets are about the CPU time, on a GPU about its own."""


class Case(NamedTuple):
    """A network and its input.

    Attributes:
        model: our name.
        encoder: smp's name of the backbone.
        size: side of the square images.
        batch_size: images per step.
        repeats: measured rounds.
    """

    model: str
    encoder: str
    size: int
    batch_size: int
    repeats: int


class Setting(NamedTuple):
    """Precision and memory layout."""

    amp: str
    channels_last: bool

    def __str__(self) -> str:
        precision = "float32" if self.amp == "off" else self.amp
        return f"{precision}, {'channels last' if self.channels_last else 'contiguous'}"


SETTINGS = tuple(Setting(*pair) for pair in product(("off", "bf16"), (False, True)))
CPU_CASES = (
    Case("deeplabv3plus_mobilenet", "mobilenet_v2", 256, 2, 9),
    Case("deeplabv3plus_mobilenet", "mobilenet_v2", 512, 2, 5),
    Case("deeplabv3plus_resnet50", "resnet50", 256, 2, 5),
)
GPU_CASES = (
    Case("deeplabv3plus_mobilenet", "mobilenet_v2", 768, 8, 9),
    Case("deeplabv3plus_resnet50", "resnet50", 768, 8, 9),
)
QUICK_CASES = (Case("deeplabv3plus_mobilenet", "mobilenet_v2", 64, 2, 2),)
STEPS_PER_SAMPLE_ON_GPU = 5


def run(settings: Settings) -> Section:
    """Every case in every precision and layout."""
    section = Section("Training step", METHOD)
    cases = GPU_CASES if settings.device.type == "cuda" else CPU_CASES
    for case in QUICK_CASES if settings.quick else cases:
        rows: list[Row] = []
        for setting in SETTINGS[-1:] if settings.quick else SETTINGS:
            samples = measure(case, setting, settings)
            memory = peak_memory(case, setting, settings.device)
            rows += table_rows(case, setting, samples, memory)
            section.targets += targets(case, setting, samples)
        caption = f"{case.model}, {case.batch_size} images of {case.size}x{case.size}:"
        section.tables.append(Table(caption, rows))
    return section


def measure(case: Case, setting: Setting, settings: Settings) -> dict[str, Samples]:
    """Every candidate's step, interleaved."""
    on_gpu = settings.device.type == "cuda"
    return interleave(
        {name: build() for name, build in candidates(case, setting, settings.device)},
        repeats=settings.rounds(case.repeats),
        warmup=2,
        calls=STEPS_PER_SAMPLE_ON_GPU if on_gpu else 1,
        device=settings.device,
    )


def candidates(
    case: Case, setting: Setting, device: torch.device
) -> Iterator[tuple[str, Callable[[], Step]]]:
    """The names of the candidates with what builds their step."""
    where = case, setting, device
    yield YARDSTICK, partial(plain_step, partial(yardstick, case), *where)
    for head in ("separable", "plain"):
        separable = head == "separable"
        yield f"{head}, step", partial(plain_step, partial(ours, case, separable=separable), *where)
        yield f"{head}, loop", partial(loop_step, *where, separable=separable)


def yardstick(case: Case) -> nn.Module:
    """The network to be compared with."""
    return smp.DeepLabV3Plus(
        case.encoder,
        encoder_weights=None,
        encoder_output_stride=16,
        decoder_atrous_rates=RATES,
        classes=NUM_CLASSES,
    )


class Logits(nn.Module):
    """Our network as one that returns a tensor."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to logits (N, C, H, W)."""
        return self.network(images).logits


def ours(case: Case, *, separable: bool) -> nn.Module:
    """Our network."""
    return Logits(build_model(case.model, NUM_CLASSES, separable_conv=separable))


def loaded_batch(case: Case, device: torch.device) -> Batch:
    """A batch as a loader yields it: uint8, channels-last in memory, pinned for a GPU."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch_size, case.size, case.size)
    image = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)
    label = torch.randint(0, NUM_CLASSES, shape, dtype=torch.uint8, generator=generator)
    label[torch.rand(shape, generator=generator) < 0.05] = IGNORE_INDEX
    if device.type == "cuda":
        image, label = image.pin_memory(), label.pin_memory()
    names = [f"image{index}" for index in range(case.batch_size)]
    return Batch(image=image.permute(0, 3, 1, 2), label=label, id=names)


def plain_step(
    build: Callable[[], nn.Module], case: Case, setting: Setting, device: torch.device
) -> Step:
    """A step as a user writes it, on a batch that is already on the device and normalised."""
    layout = torch.channels_last if setting.channels_last else torch.contiguous_format
    network = build().to(device).to(memory_format=layout).train()
    optimizer = Adam(network.parameters(), LR, weight_decay=WEIGHT_DECAY, fused=True)
    batch = loaded_batch(case, device)
    images = normalize(batch["image"].to(device)).contiguous(memory_format=layout)
    labels = batch["label"].to(device).long()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, setting.amp):
            loss = F.cross_entropy(network(images), labels, ignore_index=IGNORE_INDEX)
        loss.backward()
        optimizer.step()

    return step


def loop_step(case: Case, setting: Setting, device: torch.device, *, separable: bool) -> Step:
    """What ``engine.train.train`` does in a step between two printed lines."""
    flags = ["--dataset", "cityscapes", "--data_root", ".", "--pretrained_backbone", "none"]
    flags += ["--model", case.model, "--crop_size", str(case.size), "--amp", setting.amp]
    flags += ["--batch_size", str(case.batch_size), "--lr", str(LR)]
    flags += ["--separable_conv"] * separable + ["--channels_last"] * setting.channels_last
    opts = parse(flags)
    method = place(METHODS[opts.method](opts, NUM_CLASSES), opts, device).train()
    training = start(method, opts, device)
    module = parallel(method, device)
    meter = Meter(device)
    batch = loaded_batch(case, device)

    def step() -> None:
        seed_step(opts.random_seed, training.step)
        micro = [prepare(batch, device, channels_last=opts.channels_last)]
        out = optimizer_step(module, micro, training, autocast(device, opts.amp))
        meter.add(training.step, out, batch["id"])
        training.step += 1

    return step


def peak_memory(case: Case, setting: Setting, device: torch.device) -> dict[str, float]:
    """GiB that each candidate takes on the GPU when it is alone there; empty on the CPU."""
    peaks: dict[str, float] = {}
    if device.type != "cuda":
        return peaks
    for name, build in candidates(case, setting, device):
        gc.collect()
        before = torch.cuda.memory_allocated(device)
        step = build()
        for number in range(4):
            if number == 2:  # the first steps try out algorithms with large workspaces
                torch.cuda.reset_peak_memory_stats(device)
            step()
        peaks[name] = (torch.cuda.max_memory_allocated(device) - before) / 2**30
        del step
    return peaks


def table_rows(
    case: Case, setting: Setting, samples: dict[str, Samples], memory: dict[str, float]
) -> list[Row]:
    """A row per candidate."""
    rows = []
    for name, timed in samples.items():
        row: Row = {"setting": str(setting), "candidate": name}
        row["GPU s" if memory else "CPU s"] = timed.median
        row["wall s"] = timed.wall_median
        row["of smp's"] = ratio(timed, samples[YARDSTICK])
        row["wall, of smp's"] = wall_ratio(timed, samples[YARDSTICK])
        if memory:
            row["images/s"] = case.batch_size / timed.wall_median
            row["peak GiB"] = memory[name]
        rows.append(row)
    return rows


def targets(case: Case, setting: Setting, samples: dict[str, Samples]) -> list[Target]:
    """Separable convolutions must not be slower than smp's."""
    return [
        Target(
            f"{case.model}, {case.size}, {setting}, {name}, of smp's time",
            ratio(samples[name], samples[YARDSTICK]).median,
            1.0,
            at_most=True,
        )
        for name in ("separable, step", "separable, loop")
    ]
