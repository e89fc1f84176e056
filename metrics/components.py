"""How well whole unknown objects are found, component by component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from metrics.base import Sums
from metrics.bootstrap import Bootstrap
from metrics.component_counts import Agreement, agreement, connected_components, overlap
from metrics.histogram import RankedScores
from metrics.ood import unknown_map
from metrics.ranking import percent
from utils.kept import score_map
from utils.types import IGNORE_INDEX, Batch, Prediction, Score

# By linspace, as in the public benchmark: the float64 next above 0.6 stands for 60 %, so that a
# component that fits to exactly 3/5 misses it there and here.
LEVELS = np.linspace(0.25, 0.75, 11)
PERCENTS = tuple(range(25, 80, 5))
SHOWN = (25, 50, 75)


class Components(RankedScores):
    """Component-level detection of unknown objects as SegmentMeIfYouCan defines it.

    Reads ``batch["ood"]``. Predicted are the pixels whose score is above the threshold, void ones
    left out; components are 8-connected, and ``metrics.component_counts.agreement`` defines their
    sIoU and PPV. At a level t a true component is a TP if its sIoU is at least t, else an FN, and
    a predicted one is an FP if its PPV is below t; all are counted over all images.

    Under ``components`` for each score: the ``threshold``; ``siou``, the mean over the true
    components; ``ppv``, the mean over the predicted ones; ``f1``, the mean of
    2 TP / (2 TP + FN + FP) over t = 25, 30 .. 75 % ("F1*"); the numbers of components; ``tp``,
    ``fn``, ``fp`` and ``f1_at`` for t of 25, 50 and 75 %. Rates are in percent; a mean over no
    component and the F1 without any are None.

    Unlike the public code, a background smaller than a size limit is not taken for a component.

    Args:
        class_names: names by train id.
        scores: of one forward variant.
        thresholds: by the name of the score, in its unit; the comparison with them is exact.
        smallest_prediction: predicted components with fewer pixels are removed.
        smallest_truth: true components with fewer pixels become void.
        per_scene: also report every scene.
        bootstrap: resampling of the images, at the same thresholds.
    """

    units: ClassVar[dict[str, str]] = {
        "threshold": "unit of the score",
        **dict.fromkeys(("siou", "ppv", "f1"), "percent"),
        **dict.fromkeys(("gt_components", "predicted_components", "tp", "fn", "fp"), "components"),
        "f1_at": "percent",
    }

    def __init__(
        self,
        class_names: Sequence[str],
        scores: Sequence[Score],
        thresholds: Mapping[str, float],
        *,
        smallest_prediction: int = 0,
        smallest_truth: int = 0,
        per_scene: bool = False,
        bootstrap: Bootstrap | None = None,
    ) -> None:
        super().__init__(class_names, scores, per_scene=per_scene, bootstrap=bootstrap)
        assert self.bins.keys() <= thresholds.keys(), "every score has a threshold"
        self.thresholds = thresholds
        self.smallest_prediction = smallest_prediction
        self.smallest_truth = smallest_truth

    def sums_of(self, batch: Batch, prediction: Prediction) -> Sums:
        """Counts of components, and sums of their sIoU and PPV.

        Raises:
            ValueError: if the data has no map of unknown objects, naming the data set.
        """
        ood = unknown_map(batch, "components")
        inside = ood != IGNORE_INDEX
        masks, sums = [ood], Sums()
        for score in self.scores:
            values = score_map(score, prediction)
            masks.append((values > float32_below(self.thresholds[score.name])) & inside)
            sums[f"{score.name}.not_finite"] = (~values.isfinite() & inside).sum().view(1)
        # the labelling works on the host: one transfer for all scores of a batch
        on_host = torch.stack([mask.to(torch.uint8) for mask in masks]).cpu().numpy()
        found: list[list[Agreement]] = [[] for _ in self.scores]
        for truth, *predictions in zip(*on_host, strict=True):
            true_components = connected_components(truth == 1)
            for agreements, predicted in zip(found, predictions, strict=True):
                pairs = overlap(true_components, connected_components(predicted))
                agreements.append(agreement(pairs, self.smallest_prediction, self.smallest_truth))
        for score, agreements in zip(self.scores, found, strict=True):
            sums |= _agreement_sums(score.name, agreements, ood.device)
        return sums

    def finish(self, sums: Sums) -> dict[str, Any]:
        """The numbers of the class docstring.

        Raises:
            ValueError: if scores were not finite.
        """
        results = {
            score.name: {"threshold": float(self.thresholds[score.name])}
            | _summary(score.name, sums)
            for score in self.scores
        }
        return {"components": results}


def float32_below(threshold: float) -> float:
    """The greatest float32 that is not above a threshold.

    A float32 score is above it exactly where it is above the threshold, while a comparison of a
    float32 tensor with the threshold itself rounds the latter, possibly up to the score.
    """
    nearest = np.float32(threshold)
    if float(nearest) > threshold:
        nearest = np.nextafter(nearest, np.float32(-np.inf))
    return float(nearest)


def _agreement_sums(name: str, agreements: Sequence[Agreement], device: torch.device) -> Sums:
    """What the components of some images add for one score."""
    siou, ppv = (np.concatenate(values) for values in zip(*agreements, strict=True))
    sums = {
        "components": torch.tensor([len(siou), len(ppv)]),
        "found": torch.from_numpy(_at_least(siou)),
        "false": len(ppv) - torch.from_numpy(_at_least(ppv)),
        "quality": torch.tensor([siou.sum(), ppv.sum()], dtype=torch.float64),
    }
    return {f"{name}.{key}": value.to(device, non_blocking=True) for key, value in sums.items()}


def _at_least(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many values reach each of the levels."""
    return (values[:, None] >= LEVELS).sum(0)


def _summary(name: str, sums: Sums) -> dict[str, Any]:
    """All results of one score but its threshold.

    Raises:
        ValueError: if scores were not finite, naming the score and how many.
    """
    missing = int(sums[f"{name}.not_finite"].sum())
    if missing:
        raise ValueError(
            f"the score {name} is not finite (nan or infinite) at {missing} pixels; expected "
            "finite numbers: the network's logits overflow or its weights are damaged"
        )
    true, predicted = sums[f"{name}.components"].tolist()
    found, false = sums[f"{name}.found"].tolist(), sums[f"{name}.false"].tolist()
    siou, ppv = sums[f"{name}.quality"].tolist()
    f1: list[float | None] = [None] * len(LEVELS)
    mean_f1 = None
    if true + predicted:
        shares = [2 * tp / (tp + true + fp) for tp, fp in zip(found, false, strict=True)]
        f1, mean_f1 = [*shares], sum(shares) / len(shares)
    return {
        "siou": percent(siou / true if true else None),
        "ppv": percent(ppv / predicted if predicted else None),
        "f1": percent(mean_f1),
        "gt_components": true,
        "predicted_components": predicted,
        "tp": _shown(found),
        "fn": _shown([true - tp for tp in found]),
        "fp": _shown(false),
        "f1_at": _shown([percent(value) for value in f1]),
    }


def _shown(by_level: Sequence[Any]) -> dict[str, Any]:
    """The values at 25, 50 and 75 %, by the percentage."""
    return {str(each): by_level[PERCENTS.index(each)] for each in SHOWN}
