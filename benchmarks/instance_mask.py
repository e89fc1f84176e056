"""Instance uncertainty of one map against a loop over its components."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import Samples, interleave, ratio
from uncertainty import instance_mean, instance_uncertainty
from utils.class_map import class_map

NUM_CLASSES = 19
SIZE = (768, 768)
QUICK_SIZE = (96, 96)
SPREAD = 3.0  # standard deviation of the logits
EPSILON = 1e-10  # as published
TOLERANCE = 1e-5  # nats


class Case(NamedTuple):
    """Maps with about this many components."""

    components: int
    sigma: float  # of the Gaussian that smooths the logits, in pixels of the full size
    target: float  # times faster than the loop
    rounds: int


CASES = (
    Case(50, 70, 12, 15),
    Case(500, 22, 50, 7),
    Case(5000, 6.7, 350, 3),
)

METHOD = """\
One image of 768x768, 19 classes; the logits are noise smoothed by a Gaussian. The yardstick is
the published code's way, written from its description: argmax over the classes, then for each
class its 8-connected components by OpenCV, and for each component its pixels by `np.where` over
the whole image and the mean of their entropy. `mask` goes from probabilities and entropy to the
mask on both sides; ours takes `class_map` and `instance_mean`. `logits` is the fused whole,
`instance_uncertainty`: class map, entropy and mask; beside it stands one read of the logits (their
sum), which no way can beat. All ways agree to 1e-5 nats, which is checked first. On a GPU the
yardstick brings classes and entropy to the host, as it must."""


def per_component_loop(probabilities: Tensor, entropy: Tensor) -> NDArray[np.float32]:
    """Instance mask (H, W) of one image, component by component.

    Args:
        probabilities: (1, C, H, W).
        entropy: (1, H, W).
    """
    classes = probabilities.argmax(1)[0].cpu().numpy()
    values = entropy[0].cpu().numpy()
    mask = np.zeros(values.shape, np.float32)
    for index in range(probabilities.shape[1]):
        of_class = (classes == index).astype(np.uint8)
        number, components = cv2.connectedComponents(of_class, connectivity=8)
        for component in range(1, number):
            place = np.where(components == component)
            mask[place] = values[place].mean()
    return mask


def mask_of_probabilities(probabilities: Tensor, entropy: Tensor) -> Tensor:
    """Instance mask (N, H, W) from the same: class map, components, means."""
    return instance_mean(class_map(probabilities), entropy)


def run(settings: Settings) -> Section:
    """The mask from probabilities and entropy, then the whole from the logits."""
    section = Section("Instance mask", METHOD)
    masks: list[Row] = []
    wholes: list[Row] = []
    for case in CASES:
        logits, probabilities, entropy = maps(case, settings)
        components = count_components(probabilities)
        check_equal(logits, probabilities, entropy)
        mask = measure_mask(probabilities, entropy, case, settings)
        faster = ratio(mask["loop"], mask["ours"])
        masks.append(
            {
                "components": components,
                "loop, ms": mask["loop"].median * 1000,
                "ours, ms": mask["ours"].median * 1000,
                "times faster": faster,
            }
        )
        name = f"instance mask of {components} components, times faster than the loop"
        section.targets.append(Target(name, faster.median, case.target, at_most=False))
        whole = measure_whole(logits, settings)
        wholes.append(
            {
                "components": components,
                "logits to mask, ms": whole["whole"].median * 1000,
                "read of the logits, ms": whole["read"].median * 1000,
                "times one read": ratio(whole["whole"], whole["read"]),
            }
        )
    section.tables.append(Table("`mask`, milliseconds per image:", masks))
    section.tables.append(Table("`logits`, milliseconds per image:", wholes))
    return section


def maps(case: Case, settings: Settings) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and probabilities (1, C, H, W) and the entropy (1, H, W) on the device."""
    size = QUICK_SIZE if settings.quick else SIZE
    sigma = case.sigma * size[0] / SIZE[0]
    generator = np.random.default_rng(0)
    noise = generator.standard_normal((NUM_CLASSES, *size)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), sigma) for plane in noise])
    logits = torch.from_numpy(smooth * (SPREAD / smooth.std()))[None].to(settings.device)
    probabilities = logits.softmax(1)
    entropy = -(probabilities * (probabilities + EPSILON).log()).sum(1)
    return logits, probabilities, entropy


def count_components(probabilities: Tensor) -> int:
    """How many predicted instances there are."""
    classes = class_map(probabilities)[0].cpu().numpy()
    numbers = [
        cv2.connectedComponents((classes == index).astype(np.uint8), connectivity=8)[0] - 1
        for index in range(NUM_CLASSES)
    ]
    return sum(numbers)


def check_equal(logits: Tensor, probabilities: Tensor, entropy: Tensor) -> None:
    """Assert that all ways give the same mask."""
    loop = torch.from_numpy(per_component_loop(probabilities, entropy))[None]
    for mask in (mask_of_probabilities(probabilities, entropy), instance_uncertainty(logits)):
        assert (mask.cpu() - loop).abs().max() < TOLERANCE, "the ways disagree"


def measure_mask(
    probabilities: Tensor, entropy: Tensor, case: Case, settings: Settings
) -> dict[str, Samples]:
    """From probabilities and entropy on the device to the mask."""
    return interleave(
        {
            "loop": lambda: per_component_loop(probabilities, entropy),
            "ours": lambda: mask_of_probabilities(probabilities, entropy),
        },
        repeats=settings.rounds(case.rounds),
        warmup=0,  # both ran when they were compared
        device=settings.device,
    )


def measure_whole(logits: Tensor, settings: Settings) -> dict[str, Samples]:
    """From logits on the device to the mask, and one read of the logits."""
    return interleave(
        {"whole": lambda: instance_uncertainty(logits), "read": logits.sum},
        repeats=settings.rounds(31),
        device=settings.device,
    )
