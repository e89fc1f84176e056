"""What a cosine head with a learned temperature costs beside a linear head."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.memory import free_memory, growth, in_new_process
from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import Samples, interleave, ratio
from network.deeplab import PENULTIMATE_CHANNELS, SegmentationHead, SegmentationModel
from network.heads import NORM_OFFSET, CosineHead, HeadOptions
from network.modeling import build_model
from utils.types import IGNORE_INDEX, SegOutput

NUM_CLASSES = 19
MODEL = "deeplabv3plus_mobilenet"
SIZE, QUICK_SIZE = (1024, 2048), (64, 128)
CROP, QUICK_CROP = 512, 64
BATCH_SIZE = 2
OPTIONS = {
    "linear": HeadOptions(),
    "exact": HeadOptions("cosine", "learned"),
    "fast": HeadOptions("cosine", "learned", fast=True),
    "published": HeadOptions("cosine", "learned"),
}
EVALUATED, TRAINED = ("linear", "exact", "published"), ("linear", "exact", "fast")
TARGET = 1.15  # of the linear head, in time and in memory
TOLERANCE = 1e-4  # of logits and temperatures
MAPS_HELD = 3  # maps of all penultimate channels at full size: upsampled, normalised, rearranged
CALLS_PER_SAMPLE_ON_GPU = 5

METHOD = """\
19 classes, float32, contiguous, random weights, noise as images. `linear` is `--head linear`.
`exact` is `--head cosine --temperature learned`: the cosines of features upsampled to the size of
the image, without upsampling them. `published` is the same network in the paper's way: features of
256 channels upsampled, then temperature, normalisation and cosines. Both give the same numbers,
which is checked first, with features of the network and with noise in their place. `network` is the
whole forward pass in evaluation mode without gradients, `head` what follows the penultimate
features, which are noise. `step` is forward pass, cross entropy and backward pass; `fast` is
`--fast_cosine`. Memory is what a call takes at its peak beyond what was held before it, weights and
images: on a GPU what torch allocates; on the CPU the resident memory of a new process in which
blocks above 64 KiB go back to the system at once (`MALLOC_MMAP_THRESHOLD_`)."""


class Case(NamedTuple):
    """A network and the size (H, W) of its images."""

    model: str
    size: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.model}, {self.size[0]}x{self.size[1]}"


def run(
    settings: Settings,
    *,
    model: str = MODEL,
    size: Sequence[int] | None = None,
    crop_size: int | None = None,
) -> Section:
    """Evaluation, then training steps.

    Args:
        settings: of all benchmarks.
        model: a key of ``network.modeling.MODELS``.
        size: (H, W) of evaluated images; None for ``SIZE``.
        crop_size: side of images to train on; None for ``CROP``.
    """
    section = Section("Heads", METHOD)
    height, width = size or (QUICK_SIZE if settings.quick else SIZE)
    whole = Case(model, (height, width))
    smaller = Case(model, size_that_fits(whole.size, free_memory(settings.device)))
    caption = f"Exact and published way, largest differences, {smaller}:"
    section.tables.append(Table(caption, check_equal(smaller, settings)))
    if smaller != whole:
        add_evaluation(section, whole, EVALUATED[:-1], settings)
    add_evaluation(section, smaller, EVALUATED, settings, fits=smaller == whole)
    crop = crop_size or (QUICK_CROP if settings.quick else CROP)
    square = Case(model, (crop, crop))
    rows = measure("step", square, TRAINED, settings)
    section.tables.append(Table(f"Training step, {square}, {BATCH_SIZE} images:", rows))
    return section


def add_evaluation(
    section: Section, case: Case, names: Sequence[str], settings: Settings, *, fits: bool = True
) -> None:
    """Add a table for the whole network and its head, and what the exact form should keep to."""
    rows = []
    for part in ("network", "head"):
        rows += measure(part, case, names, settings)
    why = "" if fits else ", all that the published way has memory for"
    section.tables.append(Table(f"Evaluation, {case}, 1 image{why}:", rows))
    if not fits:
        return
    exact = rows[names.index("exact")]
    bounded = {"time": exact["of linear's time"].median, "memory": exact["of linear's memory"]}
    for what in bounded:
        name = f"evaluation, {case}, exact, of the linear head's {what}"
        section.targets.append(Target(name, bounded[what], TARGET, at_most=True))


def measure(part: str, case: Case, names: Sequence[str], settings: Settings) -> list[Row]:
    """Time and memory of a part with each of the heads, a row each."""
    device, on_gpu = settings.device, settings.device.type == "cuda"
    samples = interleave(
        {name: PARTS[part](name, case, device) for name in names},
        repeats=settings.rounds(7),
        warmup=1,
        calls=CALLS_PER_SAMPLE_ON_GPU if on_gpu else 1,
        device=device,
    )
    gc.collect()
    find = peak_on_gpu if on_gpu else peak_of_process
    return table_rows(part, samples, {name: find(part, name, case, settings) for name in names})


def table_rows(part: str, samples: Mapping[str, Samples], peaks: Mapping[str, float]) -> list[Row]:
    """A row for each head."""
    return [
        {
            "part": part,
            "head": name,
            "ms": timed.median * 1000,
            "wall, ms": timed.wall_median * 1000,
            "of linear's time": ratio(timed, samples["linear"]),
            "peak MB": peaks[name],
            "of linear's memory": peaks[name] / peaks["linear"],
        }
        for name, timed in samples.items()
    ]


class LastLayers(SegmentationHead):
    """What follows the penultimate features of a head, with the head's own layers."""

    def __init__(self, head: SegmentationHead) -> None:
        super().__init__()
        self.classifier = nn.Sequential(head.classifier[-1])
        self.temperature = head.temperature
        self.align_corners = head.align_corners

    def classifier_input(self, features: Mapping[str, Tensor]) -> Tensor:
        """The penultimate features."""
        return features["penultimate"]


class PublishedHead(nn.Module):
    """Cosines and temperature of upsampled features (arXiv 2401.12129), with a head's own layers.

    Args:
        head: one with a cosine head and a learned temperature.
    """

    def __init__(self, head: SegmentationHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Mapping[str, Tensor], size: Sequence[int]) -> SegOutput:
        """As ``SegmentationHead.forward``."""
        cosine, layer = self.head.classifier[-1], self.head.temperature
        assert isinstance(cosine, CosineHead), "the published head is a cosine head"
        assert layer is not None, "its temperature is learned"
        large = F.interpolate(
            self.head.penultimate(features),
            tuple(size),
            mode="bilinear",
            align_corners=self.head.align_corners,
        )
        temperature = torch.sigmoid(layer.norm(layer.conv(large))) + layer.floor
        weights = cosine.weight / (cosine.weight.norm(dim=1, keepdim=True) + NORM_OFFSET)
        cosines = F.conv2d(large / (large.norm(dim=1, keepdim=True) + NORM_OFFSET), weights)
        return SegOutput(cosines / temperature, temperature=temperature)


def build(name: str, case: Case, device: torch.device) -> SegmentationModel:
    """The network with one of the heads; equal options have equal weights."""
    torch.manual_seed(0)
    return build_model(case.model, NUM_CLASSES, head=OPTIONS[name]).to(device)


def head_of(network: SegmentationModel) -> SegmentationHead:
    """What follows the backbone."""
    assert isinstance(network.classifier, SegmentationHead), "every model has such a head"
    return network.classifier


def noise(*shape: int) -> Tensor:
    """Normal noise, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def network_pass(name: str, case: Case, device: torch.device) -> Callable[[], SegOutput]:
    """The forward pass over one image, without gradients."""
    network, image = build(name, case, device).eval(), noise(1, 3, *case.size).to(device)
    if name == "published":
        network.classifier = PublishedHead(head_of(network))
    return lambda: without_gradients(network, image)


def head_pass(name: str, case: Case, device: torch.device) -> Callable[[], SegOutput]:
    """What follows the penultimate features of one image, without gradients."""
    network = build(name, case, device).eval()
    last = LastLayers(head_of(network)).eval()
    with torch.no_grad():
        inner = network.backbone(noise(1, 3, *case.size).to(device))
        shape = head_of(network).penultimate(inner).shape
    features = {"penultimate": noise(*shape).relu().to(device)}
    module = PublishedHead(last) if name == "published" else last
    return lambda: without_gradients(module, features, case.size)


@torch.no_grad()
def without_gradients(module: nn.Module, *given: Any) -> SegOutput:
    """A module's output."""
    return module(*given)


def step(name: str, case: Case, device: torch.device) -> Callable[[], None]:
    """Forward pass, cross entropy and backward pass of a batch."""
    network, batch = build(name, case, device).train(), noise(BATCH_SIZE, 3, *case.size).to(device)
    generator = torch.Generator().manual_seed(0)
    shape = (BATCH_SIZE, *case.size)
    labels = torch.randint(0, NUM_CLASSES, shape, generator=generator)
    labels = labels.masked_fill(torch.rand(shape, generator=generator) < 0.05, IGNORE_INDEX)
    labels = labels.to(device)

    def passes() -> None:
        network.zero_grad(set_to_none=True)
        F.cross_entropy(network(batch).logits, labels, ignore_index=IGNORE_INDEX).backward()

    return passes


PARTS: dict[str, Callable[[str, Case, torch.device], Callable[[], Any]]] = {
    "network": network_pass,
    "head": head_pass,
    "step": step,
}


def check_equal(case: Case, settings: Settings) -> list[Row]:
    """Assert that the exact and the published way agree; the largest differences."""
    rows: list[Row] = []
    for part, prepare in (("network", network_pass), ("head", head_pass)):
        ours, theirs = (prepare(name, case, settings.device)() for name in ("exact", "published"))
        for what in ("logits", "temperature"):
            one, other = getattr(ours, what), getattr(theirs, what)
            found = float((one - other).abs().max())
            assert found < TOLERANCE, f"the ways disagree: {what} of the {part}, by {found}"
            greatest = float(other.abs().max())
            rows.append({"part": part, "of": what, "differ by": found, "greatest": greatest})
    return rows


def size_that_fits(size: tuple[int, int], free: float) -> tuple[int, int]:
    """The size or, halved as often as needed, one whose maps take so many bytes at most."""
    height, width = size
    while 4 * MAPS_HELD * PENULTIMATE_CHANNELS * height * width > free:
        height, width = height // 2, width // 2
    return height, width


def peak_on_gpu(part: str, name: str, case: Case, settings: Settings) -> float:
    """MB that a part takes on the GPU beyond what was allocated before it."""
    call = PARTS[part](name, case, settings.device)
    for _ in range(2):  # the first calls try out algorithms with large workspaces
        call()
    return growth(call, settings.device)


def peak_of_process(part: str, name: str, case: Case, settings: Settings) -> float:
    """MB that a part takes in a new process beyond what was resident before it."""
    given = part, name, tuple(case), settings.threads
    return in_new_process(grown_memory, *given, returning=True)


def grown_memory(part: str, name: str, case: tuple[str, tuple[int, int]], threads: int) -> float:
    """Run a part once in this process; MB by which its peak passes what it held before."""
    torch.set_num_threads(threads)
    device, chosen = torch.device("cpu"), Case(*case)
    PARTS[part](name, chosen._replace(size=QUICK_SIZE), device)()  # loads code and libraries
    return growth(PARTS[part](name, chosen, device), device)
