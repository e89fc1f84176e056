"""One temperature for all pixels (Guo et al. 2017), and its fit by maximum likelihood."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from uncertainty.calibrators.base import Calibrator, divided
from uncertainty.calibrators.pixels import Pixels, prepare, warn_of_void
from uncertainty.calibrators.search import TemperatureFit
from utils.log import logger
from utils.types import Prediction

BOUNDS = (0.05, 20.0)
FLAT = 1e-9  # derivative by 1/T, in units of logits, at which the likelihood counts as greatest
MAX_STEPS = 100
RESOLUTION = 1e-15  # relative step that no longer changes 1/T


class Temperature(Calibrator):
    """Divides all logits by one temperature.

    Raises:
        ValueError: if the temperature is not above 0.
    """

    kind = "temperature"

    def __init__(self, value: float, num_classes: int) -> None:
        if not value > 0:
            raise ValueError(f"the temperature is {value:g}; it must be above 0")
        self.value = float(value)
        self.num_classes = num_classes

    def calibrate(self, prediction: Prediction, images: Tensor) -> Prediction:
        """Divide the logits."""
        # a tensor on the device, so that the division is the same as by a temperature per image
        value = prediction.logits.new_full((1, 1, 1, 1), self.value, dtype=torch.float64)
        return divided(prediction, value)

    def state(self) -> dict[str, Any]:
        """Temperature and number of classes."""
        return {"value": self.value, "num_classes": self.num_classes}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The calibrator whose ``state`` this is."""
        return cls(state["value"], state["num_classes"])


class Likelihood(NamedTuple):
    """Mean negative log likelihood of the pixels at one inverse temperature b = 1/T.

    Attributes:
        nll: in nats.
        slope: first derivative by b.
        curvature: second derivative by b, not negative.
    """

    nll: float
    slope: float
    curvature: float


def likelihood(pixels: Pixels, inverse: float) -> Likelihood:
    """The likelihood and its derivatives by the inverse temperature, in float64.

    With the gaps g_c >= 0 of a pixel, that of its label g_y and p = softmax(-b g):
    nll = b g_y + log sum_c exp(-b g_c), slope = g_y - E_p[g], curvature = Var_p[g].
    """
    sums = torch.zeros(3, dtype=torch.float64, device=pixels.chunks[0].gaps.device)
    for chunk in pixels.chunks:
        gaps, of_label = chunk.gaps.double(), chunk.label_gaps.double()
        weights = (gaps * -inverse).exp_()
        total = weights.sum(0)
        mean = (weights * gaps).sum(0) / total
        spread = (weights * (gaps - mean).square_()).sum(0) / total
        nll = of_label * inverse + total.log()
        sums += torch.stack([nll.sum(), (of_label - mean).sum(), spread.sum()])
    return Likelihood(*(sums / pixels.count).tolist())


def fit_temperature_by_nll(
    logits: Tensor, labels: Tensor, bounds: tuple[float, float] = BOUNDS
) -> TemperatureFit:
    """The temperature of greatest likelihood: Newton's method on 1/T, in which it is convex.

    A step that would leave the interval known to hold the optimum goes to its middle instead.
    Where the likelihood still grows at a bound, as where all pixels are right (towards 0), the
    bound is returned and a warning logged.

    Args:
        logits: (n, C), finite.
        labels: (n,), void 255.
        bounds: least and greatest temperature.

    Returns:
        The fit, its objective in nats. T = 1, with a warning, when all is void.

    Raises:
        ValueError: for bounds that are no interval above 0, logits that are not finite and labels
            that are no classes.
    """
    if not 0 < bounds[0] < bounds[1]:
        raise ValueError(
            f"the bounds of the temperature are {bounds[0]:g} and {bounds[1]:g}; "
            "they must be above 0, the first below the second"
        )
    pixels = prepare(logits, labels)
    if not pixels.count:
        warn_of_void("a temperature")
        return TemperatureFit(1.0, None, None, 0)
    before = likelihood(pixels, 1.0)
    limits = (1 / bounds[1], 1 / bounds[0])
    inverse, after, evaluations = newton(pixels, before, limits)
    temperature = bounds[1 - limits.index(inverse)] if inverse in limits else 1 / inverse
    if inverse in limits and abs(after.slope) > FLAT:
        logger.warning(
            "the likelihood still grows at temperature %g, an end of the range searched "
            "(%g to %g), which is kept; the accuracy is %.2f %%",
            *(temperature, *bounds, 100 * pixels.accuracy),
        )
    return TemperatureFit(temperature, before.nll, after.nll, evaluations + 1)


def newton(
    pixels: Pixels, at_one: Likelihood, limits: tuple[float, float]
) -> tuple[float, Likelihood, int]:
    """The inverse temperature within limits of least nll, what is there, and passes made."""
    start = min(max(1.0, limits[0]), limits[1])
    if pixels.accuracy == 1:  # the slope, minus the mean gap, is below 0 everywhere
        start = limits[1]
    inverse, passes = start, int(start != 1.0)
    found = likelihood(pixels, start) if passes else at_one
    inside = [0.0, math.inf]
    while abs(found.slope) > FLAT and passes < MAX_STEPS:
        inside[int(found.slope > 0)] = inverse
        following = next_inverse(inverse, found, (inside[0], inside[1]), limits)
        if abs(following - inverse) <= RESOLUTION * inverse:
            break
        inverse, passes = following, passes + 1
        found = likelihood(pixels, inverse)
    return inverse, found, passes


def next_inverse(
    inverse: float,
    found: Likelihood,
    inside: tuple[float, float],
    limits: tuple[float, float],
) -> float:
    """Newton's step, cut at the limits; half way where it leaves what holds the optimum."""
    direction = limits[int(found.slope < 0)]
    step = found.slope / found.curvature if found.curvature else inverse - direction
    following = min(max(inverse - step, limits[0]), limits[1])
    if inside[0] < following < inside[1] or following == inverse:
        return following
    return (max(inside[0], limits[0]) + min(inside[1], limits[1])) / 2
