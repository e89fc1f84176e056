"""AutoAugment's policy for ImageNet without its geometric sub-policies (arXiv 1805.09501)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional

Operation = Literal[
    "solarize",  # invert what is at least so bright
    "autocontrast",
    "equalize",
    "posterize",  # keep so many bits
    "invert",
    "colour",  # these three by a factor of 1 plus or minus the magnitude
    "contrast",
    "sharpness",
]


class Step(NamedTuple):
    """One half of a sub-policy."""

    operation: Operation
    probability: float
    magnitude: float = 0.0


_FIRST = (Step("solarize", 0.6, 1024 / 9), Step("autocontrast", 0.6))
_SECOND = (Step("equalize", 0.8), Step("equalize", 0.6))
_FOURTH = (Step("equalize", 0.4), Step("solarize", 0.2, 1280 / 9))
_NINTH = (Step("invert", 0.6), Step("equalize", 1.0))
_TENTH = (Step("colour", 0.6, 0.4), Step("contrast", 1.0, 0.8))

# Thresholds come from ten steps between 256 and 0. Some occur twice, as in the published list.
SUB_POLICIES: tuple[tuple[Step, Step], ...] = (
    _FIRST,
    _SECOND,
    (Step("posterize", 0.6, 5), Step("posterize", 0.6, 5)),
    _FOURTH,
    (Step("solarize", 0.6, 1536 / 9), Step("equalize", 0.6)),
    (Step("posterize", 0.8, 6), Step("equalize", 1.0)),
    (Step("equalize", 0.6), Step("posterize", 0.4, 5)),
    (Step("equalize", 0.0), Step("equalize", 0.8)),
    _NINTH,
    _TENTH,
    (Step("colour", 0.8, 0.8), Step("solarize", 0.8, 512 / 9)),
    (Step("sharpness", 0.4, 0.7), Step("invert", 0.6)),
    (Step("colour", 0.4, 0.0), Step("equalize", 0.6)),
    _FOURTH,
    _FIRST,
    _NINTH,
    _TENTH,
    _SECOND,
)


def auto_augment(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Change the colours of an image (3, H, W) uint8 by a sub-policy that is drawn uniformly.

    Args:
        image: is not changed.
        rng: gives the sub-policy, whether each of its steps is done, and the signs.
    """
    for step in SUB_POLICIES[int(rng.integers(len(SUB_POLICIES)))]:
        if rng.random() < step.probability:
            image = apply(image, step, 1 if rng.random() < 0.5 else -1)
    return image


def apply(image: Tensor, step: Step, sign: int) -> Tensor:
    """Do one step to an image (3, H, W) uint8.

    Args:
        image: is not changed.
        step: what to do, whatever its probability.
        sign: 1 or -1, of the magnitude in a factor.
    """
    return _OPERATIONS[step.operation](image, step.magnitude, 1 + sign * step.magnitude)


# From an image, a magnitude and a factor to an image.
_OPERATIONS: Mapping[Operation, Callable[[Tensor, float, float], Tensor]] = {
    "solarize": lambda image, threshold, _: functional.solarize(image, threshold),
    "autocontrast": lambda image, *_: functional.autocontrast(image),
    "equalize": lambda image, *_: functional.equalize(image),
    "posterize": lambda image, bits, _: functional.posterize(image, int(bits)),
    "invert": lambda image, *_: functional.invert(image),
    "colour": lambda image, _, factor: functional.adjust_saturation(image, factor),
    "contrast": lambda image, _, factor: functional.adjust_contrast(image, factor),
    "sharpness": lambda image, _, factor: functional.adjust_sharpness(image, factor),
}
