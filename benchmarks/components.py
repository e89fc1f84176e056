"""Component metrics of one map against a loop over its components."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.report import Section, Settings, Table, Target
from benchmarks.timing import interleave, ratio
from metrics.component_counts import Agreement, agreement, connected_components, overlap
from metrics.components import Components
from utils.types import Prediction, Score

SIZE = (1024, 2048)
QUICK_SIZE = (256, 512)
COMPONENTS = 500
SIGMA = 8.1  # of the Gaussian that smooths the noise, in pixels: about so many components
SHARED = 0.8  # correlation of the score with the truth
ABOVE = 1.0  # threshold of both, in standard deviations
VOID_ROWS = 1 / 8  # share of the image that is void, at the bottom
VOID = 255
SMALLEST_PREDICTION, SMALLEST_TRUTH = 50, 10  # of SegmentMeIfYouCan's obstacle track
MILLISECONDS = 50.0
NAME = "score"

METHOD = f"""\
One image of {SIZE[0]}x{SIZE[1]} with about {COMPONENTS} predicted components and as many true ones:
two maps of noise, smoothed by a Gaussian, with a correlation of {SHARED}, cut at {ABOVE:.0f}
standard deviation; the rows at the bottom are void. `loop` is the published way, written from its
description: for the size limits, and then for every true and every predicted component, masks of
the whole image. `ours` is what the metric `components` adds for one image, from the score map to
its sums: two labellings and one joint count. Both find the same sIoU and PPV, which is checked
first. Always on the CPU; size limits of {SMALLEST_PREDICTION} and {SMALLEST_TRUTH} pixels."""


class Image(NamedTuple):
    """What is given of one image, each (H, W)."""

    ood: NDArray[np.uint8]  # 0 known, 1 unknown, 255 void
    scores: NDArray[np.float32]


def run(settings: Settings) -> Section:
    """Time both ways on one image."""
    section = Section("Component metrics", METHOD)
    image = noise_image(QUICK_SIZE if settings.quick else SIZE)
    metric = Components(
        ("known",),
        [Score(NAME, lambda prediction: prediction.logits[:, 0])],
        {NAME: ABOVE},
        smallest_prediction=SMALLEST_PREDICTION,
        smallest_truth=SMALLEST_TRUTH,
    )
    true, predicted = check_equal(image)
    samples = interleave(
        {"ours": lambda: add_image(metric, image)}, repeats=settings.rounds(31), warmup=3
    )
    both = interleave(
        {"loop": lambda: per_component_loop(image), "ours": lambda: add_image(metric, image)},
        repeats=settings.rounds(5),
        warmup=0,  # both ran before
    )
    milliseconds = samples["ours"].median * 1000
    row = {
        "true components": true,
        "predicted components": predicted,
        "loop, ms": both["loop"].median * 1000,
        "ours, ms": milliseconds,
        "times faster": ratio(both["loop"], both["ours"]),
    }
    section.tables.append(Table("CPU time per image:", [row]))
    name = f"milliseconds for {predicted} components"
    section.targets.append(Target(name, milliseconds, MILLISECONDS, at_most=True))
    return section


def noise_image(size: tuple[int, int]) -> Image:
    """Unknown objects and scores that find many of them, in units of standard deviations."""
    generator = np.random.default_rng(0)
    planes = [
        cv2.GaussianBlur(generator.standard_normal(size).astype(np.float32), (0, 0), SIGMA)
        for _ in range(2)
    ]
    first, second = (plane / plane.std() for plane in planes)
    ood = (first > ABOVE).astype(np.uint8)
    ood[round(size[0] * (1 - VOID_ROWS)) :] = VOID
    return Image(ood, SHARED * first + np.float32(np.sqrt(1 - SHARED**2)) * second)


def add_image(metric: Components, image: Image) -> None:
    """What the metric does with one image of a batch."""
    ood, scores = torch.from_numpy(image.ood)[None], torch.from_numpy(image.scores)[None, None]
    metric.sums_of({"ood": ood}, Prediction(scores))


def per_component_loop(image: Image) -> Agreement:
    """The sIoU and PPV of all components by comparisons of whole images, as published."""
    inside = image.ood != VOID
    truth = (image.ood == 1).astype(np.uint8)
    found = ((image.scores > ABOVE) & inside).astype(np.uint8)
    true_ids, ids = (cv2.connectedComponents(mask, connectivity=8)[1] for mask in (truth, found))
    for number in range(1, ids.max() + 1):
        if np.count_nonzero(ids == number) < SMALLEST_PREDICTION:
            ids[ids == number] = 0
    for number in range(1, true_ids.max() + 1):
        if np.count_nonzero(true_ids == number) < SMALLEST_TRUTH:
            inside[true_ids == number] = False
    true_ids, ids = true_ids[inside], ids[inside]
    return Agreement(
        np.array([one_siou(true_ids, ids, each) for each in np.unique(true_ids[true_ids > 0])]),
        np.array([(true_ids[ids == each] > 0).mean() for each in np.unique(ids[ids > 0])]),
    )


def one_siou(true_ids: NDArray[np.int32], ids: NDArray[np.int32], number: int) -> float:
    """The adjusted intersection over union of one true component."""
    mine = true_ids == number
    touching = np.isin(ids, np.setdiff1d(ids[mine], 0))
    intersection = np.count_nonzero(mine & touching)
    adjustment = np.count_nonzero(touching & (true_ids > 0) & ~mine)
    return intersection / (np.count_nonzero(mine | touching) - adjustment)


def check_equal(image: Image) -> tuple[int, int]:
    """Assert that both ways agree; the numbers of true and predicted components that count."""
    found = (image.scores > ABOVE) & (image.ood != VOID)
    pairs = overlap(connected_components(image.ood == 1), connected_components(found))
    ours = agreement(pairs, SMALLEST_PREDICTION, SMALLEST_TRUTH)
    for mine, theirs in zip(ours, per_component_loop(image), strict=True):
        assert np.array_equal(np.sort(mine), np.sort(theirs)), "the ways disagree"
    return len(ours.siou), len(ours.ppv)
