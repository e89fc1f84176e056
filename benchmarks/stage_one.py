"""What a step of MRNet's stage one costs, part by part, and what its options change."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.balancing import Maps, compare
from benchmarks.memory import growth, in_new_process
from benchmarks.online_ensemble import loaded_batch
from benchmarks.parts import REST, Seam, Trace
from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import Samples, interleave, ratio, ratio_of
from engine.batch import prepare
from engine.build import place
from engine.train import autocast, optimizer_step, start
from losses.class_balance import weighted_loss_map
from methods import mrnet
from methods.mrnet import MRNet, head_logits
from network.modeling import TWO_HEADED
from options import parse
from utils.types import IGNORE_INDEX, Batch

Size = tuple[int, int]  # (H, W)

NUM_CLASSES = 19
PATCH = 16  # pixels, side of the squares of one class in the labels
MODELS = {"cpu": "deeplabv3plus_mobilenet", "cuda": "deeplab_multi_resnet101"}
SIZES = {"cpu": (256, 512), "cuda": (512, 1024)}
QUICK_SIZE = (64, 128)
STEPS_PER_SAMPLE_ON_GPU = 3
MAX_VALUE, HARDEST = 7.0, 80.0  # published: of a class's weight, percentile of the loss
TARGET = 0.03  # of the step, for the balancing

PLAIN = "plain"
WITHOUT_BALANCING = (
    *("--lambda_seg", "0.5", "--lambda_kl_target", "0.1", "--mr_start", "0"),
    *("--head_norm", "gn", "--use_se", "--droprate", "0.1"),
)
PUBLISHED = (
    *(*WITHOUT_BALANCING, "--class_balance", "--often_balance"),
    *("--max_value", f"{MAX_VALUE:g}", "--only_hard_label", f"{HARDEST:g}"),
)
VARIANTS: dict[str, tuple[str, ...]] = {
    PLAIN: PUBLISHED,
    "activation checkpointing": (*PUBLISHED, "--activation_checkpointing"),
    "bf16": (*PUBLISHED, "--amp", "bf16"),
    "both": (*PUBLISHED, "--activation_checkpointing", "--amp", "bf16"),
    "without balancing": WITHOUT_BALANCING,
    "without agreement": (*PUBLISHED, "--lambda_kl_target", "0"),
    "without R1": (*PUBLISHED, "--r1_every", "1000000"),
    "without discriminators": (
        *(*PUBLISHED, "--lambda_adv_target1", "0", "--lambda_adv_target2", "0"),
    ),
}
QUICK_VARIANTS = (PLAIN, "activation checkpointing", "bf16")

FORWARD = ("source forward", "target forward")  # the network's two calls in a step
BALANCING = ("class weights", "hard pixels")
PARTS = (
    *FORWARD,
    *BALANCING,
    "segmentation losses",
    "adversarial terms",
    "memory regularisation",
    "discriminator losses",
    "R1 penalty",
    "backward",
    "optimizer steps",
    REST,
)

METHOD = f"""\
`engine.train.optimizer_step` of `--method mrnet` with the published flags: two heads with group
norm and SE, class balance, the hardest {100 - HARDEST:g} % of the pixels, both discriminators
with the R1 penalty, memory regularisation from the first step. Two source and two target images,
noise enlarged 16 times, labels in squares of {PATCH} pixels, 19 classes, random weights, training
mode; `plain` is float32 and keeps all activations, `both` is `--activation_checkpointing` in
bf16. A clock is read wherever a part of the step begins or ends, on a GPU by events in its queue,
so nothing waits; a part within a part counts once. So the parts add up to the step they were read
in, and the last row compares that with `plain`, where no clock is read. `class weights` are the
counts and the running vector, `hard pixels` the two percentiles and the thinned labels; `rest` is
zeroed gradients, sums of losses, logs and schedules. One backward pass serves all losses: what a
term costs in all is `plain` beside the step without it. Memory is what a step takes at its peak
beyond the weights, the optimizers' state and the batch: on a GPU what torch allocates, on the CPU
the resident memory of a new process in which blocks above 64 KiB go back to the system at once
(`MALLOC_MMAP_THRESHOLD_`). `published` is the balancing as published, written from its
description: a comparison of the whole batch for every class, whose count is waited for, and for
each head the percentile of its loss map by NumPy on the host. Both ways are given the same labels
and loss maps and find the same weights, thresholds and pixels, which is checked first. The target
is about the CPU time, on a GPU about its own."""


class Case(NamedTuple):
    """A network, and the size of the images of both domains."""

    model: str
    target: Size
    source: Size

    def __str__(self) -> str:
        source, target = (f"{height}x{width}" for height, width in (self.source, self.target))
        sizes = source if source == target else f"source {source}, target {target}"
        return f"{self.model}, {sizes}, 2 images of each domain"


def run(
    settings: Settings,
    *,
    model: str | None = None,
    size: Sequence[int] | None = None,
    crop_size: int | None = None,
) -> Section:
    """The parts of a step, whole steps with other options, and the balancing in both ways.

    Args:
        settings: of all benchmarks.
        model: a key of ``network.modeling.MODELS``; None for the device's of ``MODELS``.
        size: (H, W) of the images; None for the device's of ``SIZES``.
        crop_size: side of source images in place of ``size``.
    """
    device = settings.device
    height, width = size or (QUICK_SIZE if settings.quick else SIZES[device.type])
    source = (crop_size, crop_size) if crop_size else (height, width)
    case = Case(model or MODELS[device.type], (height, width), source)
    section = Section("Stage one", METHOD)
    balancing = balancing_rows(case, settings)
    parts, samples = measure(case, settings)
    rows = part_rows(parts, samples, device)
    section.tables.append(Table(f"Parts of a step, {case}:", rows))
    rows = variant_rows(samples, peaks(case, settings), device)
    section.tables.append(Table(f"Whole steps, {case}:", rows))
    section.tables.append(Table(f"Balancing of a batch, {case}:", balancing))
    share = ratio_of(total(parts, BALANCING), total(parts, PARTS))
    what = f"balancing, {case}, of the step's time"
    section.targets.append(Target(what, share.median, TARGET, at_most=True))
    return section


class Step:
    """One step of the train loop on a batch that is already on the device.

    Args:
        flags: what is typed beside network, size and data.
        case: network and sizes.
        device: where it runs.
    """

    def __init__(self, flags: Sequence[str], case: Case, device: torch.device) -> None:
        opts = parse(
            [
                *("--method", "mrnet", "--model", case.model, "--pretrained_backbone", "none"),
                *("--dataset", "cityscapes", "--data_root", ".", "--lr", "0.0001"),
                *("--target_dataset", "cityscapes", "--target_root", "."),
                *("--crop_size", f"{case.source[0]}x{case.source[1]}", "--batch_size", "2"),
                *([] if case.model in TWO_HEADED else ["--aux_head"]),
                *flags,
            ]
        )
        torch.manual_seed(0)
        method = place(MRNet(opts, NUM_CLASSES), opts, device).train()
        assert isinstance(method, MRNet), "its layout alone was changed"
        self.method, self.device = method, device
        self.training = start(method, opts, device)
        self.training.step = 1  # at step 0 R1 is due with any --r1_every
        self.batch = prepare(paired_batch(case), device)

    def __call__(self) -> None:
        """Losses, backward pass and updates."""
        amp = autocast(self.device, self.method.opts.amp)
        optimizer_step(self.method, [self.batch], self.training, amp)
        self.training.step += 1


def paired_batch(case: Case) -> Batch:
    """Images of both domains and labels, one class absent, as a loader yields them."""
    batch = loaded_batch(case.source)
    rows, columns = (side // PATCH + 1 for side in case.source)
    drawn = torch.rand(
        (len(batch["id"]), rows, columns), generator=torch.Generator().manual_seed(1)
    )
    squares = drawn.square().mul(NUM_CLASSES - 1).byte()  # rarer and rarer, the last one never
    labels = squares.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
    batch["label"] = labels[:, : case.source[0], : case.source[1]].contiguous()
    batch["label"][:, : case.source[0] // 20] = IGNORE_INDEX
    batch["target_image"] = loaded_batch(case.target)["image"].flip(-1)
    return batch


def seams(step: Step) -> Iterator[Seam]:
    """The functions in which the parts of a step are."""
    method = step.method
    yield method.network, "forward", FORWARD
    for name, part in zip(("class_weights", "hardest"), BALANCING, strict=True):
        yield method.supervised_loss, name, (part,)
    yield method, "labels_loss", ("segmentation losses",)
    yield method, "alignment", ("adversarial terms",)
    yield method, "agreement", ("memory regularisation",)
    yield method, "discriminator_losses", ("discriminator losses",)
    yield mrnet, "gradient_penalty", ("R1 penalty",)
    yield Tensor, "backward", ("backward",)
    yield step.training.scaler, "step", ("optimizer steps",)


def measure(case: Case, settings: Settings) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """The parts of the published step, and whole steps by variant, all interleaved.

    Returns:
        Samples of every part, one for each step; those of the variants, and under "parts" those of
        the steps the parts were read in.
    """
    device = settings.device
    steps: dict[str, Callable[[], None]] = {
        name: Step(VARIANTS[name], case, device) for name in variants(settings)
    }
    published, trace = Step(PUBLISHED, case, device), Trace(device)
    steps["parts"] = partial(trace, published, list(seams(published)))
    repeats = settings.rounds(5)
    calls = STEPS_PER_SAMPLE_ON_GPU if device.type == "cuda" else 1
    samples = interleave(steps, repeats=repeats, calls=calls, device=device)
    return trace.samples(PARTS, repeats * calls), samples


def variants(settings: Settings) -> tuple[str, ...]:
    """The whole steps to measure."""
    return QUICK_VARIANTS if settings.quick else tuple(VARIANTS)


def total(parts: dict[str, Samples], names: Sequence[str]) -> list[float]:
    """Seconds of several parts together, step by step."""
    return [sum(costs) for costs in zip(*(parts[name].cost for name in names), strict=True)]


def part_rows(
    parts: dict[str, Samples], samples: dict[str, Samples], device: torch.device
) -> list[Row]:
    """A row for every part and one for all, which is compared with the plain step."""
    seconds, whole = unit(device), total(parts, PARTS)
    shares = {name: ratio_of(timed.cost, whole) for name, timed in parts.items()}
    shares["all, of the plain step"] = ratio(samples["parts"], samples[PLAIN])
    timed_all = {**parts, "all, of the plain step": samples["parts"]}
    return [
        {
            "part": name,
            seconds: timed.median,
            "wall s": timed.wall_median,
            "of the step": shares[name],
        }
        for name, timed in timed_all.items()
    ]


def variant_rows(
    samples: dict[str, Samples], memory: dict[str, float], device: torch.device
) -> list[Row]:
    """A row for every whole step."""
    return [
        {
            "step": name,
            unit(device): samples[name].median,
            "wall s": samples[name].wall_median,
            "of plain's time": ratio(samples[name], samples[PLAIN]),
            "peak MB": taken,
            "of plain's memory": taken / memory[PLAIN],
        }
        for name, taken in memory.items()
    ]


def unit(device: torch.device) -> str:
    """What seconds are of."""
    return "GPU s" if device.type == "cuda" else "CPU s"


def peaks(case: Case, settings: Settings) -> dict[str, float]:
    """MB that a step takes, by variant."""
    gc.collect()
    names = variants(settings)
    if settings.device.type == "cuda":
        return {name: growth_of_step(name, case, settings.device) for name in names}
    given = tuple(case), settings.threads
    return {name: in_new_process(grown_memory, name, *given, returning=True) for name in names}


def growth_of_step(name: str, case: Case, device: torch.device) -> float:
    """MB by which a step passes at its peak what is held between steps."""
    step = Step(VARIANTS[name], case, device)
    for _ in range(2):  # the first ones make the optimizers' state and try out algorithms
        step()
    step.method.zero_grad(set_to_none=True)
    return growth(step, device)


def grown_memory(name: str, case: tuple[str, Size, Size], threads: int) -> float:
    """``growth_of_step`` on the CPU with so many threads, for a process of its own."""
    torch.set_num_threads(threads)
    return growth_of_step(name, Case(*case), torch.device("cpu"))


@torch.no_grad()
def maps_of(step: Step) -> Maps:
    """The labels of the batch, and the heads' losses on them with some class weights."""
    labels, output = step.batch["label"], step.method.network(step.batch["image"])
    weights = torch.linspace(1, MAX_VALUE, NUM_CLASSES, device=step.device)
    main, aux = (
        weighted_loss_map(head_logits(output, name), labels, weights) for name in ("main", "aux")
    )
    return Maps(labels, (main, aux))


def balancing_rows(case: Case, settings: Settings) -> list[Row]:
    """The balancing of the step's batch beside the published way."""
    step = Step(PUBLISHED, case, settings.device)
    return compare(step.method.supervised_loss, maps_of(step), settings)
