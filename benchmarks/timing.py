"""Interleaved repeats of several candidates, so that a busy machine slows all of them alike."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch


class Ratio(NamedTuple):
    """A ratio of paired samples: the median, the least and the greatest."""

    median: float
    least: float
    greatest: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.least:.3g} to {self.greatest:.3g})"


@dataclass
class Samples:
    """Seconds of the repeated calls of one candidate.

    Attributes:
        cost: what ratios are made of: CPU time of the process, or the GPU's own clock.
        wall: time that passed.
    """

    cost: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median cost of a call, in seconds."""
        return statistics.median(self.cost)

    @property
    def wall_median(self) -> float:
        """Median time that passed in a call, in seconds."""
        return statistics.median(self.wall)


def ratio(numerator: Samples, denominator: Samples) -> Ratio:
    """Cost over cost, each pair from the same round."""
    return ratio_of(numerator.cost, denominator.cost)


def wall_ratio(numerator: Samples, denominator: Samples) -> Ratio:
    """Time that passed over time that passed, each pair from the same round."""
    return ratio_of(numerator.wall, denominator.wall)


def ratio_of(numerator: list[float], denominator: list[float]) -> Ratio:
    """Number over number, pair by pair."""
    ratios = [one / other for one, other in zip(numerator, denominator, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def interleave(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    repeats: int,
    warmup: int = 1,
    calls: int = 1,
    device: torch.device | None = None,
) -> dict[str, Samples]:
    """Time the candidates one after the other, round by round: A B A B ...

    The garbage collector rests during a sample. On a GPU the events of the device bracket the
    calls of a sample, so that calls may run ahead of the device as they do in a real loop.

    Args:
        candidates: what to call, by name.
        repeats: measured rounds.
        warmup: rounds before them, not measured.
        calls: calls per sample; the figures are per call.
        device: where the work is done; None is the CPU.
    """
    clock = time_on_gpu if device is not None and device.type == "cuda" else time_on_cpu
    samples = {name: Samples() for name in candidates}
    for number in range(-warmup, repeats):
        for name, call in candidates.items():
            gc.collect()
            gc.disable()
            try:
                cost, wall = clock(call, calls)
            finally:
                gc.enable()
            if number >= 0:
                samples[name].cost.append(cost / calls)
                samples[name].wall.append(wall / calls)
    return samples


def time_on_cpu(call: Callable[[], Any], calls: int) -> tuple[float, float]:
    """CPU seconds of this process with all its threads, and seconds that passed."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
    return time.process_time() - cpu, time.perf_counter() - wall


def time_on_gpu(call: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Seconds between two events of the GPU, and seconds that passed until it was idle."""
    began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    wall = time.perf_counter()
    began.record()
    for _ in range(calls):
        call()
    ended.record()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / 1000, time.perf_counter() - wall


def load_average() -> float:
    """Jobs that wanted a core in the last minute."""
    return os.getloadavg()[0]
