"""Making response weights: images per second with every decoder, beside inference or after it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import Samples, interleave, wall_ratio
from datasets.label_files import LABEL_ENDING, decode_label
from datasets.weight_files import WEIGHT_ENDING, decode_weight
from engine.batch import prepare
from engine.build import build_predictor, place
from engine.evaluate import PredictionSource, run_pass
from engine.response_writer import ResponseWriter
from methods import METHODS
from options import parse
from uncertainty.response_decoders import DECODERS, Decoder
from uncertainty.response_scaling import ResponseScaling
from uncertainty.response_variance import PRESETS
from utils.types import Batch, Predict, Prediction

CLASSES, PRESENT = 21, 3
SIZE, QUICK_SIZE = (375, 500), (48, 64)
GRID = 40  # pixels between the random numbers that logits and images are interpolated from
ABSENT = 100.0  # taken from the logits of classes that are nowhere
MODELS = {"cpu": "deeplabv3plus_mobilenet", "cuda": "pspnet_resnet101"}
PASSES = {
    "cpu": ("--eval_flip",),
    "cuda": (
        *("--eval_flip", "--infer_short_side", "512", "--sliding_window", "512"),
        *("--window_overlap", "0.0625", "--eval_scales", "0.5", "0.75", "1", "1.25", "1.5", "1.75"),
    ),
}
IMAGES, FEW_IMAGES, BATCH = 16, 4, 2
WORKERS = (1, 2, 4)
INFERENCE, IN_TURN = "inference alone", "one after the other"
TARGETS = {"cpu": 0.7, "cuda": 1.0}  # of the time one after the other, for the CRF
MOST_APART = 1e-3  # share of the pixels that another order of sums may change

METHOD = f"""\
The pass of `--make_response_weights` over images in memory: transfer, inference, softmax, response
scaling with the six scales for VOC, two PNG files an image. Images are smooth noise of
{SIZE[0]}x{SIZE[1]} pixels, {BATCH} in a batch, {CLASSES} classes. The network has random weights;
on a CPU it is DeepLabV3+ with MobileNetV2 and sees each image and its mirror image, on a GPU PSPNet
with ResNet-101 and the published twelve passes. What it predicts is replaced by smooth
probabilities of which {PRESENT} classes are somewhere the most likely: 1 + {6 * PRESENT} problems
of the CRF an image. `{IN_TURN}` decodes each image in the pass itself, before the next batch is
predicted; otherwise `--crf_workers` threads, of one core each, decode beside it. All find the same,
which is checked first. `{INFERENCE}` has no decoder. Rates and ratios are of the time that passed;
CPU seconds are of the whole process."""


class InTurn(Executor):
    """Calls at once, in the thread that submits."""

    def submit(self, fn: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        """The result of a call that is over."""
        future: Future[Any] = Future()
        future.set_result(fn(*given, **named))
        return future


class Pass(NamedTuple):
    """What is run over the images.

    Attributes:
        predict: images to a prediction.
        network: behind it.
        batches: as a loader yields them.
        device: of the network.
    """

    predict: Predict
    network: nn.Module
    batches: list[Batch]
    device: torch.device

    @property
    def images(self) -> int:
        """How many there are."""
        return sum(len(batch["id"]) for batch in self.batches)

    def __call__(self, writers: list[ResponseWriter]) -> None:
        """Predict every image, for a writer or for none."""
        if not writers:
            with torch.no_grad():
                for batch in self.batches:
                    self.predict(prepare(batch, self.device)["image"])
            return
        ready = partial(prepare, device=self.device)
        run_pass(self.predict, self.network, self.batches, writers, prepare=ready)


def run(settings: Settings) -> Section:
    """Every decoder."""
    section = Section("Response weights", METHOD)
    rows: list[Row] = []
    device = settings.device.type
    for name in reversed(DECODERS):
        slow = name != "argmax" and device == "cpu"  # where an image takes seconds
        over = images_and_network(FEW_IMAGES if slow or settings.quick else IMAGES, settings)
        samples = measure(over, DECODERS[name].decoder, settings.rounds(2 if slow else 5))
        rows += [table_row(name, way, samples, over.images) for way in samples]
        if name == "crf":
            share = wall_ratio(samples[workers_of(WORKERS[-1])], samples[IN_TURN])
            what = f"making with the CRF beside inference, of the time {IN_TURN}"
            section.targets.append(Target(what, share.median, TARGETS[device], at_most=True))
    height, width = QUICK_SIZE if settings.quick else SIZE
    caption = f"Images of {height}x{width}, {MODELS[device]}:"
    section.tables.append(Table(caption, rows))
    return section


def table_row(decoder: str, way: str, samples: dict[str, Samples], images: int) -> Row:
    """One line of the table."""
    timed = samples[way]
    return {
        "decoder": decoder,
        "decoding": way,
        "images": images,
        "images per second": images / timed.wall_median,
        "CPU s per image, on a GPU its own": timed.median / images,
        f"of the time {IN_TURN}": wall_ratio(timed, samples[IN_TURN]),
    }


def workers_of(count: int) -> str:
    """What decoding on so many threads is called."""
    return f"{count} worker{'s' * (count > 1)}"


def images_and_network(count: int, settings: Settings) -> Pass:
    """A pass over so many images with a network that predicts a few classes."""
    device = settings.device
    size = QUICK_SIZE if settings.quick else SIZE
    flags = ["--dataset", "voc", "--data_root", ".", "--pretrained_backbone", "none"]
    opts = parse([*flags, "--model", MODELS[device.type], *PASSES[device.type]])
    torch.manual_seed(0)
    method = place(METHODS[opts.method](opts, CLASSES), opts, device).eval()
    predictor = build_predictor(opts, method)
    assert not isinstance(predictor, PredictionSource)
    logits = smooth((BATCH, CLASSES, *size), seed=1).mul_(6).to(device)
    logits[:, PRESENT:] -= ABSENT

    def predict(images: Tensor, needs: frozenset[str] = frozenset()) -> Prediction:
        """The time of the network's prediction, and a few classes."""
        predictor(images, needs)
        return Prediction(logits)

    batches = [
        Batch(
            image=smooth((BATCH, 3, *size), seed=first).mul_(60).add_(128).clamp_(0, 255).byte(),
            id=[f"image{first + index}" for index in range(BATCH)],
        )
        for first in range(0, count, BATCH)
    ]
    return Pass(predict, method.deployable(), batches, device)


def smooth(shape: tuple[int, ...], seed: int) -> Tensor:
    """Smooth normal noise (N, C, H, W)."""
    count, channels, *size = shape
    grid = [-(-side // GRID) + 1 for side in size]
    noise = torch.randn(count, channels, *grid, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size=size, mode="bicubic")


def writer_of(folder: Path, decoder: Decoder, workers: int) -> ResponseWriter:
    """A writer on so many threads; with 0 it has none beside the pass."""
    wanted = frozenset(f"image{index}" for index in range(IMAGES))
    scaling = ResponseScaling(PRESETS["voc"], decoder)
    writer = ResponseWriter(
        folder, wanted, num_classes=CLASSES, scaling=scaling, workers=max(1, workers)
    )
    if workers == 0:
        writer.pool = InTurn()  # type: ignore[assignment]
    return writer


def measure(over: Pass, decoder: Decoder, repeats: int) -> dict[str, Samples]:
    """Seconds of whole passes: without a decoder, with one in the pass, on threads beside it."""
    with tempfile.TemporaryDirectory() as name:
        folders = {count: Path(name) / str(count) for count in (0, *WORKERS)}

        def make(count: int) -> None:
            """One pass; files that are there are replaced."""
            over([writer_of(folders[count], decoder, count)])

        for count in folders:
            make(count)
        check_equal(*folders.values())
        return interleave(
            {
                INFERENCE: lambda: over([]),
                IN_TURN: lambda: make(0),
                **{workers_of(count): partial(make, count) for count in WORKERS},
            },
            repeats=repeats,
            warmup=0,  # each has been called
            device=over.device,
        )


def check_equal(first: Path, *others: Path) -> None:
    """Assert that folders hold the same labels and weights, but for single pixels."""
    for path in first.glob("*.png"):
        decode = decode_weight if path.name.endswith(WEIGHT_ENDING) else decode_label
        expected = decode(path.read_bytes())
        for other in others:
            apart = decode((other / path.name).read_bytes()) != expected
            assert apart.mean() < MOST_APART, f"{path.name} differs with the number of workers"
    names = [sorted(path.name for path in folder.iterdir()) for folder in (first, *others)]
    assert all(found == names[0] for found in names), "other files with other numbers of workers"
    assert f"image0{LABEL_ENDING}" in names[0]
