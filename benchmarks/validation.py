"""What the evaluation pass costs beyond the network's forward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import interleave, ratio
from datasets.taxonomy import ROAD
from engine.batch import prepare
from engine.build import build_predictor, place
from engine.evaluate import run_pass
from methods import METHODS
from metrics import METRICS
from options import parse
from utils.types import IGNORE_INDEX, Batch, Prediction

NAMES = tuple(entry.name for entry in ROAD)
SIZE = (1024, 2048)
QUICK_SIZE = (64, 128)
IMAGES_ON_CPU, IMAGES_ON_GPU = 1, 8
TARGET = 1.05

METHOD = """\
`deeplabv3plus_mobilenet`, output stride 16, 19 classes, float32, images of 1024x2048 (height x
width) in memory, batch 1. `forward` is the bare network without gradients on normalised images,
with logits at the size of the label. `pass` is `engine.evaluate.run_pass` with
`SegmentationMetrics` on uint8 images: transfer, normalisation, forward, maximum over the classes,
counting, and the table at the end. `prepare` and `update` are the parts that it adds, timed alone.
Times are per image."""


def run(settings: Settings) -> Section:
    """Both memory layouts."""
    section = Section("Validation", METHOD)
    rows: list[Row] = []
    for channels_last in (False, True):
        calls, images = candidates(settings, channels_last=channels_last)
        samples = interleave(
            calls, repeats=settings.rounds(7), warmup=1, calls=1, device=settings.device
        )
        layout = "channels last" if channels_last else "contiguous"
        cost = ratio(samples["pass"], samples["forward"])
        rows.append(
            {
                "layout": layout,
                **{f"{name}, ms": timed.median / images * 1000 for name, timed in samples.items()},
                "pass of forward's": cost,
            }
        )
        name = f"evaluation pass, {layout}, of the bare forward pass's time"
        section.targets.append(Target(name, cost.median, TARGET, at_most=True))
    section.tables.append(Table("Milliseconds per image:", rows))
    return section


def candidates(
    settings: Settings, *, channels_last: bool
) -> tuple[dict[str, Callable[[], Any]], int]:
    """The calls by name, and how many images each one takes."""
    device = settings.device
    flags = ["--dataset", "cityscapes", "--data_root", ".", "--pretrained_backbone", "none"]
    opts = parse(flags + ["--channels_last"] * channels_last)
    method = place(METHODS[opts.method](opts, len(NAMES)), opts, device).eval()
    network, predictor = method.deployable(), build_predictor(opts, method)
    count = IMAGES_ON_GPU if device.type == "cuda" else IMAGES_ON_CPU
    batches = loaded_batches(count, QUICK_SIZE if settings.quick else SIZE, device)
    ready = [prepare(batch, device, channels_last=channels_last) for batch in batches]
    bring = partial(prepare, device=device, channels_last=channels_last)

    @torch.no_grad()
    def forward() -> None:
        for batch in ready:
            network(batch["image"])

    def whole_pass() -> None:
        run_pass(predictor, network, batches, [METRICS["segmentation"](NAMES)], prepare=bring)

    metric = METRICS["segmentation"](NAMES)
    with torch.no_grad():
        logits = network(ready[0]["image"]).logits

    def update() -> None:
        for batch in ready:
            metric.update(batch, Prediction(logits))

    def transfer() -> None:
        for batch in batches:
            bring(batch)

    return (
        {"forward": forward, "pass": whole_pass, "prepare": transfer, "update": update},
        count,
    )


def loaded_batches(count: int, size: tuple[int, int], device: torch.device) -> list[Batch]:
    """Batches of one image as the loader yields them, pinned for a GPU."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for index in range(count):
        image = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, generator=generator)
        label = torch.randint(0, len(NAMES), (1, *size), dtype=torch.uint8, generator=generator)
        label[:, : size[0] // 20] = IGNORE_INDEX
        if device.type == "cuda":
            image, label = image.pin_memory(), label.pin_memory()
        batches.append(Batch(image=image.permute(0, 3, 1, 2), label=label, id=[f"image{index}"]))
    return batches
