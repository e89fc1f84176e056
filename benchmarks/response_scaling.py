"""Response scaling of one image for the most likely class, against decoding every altered map."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.report import Section, Settings, Table, Target
from benchmarks.timing import interleave, ratio
from uncertainty.response_decoders import argmax_decoder
from uncertainty.response_scaling import Response, ResponseScaling
from uncertainty.response_variance import PRESETS
from utils.class_map import class_map

CLASSES, PRESENT, SIZE = 21, 3, (512, 512)
QUICK_SIZE = (64, 64)
MANY_SIZE = (1024, 2048)  # with all classes present
MILLISECONDS = 200.0
GRID = 32  # pixels between the random numbers that the logits are interpolated from
ABSENT = 100.0  # taken from the logits of classes that are nowhere

METHOD = f"""\
Probabilities of {CLASSES} classes, of which {PRESENT} are in the cyclic mask, {SIZE[0]}x{SIZE[1]}
pixels, the six scales for VOC, always on the CPU. `literal` decodes all {6 * PRESENT} altered
maps one after the other; `ours` is the closed form of `ResponseScaling` with `argmax_decoder`.
Both find the same, which is checked first. Then `ours` alone with all {CLASSES} classes present,
and on {MANY_SIZE[0]}x{MANY_SIZE[1]} pixels."""


def run(settings: Settings) -> Section:
    """Time both ways on one image."""
    section = Section("Response scaling", METHOD)
    size, large = (QUICK_SIZE, QUICK_SIZE) if settings.quick else (SIZE, MANY_SIZE)
    scaling = ResponseScaling(PRESETS["voc"], argmax_decoder)
    few, every, many = (
        smooth_probabilities(*case) for case in ((size, PRESENT), (size, CLASSES), (large, CLASSES))
    )
    check_equal(scaling(few), literal(few))
    both = interleave(
        {"literal": lambda: literal(few), "ours": lambda: scaling(few)},
        repeats=settings.rounds(11),
    )
    others = interleave(
        {"every": lambda: scaling(every), "many": lambda: scaling(many)},
        repeats=settings.rounds(5),
    )
    milliseconds = both["ours"].median * 1000
    row = {
        "literal, ms": both["literal"].median * 1000,
        "ours, ms": milliseconds,
        "times faster": ratio(both["literal"], both["ours"]),
        f"{CLASSES} classes present, ms": others["every"].median * 1000,
        f"the same on {large[0]}x{large[1]}, ms": others["many"].median * 1000,
    }
    section.tables.append(Table("CPU time per image:", [row]))
    name = f"milliseconds for {size[0]}x{size[1]} pixels, {PRESENT} classes and six scales"
    section.targets.append(Target(name, milliseconds, MILLISECONDS, at_most=True))
    return section


def smooth_probabilities(size: tuple[int, int], present: int) -> Tensor:
    """Of which the first ``present`` classes are somewhere the most likely, (C, H, W)."""
    grid = [-(-side // GRID) + 1 for side in size]
    logits = 6 * torch.randn(1, CLASSES, *grid, generator=torch.Generator().manual_seed(0))
    logits[:, present:] -= ABSENT
    return F.interpolate(logits, size=size, mode="bicubic")[0].softmax(0)


def literal(probabilities: Tensor) -> Response:
    """The specification's steps one after the other."""
    label = class_map(probabilities[None])[0]
    kept = probabilities[label.unique().long()]
    variances = []
    for index in range(len(kept)):
        inside = []
        for scale in PRESETS["voc"]:
            altered = kept.clone()
            altered[index] **= scale
            inside.append((class_map(altered[None])[0] == index).float())
        variances.append(torch.stack(inside).var(0, correction=0))
    variance = torch.stack(variances).amax(0)
    low, high = variance.aminmax()
    return Response(label, (variance - low) / (high - low + 1e-6))


def check_equal(found: Response, expected: Response) -> None:
    """Assert that both ways agree, but for pixels where rounding decides."""
    assert torch.equal(found.label, expected.label), "the labels disagree"
    apart = (found.uncertainty - expected.uncertainty).abs() > 1e-5
    assert apart.float().mean() < 1e-4, "the uncertainties disagree"
