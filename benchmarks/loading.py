"""From PNG files to batches against the upstream project's way."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import Ratio, interleave, ratio, ratio_of
from datasets import build_dataset
from datasets.base import SegDataset
from datasets.loaders import eval_batches, train_batches
from datasets.taxonomy import ROAD_TRAIN_IDS
from datasets.transforms import IMAGENET_MEAN, IMAGENET_STD, eval_transform
from engine.batch import prepare
from utils.types import IGNORE_INDEX

SIZE = (1024, 2048)
QUICK_SIZE = (64, 128)
IMAGES = 8
BATCH_SIZE = 2  # as the paper trains
NOISE = 2.6  # grey levels; gives PNG files of about 3.2 MB
WORKERS = (0, 1, 2)
TARGET, CACHED_TARGET = 1.3, 100.0
UPSTREAM, OURS, CACHED = "upstream's way", "ours", "ours, --cache"
NORMALISING = "normalisation on the CPU"
RATE_BATCHES = {UPSTREAM: 12, OURS: 12, CACHED: 300}  # about as long for each
Size = tuple[int, int]  # (H, W)

METHOD = """\
Images of 1024x2048 (height x width), texture and noise, with labels, as PNG files in the
Cityscapes layout; batches of 2, in random order. The yardstick is the upstream's way: Pillow opens
both files, resizes the image (bilinear) and the label (nearest), then to float, divided by 255,
normalised, label ids looked up in a table, collated by torch's default. `ours` yields uint8, to be
normalised on the device, and `--cache` reads decoded, resized arrays from a memory map. Both
resizes are measured: the shorter side to 768 (768x1536), which is the upstream's, and to 768x768,
which is the paper's. Files and cache are in the page cache of the system. Images and labels of the
three ways are compared first."""


class Resize(NamedTuple):
    """A resize under both projects' descriptions of it."""

    title: str
    size: Size


class UpstreamCityscapes(Dataset):
    """Cityscapes as the upstream project reads it.

    Args:
        root: the data set's folder.
        size: (H, W) of the resized images.
    """

    def __init__(self, root: Path, size: Size) -> None:
        self.images = sorted((root / "leftImg8bit" / "train").glob("*/*.png"))
        self.labels = sorted((root / "gtFine" / "train").glob("*/*_labelIds.png"))
        self.size = size
        self.table = np.full(256, IGNORE_INDEX)
        self.table[list(ROAD_TRAIN_IDS)] = list(ROAD_TRAIN_IDS.values())

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, NDArray]:
        """A normalised float32 image (3, H, W) and its train ids (H, W), int64."""
        shape = self.size[::-1]
        image = Image.open(self.images[index]).convert("RGB")
        label = Image.open(self.labels[index]).resize(shape, Image.Resampling.NEAREST)
        pixels = functional.to_tensor(image.resize(shape, Image.Resampling.BILINEAR))
        pixels = functional.normalize(pixels, list(IMAGENET_MEAN), list(IMAGENET_STD))
        return pixels, self.table[np.array(label, dtype=np.uint8)]


def run(settings: Settings) -> Section:
    """Cost per item, then rates of the loaders."""
    section = Section("Loading", METHOD)
    native = QUICK_SIZE if settings.quick else SIZE
    side = 3 * native[0] // 4
    resizes = (
        Resize("shorter side to 768", (side, 2 * side)),
        Resize("to 768x768", (side, side)),
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bytes_each = write_cityscapes(root, native, BATCH_SIZE if settings.quick else IMAGES)
        megabytes = f"{bytes_each / 1e6:.1f}"
        items, rates = [], []
        for resize in resizes:
            row, targets = item_costs(root, resize, settings)
            items.append(row)
            section.targets += targets
            rates += loader_rates(root, resize, settings)
    caption = f"CPU milliseconds per item without workers, image files of {megabytes} MB:"
    section.tables += [Table(caption, items), Table("Items per second of the loader:", rates)]
    return section


def write_cityscapes(root: Path, size: Size, count: int) -> float:
    """Write images and labels in the Cityscapes layout; return the mean size of an image file."""
    rng = np.random.default_rng(0)
    written = []
    for index in range(count):
        stem = f"city/city_{index:06d}_000019"
        image = root / f"leftImg8bit/train/{stem}_leftImg8bit.png"
        label = root / f"gtFine/train/{stem}_gtFine_labelIds.png"
        for path, pixels in ((image, textured(size, rng)), (label, blocks(size, rng))):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        written.append(image.stat().st_size)
    return float(np.mean(written))


def textured(size: Size, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Smooth patterns of several scales with sensor noise: (H, W, 3)."""
    values = np.full((*size, 3), 110.0, np.float32)
    for cell in (256, 64, 16):
        coarse = rng.normal(0, 25, (size[0] // cell + 2, size[1] // cell + 2, 3))
        values += cv2.resize(coarse.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC)
    values += rng.normal(0, NOISE, values.shape)
    return values.clip(0, 255).astype(np.uint8)


def blocks(size: Size, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Label ids (H, W) in squares."""
    coarse = rng.integers(0, 34, (size[0] // 32, size[1] // 32), np.uint8)
    return coarse.repeat(32, 0).repeat(32, 1)


def item_costs(root: Path, resize: Resize, settings: Settings) -> tuple[Row, list[Target]]:
    """CPU time per item in this process alone, as many items at a time as there are files."""
    streams = {name: open_stream(name, root, resize.size) for name in (UPSTREAM, OURS, CACHED)}
    check_alike(root, resize.size)
    batch = next(streams[CACHED])
    items = len(UpstreamCityscapes(root, resize.size))
    batches = items // BATCH_SIZE
    calls: dict[str, Callable[[], Any]] = {
        name: partial(take, stream, batches) for name, stream in streams.items()
    }
    cpu = torch.device("cpu")
    calls[NORMALISING] = lambda: [prepare(batch, cpu) for _ in range(batches)]
    samples = interleave(calls, repeats=settings.rounds(9))
    faster = {name: ratio(samples[UPSTREAM], samples[name]) for name in (OURS, CACHED)}
    row: Row = {"resize": resize.title}
    row |= {f"{name}, ms": timed.median / items * 1000 for name, timed in samples.items()}
    row |= {f"{name}, times faster": value for name, value in faster.items()}
    targets = [
        Target(f"{resize.title}, {name}, times faster", faster[name].median, bound, at_most=False)
        for name, bound in ((OURS, TARGET), (CACHED, CACHED_TARGET))
    ]
    return row, targets


def take(stream: Iterator[Any], count: int) -> None:
    """Take so many batches and drop them."""
    for _ in islice(stream, count):
        pass


def data_set(name: str, root: Path, size: Size) -> SegDataset:
    """Our Cityscapes at a size, cached or not."""
    cache = root / "cache" if name == CACHED else None
    return build_dataset("cityscapes", root, "train", transform=eval_transform(size), cache=cache)


def open_stream(name: str, root: Path, size: Size, workers: int = 0) -> Iterator[Any]:
    """Batches without end."""
    if name != UPSTREAM:
        own = data_set(name, root, size)
        return train_batches(own, batch_size=BATCH_SIZE, seed=0, num_workers=workers)
    dataset = UpstreamCityscapes(root, size)
    order = [[index, index + 1] for index in range(0, len(dataset), BATCH_SIZE)]
    return iter(
        DataLoader(
            dataset,
            batch_sampler=cycle(order),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
        )
    )


def check_alike(root: Path, size: Size) -> None:
    """Assert that all ways give the same labels and, within two grey levels, the same image."""
    pixels, label = UpstreamCityscapes(root, size)[0]
    for name in (OURS, CACHED):
        dataset = data_set(name, root, size)
        batch = next(iter(eval_batches(dataset, batch_size=1, num_workers=0)))
        image = prepare(batch, torch.device("cpu"))["image"][0]
        assert (pixels - image).abs().max() <= 2 / (255 * min(IMAGENET_STD)), "the images differ"
        agreeing = (torch.from_numpy(label) == batch["label"][0]).float().mean()
        assert agreeing > 0.999, "the labels differ"


def loader_rates(root: Path, resize: Resize, settings: Settings) -> list[Row]:
    """Items per second with workers: a loop that does nothing but take batches."""
    rows = []
    for workers in WORKERS[:2] if settings.quick else WORKERS:
        rates: dict[str, list[float]] = {name: [] for name in RATE_BATCHES}
        for _ in range(settings.rounds(3)):
            for name, count in RATE_BATCHES.items():
                stream = open_stream(name, root, resize.size, workers)
                rates[name].append(rate(stream, workers, 4 if settings.quick else count))
        row: Row = {"resize": resize.title, "workers": workers}
        row |= {name: float(np.median(values)) for name, values in rates.items()}
        against: dict[str, Ratio] = {
            f"{name}, times faster": ratio_of(rates[name], rates[UPSTREAM])
            for name in (OURS, CACHED)
        }
        rows.append(row | against)
    return rows


def rate(stream: Iterator[Any], workers: int, count: int) -> float:
    """Items per second that a stream gives, by the time that passes; the stream is closed.

    Before the clock starts, as many batches are taken as the workers prepare ahead, and more.
    """
    take(stream, 3 * workers + 1)
    began = time.perf_counter()
    take(stream, count)
    seconds = time.perf_counter() - began
    if isinstance(stream, Generator):
        stream.close()
    return BATCH_SIZE * count / seconds
