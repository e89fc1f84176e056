"""The temperature of least calibration error: the pruned search against trying the whole grid."""

from __future__ import annotations

import resource
import time

import torch
from torch import Tensor

from benchmarks.report import Row, Section, Settings, Table, Target
from benchmarks.timing import interleave
from uncertainty.calibrators.pixels import Pixels, prepare
from uncertainty.calibrators.search import (
    TemperatureFit,
    TemperatureGrid,
    calibration,
    search_temperature,
)

NUM_CLASSES = 19
PIXELS, PART, SAMPLED = 5_000_000, 200_000, 10
QUICK = 4_000  # pixels of both sizes in a quick run
CASES = {"one domain": 0.0, "shifted": 0.05}  # share of pixels with the logits of others
SURE = 0.8  # share of pixels whose labels the logits leave little doubt of
TIMES_FASTER, SECONDS = 25.0, 60.0

METHOD = """\
Logits of 19 classes as an overconfident network gives them: labels are drawn from a softmax that
is sharp for four pixels of five and of varying sharpness for the others, the logits are those of
that softmax times a factor from 1.3 to 2.1 that differs between pixels, and 5 % are void. In
`shifted`, 5 % of the pixels have the logits of other pixels, so that they are sure and mostly
wrong and no temperature calibrates. The grid is the published one of 950 temperatures.

`plain` tries them all with the same function on the same prepared pixels; at 200,000 pixels it is
run in full and must return the same temperature and error, which is checked. At 5 million pixels
ten temperatures, evenly spread over the grid, are timed and their mean is taken 950 times. The
time to prepare the pixels is part of both. Seconds are those that passed with the threads given
above: for the pruned search the median of three runs after one that is not counted, in which the
process gets its memory from the system. The peak is that of the whole process up to then, logits
and their making included."""


def run(settings: Settings) -> Section:
    """Both sizes of each case."""
    section = Section("Temperature search", METHOD)
    part, whole = (QUICK, 2 * QUICK) if settings.quick else (PART, PIXELS)
    rows: list[Row] = []
    for case, shifted in CASES.items():
        for count in (part, whole):
            data = pixels(count, shifted, settings.device)
            rows.append(compare(case, *data, settings, in_full=count == part))
        faster, seconds = rows[-1]["times faster"], rows[-1]["pruned, s"]
        what = f"temperature search, {case}"
        section.targets.append(
            Target(f"{what}, times faster than plain", faster, TIMES_FASTER, at_most=False)
        )
        section.targets.append(Target(f"{what}, seconds", seconds, SECONDS, at_most=True))
    section.tables.append(Table("Searches of 950 temperatures:", rows))
    return section


def pixels(count: int, shifted: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Overconfident logits (n, C) and labels (n,), uint8, 5 % of them void.

    Args:
        count: n.
        shifted: share of the pixels whose logits belong to other pixels.
        device: where they lie.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(count, NUM_CLASSES, generator=generator)
    sharpness = 1 + 8 * torch.rand(count, 1, generator=generator)
    sure = torch.rand(count, 1, generator=generator) < SURE
    sharpness[sure] = 7.5 + 15 * torch.rand(int(sure.sum()), generator=generator)
    logits *= sharpness
    labels = draw(logits, generator)
    logits *= 1.3 + 0.8 * torch.rand(count, 1, generator=generator)
    moved = torch.rand(count, generator=generator) < shifted
    logits[moved] = logits[moved].roll(1, 0)
    labels[torch.rand(count, generator=generator) < 0.05] = 255
    return logits.to(device), labels.to(device)


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One class per pixel (n,), uint8, from the softmax of logits (n, C): the Gumbel maximum."""
    labels = [
        (part - torch.empty_like(part).exponential_(generator=generator).log()).argmax(1)
        for part in logits.split(1 << 18)
    ]
    return torch.cat(labels).to(torch.uint8)


def compare(case: str, logits: Tensor, labels: Tensor, settings: Settings, *, in_full: bool) -> Row:
    """One search beside the plain one, which is run in full or extrapolated from a part."""
    found: list[TemperatureFit] = []
    searches = {"pruned": lambda: found.append(search_temperature(logits, labels))}
    seconds = interleave(searches, repeats=settings.rounds(3), warmup=1)["pruned"].wall_median
    memory = peak_memory()
    began = time.perf_counter()
    ready = prepare(logits, labels)
    preparing = time.perf_counter() - began
    plain = preparing + (plain_seconds(ready, found[0]) if in_full else sampled_seconds(ready))
    return {
        "case": case,
        "pixels": len(labels),
        "plain": "in full" if in_full else f"{SAMPLED} of 950",
        "temperature": found[0].temperature,
        "ECE at 1, %": 100 * (found[0].before or 0.0),
        "ECE there, %": 100 * (found[0].after or 0.0),
        "evaluations": found[0].evaluations,
        "plain, s": plain,
        "pruned, s": seconds,
        "times faster": plain / seconds,
        "logits, MiB": round(logits.nbytes / 2**20),
        "peak of the process, MiB": round(memory),
    }


def plain_search(ready: Pixels, grid: TemperatureGrid) -> tuple[float, float]:
    """The published search: start with T = 1, take every value that is strictly better."""
    best, temperature = calibration(ready, 1.0).ece, 1.0
    for value in grid.values:
        ece = calibration(ready, value).ece
        if ece < best:
            best, temperature = ece, value
    return temperature, best


def plain_seconds(ready: Pixels, fit: TemperatureFit) -> float:
    """Seconds of the plain search, which must find what the pruned one found."""
    began = time.perf_counter()
    found = plain_search(ready, TemperatureGrid())
    seconds = time.perf_counter() - began
    assert found == (fit.temperature, fit.after), "the two searches disagree"
    return seconds


def sampled_seconds(ready: Pixels) -> float:
    """Seconds of the plain search as a multiple of those of some temperatures."""
    values = TemperatureGrid().values
    some = values[len(values) // (2 * SAMPLED) :: len(values) // SAMPLED]
    began = time.perf_counter()
    for value in some:
        calibration(ready, value)
    return (time.perf_counter() - began) / len(some) * len(values)


def peak_memory() -> float:
    """The most memory this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
