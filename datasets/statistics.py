"""What the labels of a data set hold: counts by class, sizes, offending files, class weights."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datasets.base import SegDataset
from datasets.files import image_size, locked, read_image
from datasets.items import by, refuse_other_size
from datasets.labels import ranges
from datasets.parallel import threaded
from utils.files import write_json
from utils.types import IGNORE_INDEX

MOST_SHOWN = 20  # problems printed of a report; it holds them all


@dataclass
class DataReport:
    """Counts over all labels of a split; a set of unknown objects counts as known and unknown.

    Attributes:
        dataset: the data set that was read.
        pixels: (C,) int64, pixels of each class.
        images: (C,) int64, images that show each class.
        void_pixels: pixels of no class.
        void_images: ids of the images without a labelled pixel.
        raw_values: the label values found before mapping, ascending.
        sizes: number of labels of each size (H, W).
        problems: every offending file with what is wrong, one sentence each.
    """

    dataset: SegDataset
    pixels: NDArray[np.int64]
    images: NDArray[np.int64]
    void_pixels: int = 0
    void_images: list[str] = field(default_factory=list)
    raw_values: list[int] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def class_names(self) -> tuple[str, ...]:
        """What is counted, in the order of ``pixels``."""
        return self.dataset.label_map.class_names

    def weights(self) -> NDArray[np.float64]:
        """Inverse class proportions w_c = 1 / (C_seen p_c), so that sum p_c w_c = 1; unseen: 0."""
        return inverse_proportions(self.pixels)

    def __str__(self) -> str:
        return "\n".join([*_heading(self), *_table(self), *_notes(self)])


def check_data(dataset: SegDataset, *, decode_images: bool = True) -> DataReport:
    """Read every label and image of a split once.

    Nothing is raised for bad files: all of them are listed in the report's ``problems``.

    Args:
        dataset: the split.
        decode_images: whether to decode the images; else only their headers are read.
    """
    num_classes = len(dataset.label_map.class_names)
    report = DataReport(dataset, np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64))
    raw_values: set[int] = set()
    scans = threaded(
        partial(scan_label, dataset, decode_images), len(dataset), f"labels of {dataset.split}"
    )
    for item, scan in zip(dataset.items, scans, strict=True):
        report.problems += scan.problems
        if scan.size is None:
            continue
        raw_values.update(scan.raw_values)
        report.pixels += scan.pixels[:num_classes]
        report.images += scan.pixels[:num_classes] > 0
        report.void_pixels += int(scan.pixels[IGNORE_INDEX])
        report.sizes[scan.size] += 1
        if not scan.pixels[:num_classes].any():
            report.void_images.append(item.id)
    report.raw_values = sorted(raw_values)
    hint = dataset.label_map.binary_hint(raw_values)
    if hint and not report.problems:
        report.problems.append(f"{dataset.root}: all labels hold only the values 0 and 255{hint}")
    return report


class LabelScan(NamedTuple):
    """What one label holds; an unreadable one has no size."""

    pixels: NDArray[np.int64]  # (256,), by train id
    raw_values: list[int]
    size: tuple[int, int] | None
    problems: list[str]


def scan_label(dataset: SegDataset, decode_image: bool, index: int) -> LabelScan:
    """Count the pixels of one label by class, as training sees it, and compare its size."""
    item = dataset.items[index]
    try:
        label = dataset.read_raw_label(index)
    except ValueError as error:
        return LabelScan(np.zeros(256, np.int64), [], None, [str(error)])
    size = (label.shape[0], label.shape[1])
    counts = torch.bincount(label.flatten(), minlength=256).numpy()
    table = dataset.label_map.table
    pixels = np.bincount(table, counts, 256).astype(np.int64)
    if dataset.damage is not None:
        seen = dataset.damaged(torch.from_numpy(table[label.numpy()]), index)
        pixels = torch.bincount(seen.flatten(), minlength=256).numpy()
    values = np.flatnonzero(counts).tolist()
    problem = dataset.label_map.problem(values)
    problems = [f"{item.label or item.id}: {problem}"] if problem else []
    if item.image is not None:
        try:
            whole = read_image(item.image).shape[:2] if decode_image else image_size(item.image)
            refuse_other_size(item, size, whole)
        except ValueError as error:
            problems.append(str(error))
    return LabelScan(pixels, values, size, problems)


def class_weights(dataset: SegDataset, cache_dir: Path) -> Tensor:
    """Inverse class proportions of a split's labels: w_c = 1 / (C_seen p_c), (C,) float32.

    The mean weight of a labelled pixel is 1: sum over classes of p_c w_c = 1. A class without a
    pixel has weight 0. The counts are kept in ``cache_dir`` until files or label map change; those
    of labels from elsewhere are not kept.

    Raises:
        ValueError: if a label is bad, or none holds a labelled pixel.
    """
    kept = dataset.label_source is None
    pixels = _kept_pixels(dataset, cache_dir) if kept else _pixels(dataset)
    if not pixels.any():
        raise ValueError(
            f"{dataset.name}, split {dataset.split!r}: no label holds a labelled pixel"
        )
    return torch.from_numpy(inverse_proportions(pixels)).to(torch.float32)


def _kept_pixels(dataset: SegDataset, cache_dir: Path) -> NDArray[np.int64]:
    """``_pixels`` of the label files, counted once."""
    path = cache_dir / f"{dataset.name}_{dataset.split}_{dataset.content_key()}.json"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        if not path.is_file():
            counts = dict(zip(dataset.class_names, _pixels(dataset).tolist(), strict=True))
            write_json(path, {"pixels": counts, "images": len(dataset)})
    stored = json.loads(path.read_text())["pixels"]
    return np.array([stored[name] for name in dataset.class_names])


def _pixels(dataset: SegDataset) -> NDArray[np.int64]:
    """Pixels of each class in all labels of a split, (C,).

    Raises:
        ValueError: naming the first bad label.
    """
    report = check_data(dataset, decode_images=False)
    if report.problems:
        raise ValueError(
            f"{report.problems[0]} ({len(report.problems)} such problems in all; "
            "--check_data lists them)"
        )
    return report.pixels


def inverse_proportions(pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """w_c = 1 / (C_seen p_c) from the pixels of each class (C,); 0 for a class without any."""
    seen = pixels > 0
    weights = np.zeros(len(pixels))
    weights[seen] = pixels.sum() / (seen.sum() * pixels[seen])
    return weights


def _heading(report: DataReport) -> list[str]:
    dataset = report.dataset
    sizes = [f"{by(size)} ({count})" for size, count in report.sizes.most_common(5)]
    more = f" and {len(report.sizes) - 5} other sizes" if len(report.sizes) > 5 else ""
    where = f" in {dataset.root}" if dataset.items[0].image is not None else ""
    return [
        f"{dataset.name}, split {dataset.split}: {len(dataset)} images{where}",
        f"sizes (rows x columns): {', '.join(sizes) or 'none readable'}{more}",
        f"label values found: {ranges(report.raw_values) or 'none'}",
        f"label map: {dataset.label_map}",
        "",
    ]


def _table(report: DataReport) -> list[str]:
    """The class table; percentages are of the labelled pixels, for void of all pixels."""
    label_map = report.dataset.label_map
    labelled = max(1, int(report.pixels.sum()))
    rows = [("train id", "class", "label ids", "pixels %", "images", "weight")]
    for train, (name, weight) in enumerate(zip(report.class_names, report.weights(), strict=True)):
        share, images = 100 * report.pixels[train] / labelled, int(report.images[train])
        numbers = (f"{share:.4f}", str(images), f"{weight:.4g}")
        absent = ("-", "absent", "0")
        ids = ranges(label_map.raw_ids(train))
        rows.append((str(train), name, ids, *(numbers if images else absent)))
    everything = max(1, int(report.pixels.sum()) + report.void_pixels)
    void = f"{100 * report.void_pixels / everything:.4f}"
    rows.append((str(IGNORE_INDEX), "void", ranges(label_map.raw_ids(IGNORE_INDEX)), void, "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = (1, 2)  # names and ids; numbers stand right
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _notes(report: DataReport) -> list[str]:
    """Absent classes, images that teach nothing, and what is wrong."""
    names = report.class_names
    absent = [name for name, images in zip(names, report.images, strict=True) if not images]
    notes = [f"classes without a pixel: {', '.join(absent)}"] if absent else []
    if report.void_images:
        shown = ", ".join(report.void_images[:3])
        notes.append(f"{len(report.void_images)} images are void throughout: {shown}")
    problems = report.problems
    if not problems:
        return ["", *notes, "no problems"]
    more = len(problems) - MOST_SHOWN
    shown_problems = [f"  {problem}" for problem in problems[:MOST_SHOWN]]
    rest = [f"  and {more} more"] if more > 0 else []
    return ["", *notes, f"{len(problems)} problems:", *shown_problems, *rest]
