"""The dense CRF: its lattices, one step of mean field, many problems of one image."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import Samples, interleave, ratio
from uncertainty.dense_crf import (
    PSEUDO_MASK_CRF,
    RESPONSE_CRF,
    CrfSettings,
    DenseCRF,
    unary_of,
)

PRESETS = {"response": RESPONSE_CRF, "pseudo mask": PSEUDO_MASK_CRF}
SIZE, QUICK_SIZE = (512, 512), (48, 64)
NUM_CLASSES = 21
VOC_SIZE, SCALES = (375, 500), 6  # a usual image of VOC, and how often each label is scaled
LABELS = (2, 3)
LIBRARY = "pydensecrf.densecrf"
SECONDS = 1.0  # ten iterations of one problem with three labels on an image of VOC

METHOD = """\
A photograph that comes with scikit-learn, resized; probabilities of smooth random blobs, ten
iterations. `lattices` builds the two permutohedral lattices and their normalisation, which is done
once for an image; `iteration` is a tenth of what ten iterations add to none. Where pydensecrf2 is
installed, it solves the same problem: `its lattices` and `its ten iterations` are on one thread of
the CPU wherever ours run, and it is given the channels in the order in which ours takes them.
`same class` is the share of pixels on which the two agree, `differ by` the greatest difference of a
marginal.

The second table has the 6 L problems of L classes that response scaling decodes for an image.
`anew` builds the lattices for each, `one by one` keeps them, `batched` also solves the problems
together; the first, as the library does where it is installed, includes building them."""


def run(settings: Settings) -> Section:
    """Both presets at one size, then batches of problems."""
    section = Section("Dense CRF", METHOD)
    rows = [measure_preset(name, settings) for name in PRESETS]
    height, width = QUICK_SIZE if settings.quick else SIZE
    caption = f"One image of {height}x{width} with {NUM_CLASSES} classes:"
    section.tables.append(Table(caption, rows))
    batches: list[Row] = []
    for labels in LABELS[:1] if settings.quick else LABELS:
        samples = measure_batch(labels, settings)
        batches.append(batch_row(labels, samples))
        if labels == 3:
            value = samples["one by one"].wall_median / (SCALES * labels)
            what = "seconds for ten iterations of one problem with 3 labels on 375x500"
            section.targets.append(Target(what, value, SECONDS, at_most=True))
    height, width = QUICK_SIZE if settings.quick else VOC_SIZE
    caption = f"Response scaling of one image of {height}x{width}:"
    section.tables.append(Table(caption, batches))
    return section


def photograph(size: tuple[int, int], device: torch.device) -> Tensor:
    """A street with a temple, (3, H, W), uint8, its channels in falling order of their sums."""
    picture = Image.fromarray(load_sample_image("china.jpg")).resize(
        size[::-1], Image.Resampling.BILINEAR
    )
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return image[image.flatten(1).sum(1).argsort(descending=True)].contiguous().to(device)


def problems(count: int, classes: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Energies (B, C, H, W) of blobs some forty pixels wide."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, classes, *(side // 40 + 2 for side in size), generator=generator)
    logits = nn.functional.interpolate(coarse, size=size, mode="bicubic")
    return unary_of((3 * logits).softmax(1)).to(device)


def measure_preset(name: str, settings: Settings) -> Row:
    """One line of the first table."""
    chosen, size = PRESETS[name], QUICK_SIZE if settings.quick else SIZE
    image = photograph(size, settings.device)
    unary = problems(1, NUM_CLASSES, size, settings.device)
    crf, bare = DenseCRF(image, chosen), DenseCRF(image, chosen._replace(iterations=0))
    candidates: dict[str, Callable[[], object]] = {
        "lattices": lambda: DenseCRF(image, chosen),
        "none": lambda: bare(unary),
        "ten": lambda: crf(unary),
        "both": lambda: DenseCRF(image, chosen)(unary),
    }
    library = library_or_none()
    if library is not None:
        theirs = library_crf(library, image, unary, chosen)
        candidates["its lattices"] = lambda: library_crf(library, image, unary, chosen)
        candidates["its ten"] = lambda: theirs.inference(chosen.iterations)
    samples = interleave(candidates, repeats=settings.rounds(3), device=settings.device)
    row: Row = {
        "kernels": name,
        "lattices, ms": samples["lattices"].median * 1000,
        "iteration, ms": (samples["ten"].median - samples["none"].median) * 100,
        "ten iterations, s": samples["ten"].median,
        "whole image, s": samples["both"].median,
    }
    if library is not None:
        expected = torch.from_numpy(np.array(theirs.inference(chosen.iterations)))
        row |= library_columns(crf(unary)[0].flatten(1).cpu(), expected, samples)
    return row


def library_or_none() -> ModuleType | None:
    """The library if it is installed."""
    try:
        return importlib.import_module(LIBRARY)
    except ModuleNotFoundError:
        return None


def library_crf(library: ModuleType, image: Tensor, unary: Tensor, chosen: CrfSettings) -> Any:
    """The library's object for one problem, ready for inference."""
    classes, height, width = unary.shape[1:]
    crf = library.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary[0].flatten(1).cpu().numpy()))
    crf.addPairwiseGaussian(sxy=chosen.gaussian_xy, compat=chosen.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=chosen.bilateral_xy,
        srgb=chosen.bilateral_colour,
        rgbim=np.ascontiguousarray(image.permute(1, 2, 0).cpu().numpy()),
        compat=chosen.bilateral_weight,
    )
    return crf


def library_columns(ours: Tensor, theirs: Tensor, samples: dict[str, Samples]) -> Row:
    """What the first table says about the library; marginals are (C, H * W)."""
    return {
        "its lattices, ms": samples["its lattices"].median * 1000,
        "its ten iterations, s": samples["its ten"].median,
        "times faster in iterations": ratio(samples["its ten"], samples["ten"]),
        "same class, %": 100 * (ours.argmax(0) == theirs.argmax(0)).double().mean().item(),
        "differ by": (ours - theirs).abs().max().item(),
    }


def measure_batch(labels: int, settings: Settings) -> dict[str, Samples]:
    """All problems of response scaling, in three ways."""
    size = QUICK_SIZE if settings.quick else VOC_SIZE
    image = photograph(size, settings.device)
    unaries = problems(SCALES * labels, labels, size, settings.device)
    crf = DenseCRF(image, RESPONSE_CRF)
    ways: dict[str, Callable[[], object]] = {
        "anew": lambda: [DenseCRF(image, RESPONSE_CRF)(u[None]) for u in unaries],
        "one by one": lambda: [crf(u[None]) for u in unaries],
        "batched": lambda: crf(unaries),
    }
    library = library_or_none()
    if library is not None:
        ways[LIBRARY] = lambda: [
            library_crf(library, image, u[None], RESPONSE_CRF).inference(RESPONSE_CRF.iterations)
            for u in unaries
        ]
    return interleave(ways, repeats=settings.rounds(3), device=settings.device)


def batch_row(labels: int, samples: dict[str, Samples]) -> Row:
    """One line of the second table."""
    return {
        "labels": labels,
        "problems": SCALES * labels,
        **{f"{name}, s": found.median for name, found in samples.items()},
        "batched, ms per problem": samples["batched"].median * 1000 / (SCALES * labels),
        **{
            f"batched, times faster than {name}": ratio(found, samples["batched"])
            for name, found in samples.items()
            if name != "batched"
        },
    }
