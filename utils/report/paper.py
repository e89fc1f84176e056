"""The published numbers: mean IoU over seeds on the validation sets.

Source: Almeida, Dutra, Renna, "Instance-wise Uncertainty for Class Imbalance in Semantic
Segmentation", arXiv 2407.12609.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from utils.report.facts import Facts

SOURCE = "arXiv 2407.12609"
METHODS = ("cross_entropy", "uncertainty_cross_entropy")  # baseline and instance uncertainty
Values = Mapping[str, tuple[float, float]]  # by score: baseline and method, as fractions


class Experiment(NamedTuple):
    """What a table of the paper is about."""

    model: str
    trained_on: str
    tested_on: str


MOBILENET, RESNET50, RESNET101 = (
    f"deeplabv3plus_{name}" for name in ("mobilenet", "resnet50", "resnet101")
)

PUBLISHED: Mapping[Experiment, Values] = {
    Experiment(MOBILENET, "acdc", "acdc val"): {
        "person": (0.40, 0.42),
        "rider": (0.20, 0.22),
        "motorcycle": (0.24, 0.26),
        "bicycle": (0.38, 0.40),
        "traffic light": (0.59, 0.59),
        "truck": (0.37, 0.39),
        "bus": (0.74, 0.73),
        "train": (0.82, 0.81),
        "miou": (0.59, 0.59),
    },
    Experiment(RESNET50, "acdc", "acdc val"): {
        "person": (0.42, 0.45),
        "rider": (0.15, 0.20),
        "motorcycle": (0.25, 0.29),
        "bicycle": (0.36, 0.37),
        "traffic light": (0.63, 0.64),
        "truck": (0.41, 0.46),
        "bus": (0.74, 0.71),
        "train": (0.85, 0.84),
        "miou": (0.60, 0.60),
    },
    Experiment(RESNET101, "acdc", "acdc val"): {
        "person": (0.43, 0.49),
        "rider": (0.16, 0.23),
        "motorcycle": (0.30, 0.36),
        "bicycle": (0.35, 0.41),
        "traffic light": (0.64, 0.65),
        "truck": (0.49, 0.48),
        "bus": (0.77, 0.69),
        "train": (0.85, 0.83),
        "miou": (0.61, 0.62),
    },
    Experiment(RESNET101, "cityscapes", "cityscapes val"): {
        "rider": (0.46, 0.47),
        "person": (0.69, 0.70),
        "truck": (0.70, 0.68),
        "train": (0.66, 0.65),
        "bicycle": (0.66, 0.67),
        "miou": (0.69, 0.69),
    },
    Experiment(RESNET101, "cityscapes", "acdc val"): {
        "bicycle": (0.19, 0.39),
        "traffic sign": (0.44, 0.30),
        "miou": (0.39, 0.39),
    },
    Experiment(RESNET101, "acdc", "cityscapes val"): {
        "person": (0.25, 0.52),
        "rider": (0.07, 0.20),
        "car": (0.80, 0.86),
        "truck": (0.18, 0.40),
        "bus": (0.22, 0.38),
        "motorcycle": (0.07, 0.17),
        "bicycle": (0.37, 0.54),
        "miou": (0.37, 0.47),
    },
}


def published(facts: Facts) -> dict[str, float]:
    """The paper's scores for a row, in percent by name; empty where the paper has none.

    A member of an online ensemble is held to the numbers of its own model.
    """
    if facts.method not in METHODS:
        return {}
    model = re.sub(r"-\d+$", "", facts.part)
    key = Experiment(model or facts.model, facts.trained_on, facts.tested_on)
    column = METHODS.index(facts.method)
    # Rounded, because 100 times a fraction such as 0.29 is not a whole number.
    return {name: round(100 * pair[column], 6) for name, pair in PUBLISHED.get(key, {}).items()}
