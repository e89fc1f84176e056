"""What all reliability metrics together cost beyond the network's forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.memory import in_new_process, peak_of_this_process
from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import interleave, ratio, wall_ratio
from benchmarks.validation import NAMES, loaded_batches
from engine.batch import prepare
from engine.build import build_predictor, place
from engine.evaluate import run_pass
from methods import METHODS
from metrics import MetricSettings, build_metrics
from metrics.per_image import PerImageCounts
from options import parse
from uncertainty import SCORES
from utils.types import Batch, Consumer, ForwardVariant, Prediction

SIZE = (512, 1024)
QUICK_SIZE = (64, 128)
IMAGES_ON_CPU, IMAGES_ON_GPU = 1, 8
SHARPNESS = 30.0  # factor on the random last layer, so that confidences are spread over (0, 1)
SETS: dict[str, tuple[str, ...]] = {
    "segmentation": ("segmentation",),
    "+ calibration": ("segmentation", "calibration"),
    "+ misclassification": ("segmentation", "calibration", "misclassification"),
    "all": ("segmentation", "calibration", "misclassification", "pavpu", "ood"),
}
TARGET_ON_CPU, TARGET_ON_GPU = 1.60, 1.15
MEMORY_SIZE = (96, 192)
FEW_IMAGES, MANY_IMAGES = 300, 1500  # the exact values end at 2^18 patches of 4x4: 228 images
MEMORY_TARGET = 5.0  # MB

METHOD = f"""\
`deeplabv3plus_mobilenet`, output stride 16, 19 classes, float32, images of {SIZE[0]}x{SIZE[1]}
(height x width) in memory, batch 1, the random last layer scaled so that confidences are spread.
`forward` is the evaluation pass without any metric. The others add metrics: segmentation (with the
counts of every image), calibration (ECE of 15 bins, equal mass, class-wise, KS, MCE, NLL, Brier),
misclassification, PAvPU and pixel-wise OOD with a mask, all ranked by the maximum softmax
probability. `all + entropy` ranks by the entropy, too. What is computed once at the end is not in
the times. Memory is the peak resident memory of a process that evaluates images of
{MEMORY_SIZE[0]}x{MEMORY_SIZE[1]} with all metrics, in which blocks above 64 KiB go back to the
system at once (`MALLOC_MMAP_THRESHOLD_`), so that what is kept counts, not how it is divided up."""


def run(settings: Settings) -> Section:
    """Time of growing sets of metrics, then memory for few and for many images."""
    section = Section("Reliability metrics", METHOD)
    calls, images = candidates(settings)
    samples = interleave(
        calls, repeats=settings.rounds(9), warmup=1, calls=1, device=settings.device
    )
    on_gpu = settings.device.type == "cuda"
    compare = ratio if on_gpu else wall_ratio
    rows: list[Row] = [
        {
            "metrics": name,
            "ms": timed.median / images * 1000,
            "wall, ms": timed.wall_median / images * 1000,
            "of forward's time": compare(timed, samples["forward"]),
        }
        for name, timed in samples.items()
    ]
    section.tables.append(Table("Milliseconds per image:", rows))
    cost = compare(samples["all"], samples["forward"]).median
    limit = TARGET_ON_GPU if on_gpu else TARGET_ON_CPU
    section.targets.append(
        Target("all metrics, of the bare pass's time", cost, limit, at_most=True)
    )
    measure_memory(section, settings)
    return section


def candidates(settings: Settings) -> tuple[dict[str, Callable[[], Any]], int]:
    """The passes by name, and how many images each one takes."""
    count = IMAGES_ON_GPU if settings.device.type == "cuda" else IMAGES_ON_CPU
    size = QUICK_SIZE if settings.quick else SIZE
    evaluate = evaluator(count, size, settings.device)
    calls = {"forward": partial(evaluate, ())}
    for name, chosen in SETS.items():
        calls[name] = partial(evaluate, chosen)
    calls["all + entropy"] = partial(evaluate, SETS["all"], ("msp", "entropy"))
    return calls, count


def evaluator(
    count: int, size: tuple[int, int], device: torch.device, *, repeats: int = 1
) -> Callable[..., None]:
    """A function that evaluates images with the metrics and scores of the names it is given.

    Args:
        count: different images, which are held in memory.
        size: (H, W) of the images.
        device: where the network is.
        repeats: how often a pass walks over them, each time as images of other names.
    """
    flags = ["--dataset", "cityscapes", "--data_root", ".", "--pretrained_backbone", "none"]
    opts = parse(flags)
    torch.manual_seed(0)
    method = place(METHODS[opts.method](opts, len(NAMES)), opts, device).eval()
    network, predictor = method.deployable(), build_predictor(opts, method)
    last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight.mul_(SHARPNESS)
    batches = [with_unknown(batch) for batch in loaded_batches(count, size, device)]
    bring = partial(prepare, device=device, channels_last=False)

    def evaluate(names: Sequence[str], scores: Sequence[str] = ("msp",)) -> None:
        """One pass."""
        chosen = MetricSettings(scores=[SCORES[name] for name in scores])
        consumers = build_metrics(names, NAMES, chosen)
        if "segmentation" in names:
            consumers.append(PerImageCounts(NAMES))
        readers = [Reader(), *(Sums(each) for each in consumers)]
        images = (
            Batch(**{**batch, "id": [f"{number} {name}" for name in batch["id"]]})
            for number in range(repeats)
            for batch in batches
        )
        run_pass(predictor, network, images, readers, prepare=bring)

    return evaluate


class Reader:
    """A consumer that only asks for predictions."""

    needs: frozenset[str] = frozenset()
    variant: ForwardVariant | None = None

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Take nothing in."""

    def all_reduce(self) -> None:
        """Nothing."""

    def compute(self) -> dict[str, Any]:
        """No results."""
        return {}


class Sums(Reader):
    """A consumer without what it computes once, after the last batch."""

    def __init__(self, consumer: Consumer) -> None:
        self.needs, self.variant = consumer.needs, consumer.variant
        self.consumer = consumer

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """What the consumer does with every batch."""
        self.consumer.update(batch, prediction)


def with_unknown(batch: Batch) -> Batch:
    """A batch with a quarter of its pixels marked as unknown objects."""
    label = batch["label"]
    ood = (label < len(NAMES) // 4).to(torch.uint8)
    return Batch(**{**batch, "ood": ood})


def measure_memory(section: Section, settings: Settings) -> None:
    """Add the peak memory for few and for many images to a section."""
    few, many = (2, 4) if settings.quick else (FEW_IMAGES, MANY_IMAGES)
    peaks = {count: peak_memory(count) for count in (few, many)}
    rows: list[Row] = [{"images": count, "MB": peak} for count, peak in peaks.items()]
    section.tables.append(Table("Peak memory of an evaluation with all metrics:", rows))
    name = f"memory for {many} images beyond that for {few}, MB"
    section.targets.append(Target(name, peaks[many] - peaks[few], MEMORY_TARGET, at_most=True))


def peak_memory(count: int) -> float:
    """Peak resident memory in MB of a new process that evaluates so many images."""
    return in_new_process(evaluate_in_process, count, returning=True)


def evaluate_in_process(count: int) -> float:
    """Evaluate so many images in this process; its peak resident memory in MB."""
    torch.set_num_threads(1)
    evaluate = evaluator(1, MEMORY_SIZE, torch.device("cpu"), repeats=count)
    evaluate(SETS["all"], ("msp", "entropy"))
    return peak_of_this_process()
