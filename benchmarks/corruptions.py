"""Milliseconds of each corruption, beside the time that decoding the image takes."""

from __future__ import annotations

from functools import partial

import cv2
import torch
from torch import Tensor

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import interleave
from datasets.corruptions import CORRUPTIONS, build_corruption
from datasets.corruptions.filters import convolve, gaussian

SIZES = ((360, 480), (512, 1024))  # (H, W)
QUICK_SIZES = ((32, 48), (48, 32))
SEVERITY = 5  # the widest kernels
MOST_MS = 100.0  # for an image of the first size
DECODING = "decoding a PNG"

METHOD = f"""\
CPU time of one image (uint8 to uint8) at severity {SEVERITY}, which has the widest kernels; the
median of the rounds. The image is smooth noise. The last row is what a loader pays anyway: decoding
the image from PNG."""


def run(settings: Settings) -> Section:
    """Measure every kind at both sizes."""
    sizes = QUICK_SIZES if settings.quick else SIZES
    by_size = [measure(size, settings) for size in sizes]
    rows: list[Row] = [
        {"corruption": name}
        | {
            f"{size[0]}x{size[1]}, ms": times[name]
            for size, times in zip(sizes, by_size, strict=True)
        }
        for name in by_size[0]
    ]
    slowest = max(CORRUPTIONS, key=lambda name: by_size[0][name])
    what = f"ms of the slowest ({slowest}) at {sizes[0][0]}x{sizes[0][1]}"
    return Section(
        "Corruptions",
        METHOD,
        [Table("Milliseconds an image:", rows)],
        [Target(what, by_size[0][slowest], MOST_MS, at_most=True)],
    )


def measure(size: tuple[int, int], settings: Settings) -> dict[str, float]:
    """Milliseconds of each kind at a size (H, W), and of decoding."""
    image = smooth_image(size)
    stored = cv2.imencode(".png", image.permute(1, 2, 0).contiguous().numpy())[1]
    candidates = {
        name: partial(build_corruption(name, SEVERITY, seed=0), image, "image")
        for name in CORRUPTIONS
    }
    samples = interleave(
        {**candidates, DECODING: partial(cv2.imdecode, stored, cv2.IMREAD_COLOR)},
        repeats=settings.rounds(9),
    )
    return {name: 1000 * sample.median for name, sample in samples.items()}


def smooth_image(size: tuple[int, int]) -> Tensor:
    """An image (3, H, W) uint8 with structure at the scale of some pixels."""
    noise = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    smooth = convolve(noise, gaussian(2.0))
    return (128 + 50 * smooth / smooth.std()).clamp(0, 255).to(torch.uint8)
