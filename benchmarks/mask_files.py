"""Uncertainty masks on disk: their size, the time to write and to read them, memory of making."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.loading import textured
from benchmarks.memory import PROJECT, in_new_process, peak_of_this_process
from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import interleave, ratio
from datasets.base import Item, SegDataset
from datasets.camvid import CamVid
from datasets.files import read_image
from datasets.loaders import eval_batches
from datasets.mask_files import decode_mask, encode_mask
from datasets.streets import Streets
from datasets.taxonomy import ROAD, same_ids
from datasets.transforms import Size, eval_transform
from engine.batch import prepare
from engine.evaluate import run_pass
from engine.mask_making import MaskWriter
from engine.trained import trained_network
from options import parse
from uncertainty import instance_uncertainty
from utils.files import write_atomically
from utils.types import IGNORE_INDEX, Prediction

SHARED = Path(os.environ.get("SEGDOUBT_SHARED", PROJECT.parent / "shared"))
SIZE, FULL = (768, 768), (1024, 2048)
MOST_KILOBYTES = 60
IMAGES = 6
SIGNAL, NOISE, CELL = 4.0, 1.4, 24  # of the logits made from labels
DENSE_SIGMA = 6.5  # pixels; gives about 5,000 instances at 768x768
# The peaks of equal runs differ by about 10 MB.
MEMORY_IMAGES, MEMORY_SIZE, MORE_MEGABYTES = (50, 1600), (256, 256), 30

METHOD = f"""\
Masks are instance uncertainties, written and read as `--make_uncertainty_masks` and training do:
16-bit PNG with checked bytes. {{source}}
`dense` is the worst case: the largest of 19 maps of smooth noise, with thousands of instances. The
yardsticks are a float32 `.npy` file, which is the published form, and the decoding of images: one
of texture and noise at 1024x2048 (PNG; its mask is 768x768), and one of the data set at its own
size, 360x480 for CamVid (PNG, and JPEG of quality 75). All files are in the system's page cache and
opened each time. Writing includes the flush to disk, whose wait is no CPU time. Memory is the peak
resident memory of a process that makes masks of {MEMORY_SIZE[0]}x{MEMORY_SIZE[1]} pixels with a
network of one layer, for two numbers of images."""


class Masks(NamedTuple):
    """Some masks and how they came about."""

    values: list[NDArray[np.float32]]
    num_classes: int


def run(settings: Settings) -> Section:
    """Sizes, times, memory."""
    size = (96, 96) if settings.quick else SIZE
    masks, source = realistic_masks(size, 2 if settings.quick else IMAGES, settings.ckpt)
    section = Section("Mask files", METHOD.format(source=source))
    dense = dense_masks(size, 1 if settings.quick else 3)
    rows = [file_sizes(name, each) for name, each in (("realistic", masks), ("dense", dense))]
    section.tables.append(Table(f"Files of {size[0]}x{size[1]}:", rows))
    largest = rows[0]["largest, KB"]
    section.targets.append(Target("largest realistic mask, KB", largest, MOST_KILOBYTES, True))
    native, _ = realistic_masks(None, 1, settings.ckpt)
    with tempfile.TemporaryDirectory() as folder:
        time_files(section, masks, native, Path(folder), settings)
    measure_memory(section, settings)
    return section


def real_data(size: Size | None) -> SegDataset:
    """CamVid's test images, or streets where there is no CamVid."""
    root = SHARED / "data" / "camvid"
    if root.is_dir():
        return CamVid(root, "test", transform=eval_transform(size))
    return Streets(None, "test", transform=eval_transform(size))


def realistic_masks(size: Size | None, count: int, ckpt: Path | None) -> tuple[Masks, str]:
    """Masks of real images, or from their labels without a network, and how they were made."""
    dataset = real_data(size)
    step = max(1, len(dataset) // count)
    chosen = range(0, step * count, step)
    if ckpt is None:
        values = [mask_of_label(dataset[index]["label"], dataset.num_classes) for index in chosen]
        source = (
            f"`realistic` masks come from labels of {dataset.name}:\nlogits {SIGNAL:g} high with"
            f" smooth noise of deviation {NOISE:g}, which makes more instances than a trained"
            " network's."
        )
        return Masks(values, dataset.num_classes), source
    flags = ["--test_only", "--dataset", dataset.name, "--data_root", str(dataset.root)]
    trained = trained_network(parse([*flags, "--ckpt", str(ckpt)]), ckpt)
    values = [predicted_mask(trained.method.predict, dataset[index]["image"]) for index in chosen]
    source = f"`realistic` masks are those of {ckpt.name} on images of {dataset.name}."
    return Masks(values, len(trained.class_names)), source


def mask_of_label(label: Tensor, num_classes: int) -> NDArray[np.float32]:
    """A mask as of a network that is mostly right, from train ids (H, W)."""
    ids = label.as_subclass(Tensor).long()
    ids = torch.where(ids == IGNORE_INDEX, 0, ids)
    generator = torch.Generator().manual_seed(int(ids.sum()))
    cells = [length // CELL for length in ids.shape]
    noise = torch.randn(1, num_classes, *cells, generator=generator)
    logits = SIGNAL * F.one_hot(ids, num_classes).permute(2, 0, 1)[None]
    smooth = F.interpolate(noise, size=tuple(ids.shape), mode="bicubic")
    return instance_uncertainty(logits + NOISE * smooth)[0].numpy()


@torch.no_grad()
def predicted_mask(predict: Callable[[Tensor], Prediction], image: Tensor) -> NDArray[np.float32]:
    """The mask of a trained network for an image (3, H, W), uint8."""
    batch = prepare({"image": image.as_subclass(Tensor)[None]}, torch.device("cpu"))
    return instance_uncertainty(predict(batch["image"]).logits)[0].numpy()


def dense_masks(size: Size, count: int) -> Masks:
    """Masks with thousands of instances."""
    values = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        maps = [cv2.GaussianBlur(rng.normal(size=size), None, DENSE_SIGMA) for _ in ROAD]  # type: ignore[call-overload]
        logits = torch.from_numpy(np.stack(maps))[None].float()
        values.append(instance_uncertainty(40 * logits)[0].numpy())
    return Masks(values, len(ROAD))


def file_sizes(name: str, masks: Masks) -> Row:
    """Kilobytes of the files, of distinct values and of the published form."""
    scale = math.log(masks.num_classes)
    kilobytes = [len(encode_mask(mask, scale)) / 1000 for mask in masks.values]
    published = [mask.nbytes / 1000 for mask in masks.values]
    return {
        "masks": name,
        "files": len(kilobytes),
        "distinct values": int(np.median([len(np.unique(mask)) for mask in masks.values])),
        "median, KB": float(np.median(kilobytes)),
        "largest, KB": max(kilobytes),
        ".npy, KB": float(np.median(published)),
        ".npy, times larger": float(np.median(published) / np.median(kilobytes)),
    }


def time_files(
    section: Section, masks: Masks, native: Masks, folder: Path, settings: Settings
) -> None:
    """Add the times of writing and reading masks, and of decoding images, to a section."""
    scale = math.log(masks.num_classes)
    mask = masks.values[len(masks.values) // 2]
    photo = real_data(None).read(0)[0].permute(1, 2, 0).numpy()
    np.save(folder / "mask.npy", mask)
    for name, values in (("mask", mask), ("native", native.values[0])):
        write_atomically(folder / f"{name}.png", encode_mask(values, scale))
    full = textured((64, 128) if settings.quick else FULL, np.random.default_rng(0))
    cv2.imwrite(str(folder / "full.png"), full)
    cv2.imwrite(str(folder / "photo.png"), photo)
    cv2.imwrite(str(folder / "photo.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 75])
    calls: dict[str, Callable[[], Any]] = {
        "write a mask, 768x768": lambda: write_atomically(
            folder / "new.png", encode_mask(mask, scale)
        ),
        "read a mask, 768x768": partial(read_mask, folder / "mask.png"),
        "read a .npy, 768x768": partial(np.load, folder / "mask.npy"),
        "decode a PNG image, 1024x2048": partial(read_image, folder / "full.png"),
        "read a mask, native": partial(read_mask, folder / "native.png"),
        "decode a PNG image, native": partial(read_image, folder / "photo.png"),
        "decode a JPEG image, native": partial(read_image, folder / "photo.jpg"),
    }
    samples = interleave(calls, repeats=settings.rounds(15), warmup=2, calls=5)
    rows: list[Row] = [
        {"what": name, "CPU ms": timed.median * 1000, "wall ms": timed.wall_median * 1000}
        for name, timed in samples.items()
    ]
    section.tables.append(Table("Milliseconds per file:", rows))
    for size, image in (
        ("768x768", "a PNG image, 1024x2048"),
        ("native", "a PNG image, native"),
    ):
        share = ratio(samples[f"read a mask, {size}"], samples[f"decode {image}"])
        what = f"reading a mask, {size}, of the time to decode {image}"
        section.targets.append(Target(what, share.median, 1.0, at_most=True))


def read_mask(path: Path) -> Tensor:
    """A mask as training reads it."""
    return torch.from_numpy(decode_mask(path.read_bytes()))


def measure_memory(section: Section, settings: Settings) -> None:
    """Add the peak memory of mask making for a few and for many images to a section."""
    counts, size = ((3, 6), (64, 64)) if settings.quick else (MEMORY_IMAGES, MEMORY_SIZE)
    peaks = [in_new_process(peak_of_making, count, size) for count in counts]
    rows: list[Row] = [
        {"images": count, "peak MB": peak} for count, peak in zip(counts, peaks, strict=True)
    ]
    section.tables.append(Table("Peak memory of mask making:", rows))
    held = (counts[1] - counts[0]) * math.prod(size) * 4 / 1e6
    what = f"MB more for {counts[1] - counts[0]} more images, whose masks hold {held:.0f}"
    section.targets.append(Target(what, peaks[1] - peaks[0], MORE_MEGABYTES, at_most=True))


def peak_of_making(count: int, size: Size) -> float:
    """Make masks of so many images in this process; its peak resident memory in MB."""
    torch.set_num_threads(1)
    dataset = Noise(count, size)
    network = nn.Conv2d(3, len(ROAD), 1)

    def predict(images: Tensor, needs: frozenset[str] = frozenset()) -> Prediction:
        assert not needs
        return Prediction(network(images))

    with tempfile.TemporaryDirectory() as folder:
        wanted = {item.id for item in dataset.items}
        run_pass(
            predict,
            network,
            eval_batches(dataset, batch_size=2, num_workers=0),
            [MaskWriter(folder, math.log(len(ROAD)), wanted)],
            prepare=partial(prepare, device=torch.device("cpu")),
        )
    return peak_of_this_process()


class Noise(SegDataset):
    """So many images of smooth noise."""

    name = "noise"
    classes = ROAD
    train_ids = same_ids(ROAD)

    def __init__(self, count: int, size: Size) -> None:
        self.count = count
        super().__init__(None, "train", transform=eval_transform(size))

    def files(self) -> list[Item]:
        """Numbered items without files."""
        return [Item(f"noise{index}", None, None) for index in range(self.count)]

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) and an empty label (H, W)."""
        assert self.transform.size is not None
        image = textured(self.transform.size, np.random.default_rng(index))
        label = torch.zeros(self.transform.size, dtype=torch.uint8)
        return torch.from_numpy(image).permute(2, 0, 1), label
