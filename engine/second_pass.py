"""What needs a threshold of the whole test, and so a second look: components and pictures."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.base import SegDataset
from datasets.joined import Joined
from engine.ood_pictures import ood_writers
from metrics import MetricSettings, build_metrics
from utils.types import Consumer, Score


class Thresholds(NamedTuple):
    """Scores above which pixels count as unknown, by the name of the score."""

    best_f1: Mapping[str, float]  # for components
    tpr95: Mapping[str, float]  # for pictures: where 95 % of the unknown pixels are found


def found_thresholds(results: Mapping[str, Any]) -> Thresholds:
    """The thresholds that follow from the results of the metric ood.

    The best F1 counts all pixels with at least a score, components those above one: they get the
    greatest float32 below it.
    """
    found = results["total"]["ood"]
    below = {
        name: float(np.nextafter(np.float32(one["f1_threshold"]), np.float32(-np.inf)))
        for name, one in found.items()
    }
    return Thresholds(below, {name: one["tpr95_threshold"] for name, one in found.items()})


def typed_thresholds(opts: Namespace, names: Sequence[str]) -> dict[str, float]:
    """The thresholds of ``--ood_threshold``: one for all scores, or one for each."""
    values = list(opts.ood_threshold)
    return dict(zip(names, values * len(names) if len(values) == 1 else values, strict=True))


def component_sizes(opts: Namespace, dataset: SegDataset) -> tuple[int, int]:
    """Fewest pixels of a predicted and of a true component: typed, or usual for the data set."""
    if opts.component_sizes:
        return opts.component_sizes[0], opts.component_sizes[1]
    parts = dataset.parts if isinstance(dataset, Joined) else (dataset,)
    usual = {part.component_sizes for part in parts}
    return usual.pop() if len(usual) == 1 else (0, 0)


def second_consumers(
    opts: Namespace,
    settings: MetricSettings,
    class_names: Sequence[str],
    results: Mapping[str, Any],
    folder: Path,
) -> list[Consumer]:
    """What a second pass is made for; nothing where none is asked for.

    Args:
        opts: the flags.
        settings: of the metrics, with the scores in question.
        class_names: names by train id.
        results: of the first pass.
        folder: of the pictures.
    """
    scores: Sequence[Score] = settings.ood_scores
    pictures = opts.save_val_results and "ood" in opts.metrics
    components = "components" in opts.metrics
    if not (pictures or components):
        return []
    consumers: list[Consumer] = []
    if components:
        if opts.ood_threshold:
            chosen: Mapping[str, float] = typed_thresholds(opts, [score.name for score in scores])
        else:
            chosen = found_thresholds(results).best_f1
        consumers += build_metrics(["components"], class_names, settings.with_thresholds(chosen))
    if pictures:
        crop = opts.dataset == "lost_and_found"
        consumers += ood_writers(folder, scores, found_thresholds(results).tpr95, crop=crop)
    return consumers
