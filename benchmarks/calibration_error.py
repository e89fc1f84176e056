"""The expected calibration error of millions of pixels against torchmetrics and the definition."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.classification import BinaryCalibrationError

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import interleave, ratio
from metrics.calibration_errors import ConfidenceBins, reliability
from metrics.calibration_sums import confidence_sums

BINS = 15
SIZE = (1000, 2000)  # two million pixels
QUICK_SIZE = (40, 50)
IMAGES = (1, 10)
TARGET = 1e-6

METHOD = """\
Maps of 1000x2000 confidences in float32 and whether each pixel is right, as a network on streets
gives them: two thirds of the confidences lie above 0.99, one in ten is 1. The exact value sums
every one of the 15 bins in float64. `ours` adds every map to the counts and sums of `Calibration`
(about 2^16 bins, which also give the KS error and the equal-mass error) and divides once;
`torchmetrics` is `BinaryCalibrationError`, which averages confidence against correctness just so,
fed with the same maps in float32 as its documentation does. It keeps all pixels until the end and
adds them up in float32."""


class Maps(NamedTuple):
    """What a network gives on some images."""

    confidence: Tensor  # (N, H, W), float32
    right: Tensor  # (N, H, W), bool


def run(settings: Settings) -> Section:
    """The error and the time at two and at twenty million pixels."""
    section = Section("Expected calibration error", METHOD)
    rows: list[Row] = []
    for images in IMAGES:
        maps = network_like(images, QUICK_SIZE if settings.quick else SIZE, settings.device)
        ways: dict[str, Callable[[], float]] = {
            "ours": partial(binned_ece, maps),
            "torchmetrics": partial(torchmetrics_ece, maps),
        }
        exact = exact_ece(maps)
        found = {name: way() for name, way in ways.items()}
        samples = interleave(ways, repeats=settings.rounds(5), warmup=1, device=settings.device)
        rows.append(
            {
                "pixels": maps.right.numel(),
                "exact, %": 100 * exact,
                "ours off by, %": 100 * abs(found["ours"] / exact - 1),
                "torchmetrics off by, %": 100 * abs(found["torchmetrics"] / exact - 1),
                "ours, ms": samples["ours"].median * 1000,
                "torchmetrics, ms": samples["torchmetrics"].median * 1000,
                "times faster": ratio(samples["torchmetrics"], samples["ours"]),
            }
        )
        name = f"ECE of {maps.right.numel():,} pixels, absolute error as a fraction"
        section.targets.append(Target(name, abs(found["ours"] - exact), TARGET, at_most=True))
    section.tables.append(Table("ECE in 15 bins, errors relative to the exact value:", rows))
    return section


def network_like(images: int, size: tuple[int, int], device: torch.device) -> Maps:
    """Confidences (N, H, W) that are mostly close to 1 and a little too high."""
    generator = torch.Generator().manual_seed(0)
    shape = (images, *size)
    doubt = 10 ** (-5 * torch.rand(shape, generator=generator)) * 0.8
    confidence = 1 - doubt.masked_fill_(torch.rand(shape, generator=generator) < 0.1, 0)
    right = torch.rand(shape, generator=generator) < confidence.pow(1.4)
    return Maps(confidence.to(device), right.to(device))


def exact_ece(maps: Maps) -> float:
    """The definition, bin by bin in float64: sum_j |sum conf - sum right| / N."""
    confidence: NDArray[np.float32] = maps.confidence.flatten().cpu().numpy()
    right: NDArray[np.bool_] = maps.right.flatten().cpu().numpy()
    edges = np.linspace(0, 1, BINS + 1)
    gaps = []
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        gaps.append(abs(confidence[inside].sum(dtype=np.float64) - right[inside].sum()))
    return float(sum(gaps) / len(right))


def binned_ece(maps: Maps) -> float:
    """What ``Calibration`` adds up for the confidence, map by map, and its ECE."""
    bins = ConfidenceBins(BINS)
    device = maps.right.device
    counts = torch.zeros(2, bins.size, dtype=torch.int64, device=device)
    sums = torch.zeros(bins.size, dtype=torch.float64, device=device)
    for confidence, right in zip(maps.confidence, maps.right, strict=True):
        added = confidence_sums(confidence, right, torch.ones_like(right), bins)
        counts += added["counts"]
        sums += added["confidence"]
    found = reliability(counts.cpu().numpy(), sums.cpu().numpy(), bins.layout).ece()
    assert found is not None, "there are pixels"
    return found


def torchmetrics_ece(maps: Maps) -> float:
    """The peer's value, updated map by map."""
    metric = BinaryCalibrationError(BINS, norm="l1", validate_args=False).to(maps.right.device)
    for confidence, right in zip(maps.confidence, maps.right, strict=True):
        metric.update(confidence, right.int())
    return float(metric.compute())
