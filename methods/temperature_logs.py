"""What training logs of learned temperatures, and the warning of when they mean nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from utils.log import logger
from utils.types import IGNORE_INDEX, SegOutput

SATURATED = 0.99  # share of the training pixels predicted right from which on AbeT can invert


@torch.no_grad()
def temperature_logs(outputs: Sequence[SegOutput], labels: Tensor) -> dict[str, Tensor]:
    """Mean, least and greatest temperature of a batch, and the share of pixels predicted right.

    Args:
        outputs: of one network or of each member of an ensemble.
        labels: (N, H, W), any integer type.

    Returns:
        Scalars on the device; nothing where no network has a learned temperature.
    """
    learned = [output for output in outputs if output.temperature is not None]
    if not learned:
        return {}
    temperatures = torch.stack([t for output in learned if (t := output.temperature) is not None])
    known = labels != IGNORE_INDEX
    hits = torch.stack([(output.logits.max(1).indices == labels) & known for output in learned])
    return {
        "temperature": temperatures.mean(),
        "temperature_min": temperatures.amin(),
        "temperature_max": temperatures.amax(),
        "training_accuracy": hits.sum() / (len(learned) * known.sum()).clamp(min=1),
    }


def warn_if_saturated(values: Mapping[str, float], step: int) -> bool:
    """Say that the network knows its training pixels too well for AbeT; whether it said so.

    With next to no wrong or ambiguous pixel the temperature learns nothing of uncertainty, and
    AbeT can rank unknown pixels below known ones (the authors' experiment on MNIST: AUROC 95.5 %
    at an accuracy of 88 %, 7.9 % at 98 %).
    """
    accuracy = values.get("training_accuracy", 0.0)
    if accuracy < SATURATED:
        return False
    logger.warning(
        "step %d: %.2f %% of the training pixels are predicted right; with so few errors the"
        " learned temperature can invert AbeT's ranking: compare --ood_score abet,energy",
        step,
        100 * accuracy,
    )
    return True
