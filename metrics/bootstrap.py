"""Resampled images without keeping any: each image counts a Poisson number of times."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEVEL = 95  # percent of the resamples that an interval holds


@dataclass(frozen=True)
class Bootstrap:
    """The Poisson bootstrap over images (Chamandy et al. 2012).

    In every resample each image is taken a Poisson(1) number of times, which for many images is
    the usual draw with replacement. The numbers follow from (seed, image id) alone, so sums of
    fixed size suffice and neither order nor processes change a result.

    Attributes:
        resamples: how many.
        seed: of the numbers.
    """

    resamples: int
    seed: int = 0

    def weights(self, image: str) -> Tensor:
        """How often each resample takes an image, (R,) int64."""
        digest = hashlib.sha256(f"{self.seed} {image}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:16], "little"))
        return torch.from_numpy(rng.poisson(1.0, self.resamples))

    def weigh(self, sums: Mapping[str, Any], image: str) -> dict[str, Any]:
        """What an image adds to every resample: tensors (R, ...)."""
        weights = self.weights(image)
        weighed = {}
        for name, value in sums.items():
            assert isinstance(value, Tensor), f"{name} cannot be resampled"
            mine = weights.to(value.device, value.dtype, non_blocking=True)
            weighed[name] = mine.view(-1, *[1] * value.dim()) * value
        return weighed


def percentile_intervals(
    results: Iterable[Mapping[str, Any]], *, kept: Mapping[str, Any], whole: Mapping[str, Any]
) -> dict[str, list[float]]:
    """The central 95 % of every number over the results of the resamples.

    The resamples may rest on coarser sums than the result itself. What that alone changes, the
    difference between the two results without resampling, is added to the intervals.

    Args:
        results: of the resamples, nested alike; lists (curves) and None are passed over.
        kept: the result without resampling, from sums as coarse as those of the resamples.
        whole: the result itself.

    Returns:
        [low, high] by the dotted name of each number that most resamples have.
    """
    found: dict[str, list[float]] = {}
    count = 0
    for count, result in enumerate(results, 1):  # noqa: B007 - the number of results is wanted
        for name, value in numbers(result):
            found.setdefault(name, []).append(value)
    coarse = dict(numbers(kept))
    shift = {name: value - coarse.get(name, value) for name, value in numbers(whole)}
    tail = (100 - LEVEL) / 2
    return {
        name: (np.percentile(values, [tail, 100 - tail]) + shift[name]).tolist()
        for name, values in found.items()
        if name in shift and 2 * len(values) > count
    }


def numbers(result: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, float]]:
    """The floating-point numbers of nested results by their dotted names, error bounds left out."""
    for name, value in result.items():
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{name}.")
        elif isinstance(value, float) and not name.endswith("_bound"):
            yield f"{prefix}{name}", value
