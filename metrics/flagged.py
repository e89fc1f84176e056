"""How many of the pixels that a score flags are wrong, and how many of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from metrics.base import StreamingMetric, Sums
from metrics.bootstrap import Bootstrap
from metrics.ranking import percent
from metrics.selective import error_map
from utils.kept import score_map
from utils.types import IGNORE_INDEX, Batch, Prediction, Score

NOT_FINITE = "not finite"  # ends the name of a count


def flagged_counts(scores: Tensor, errors: Tensor, limit: float) -> Tensor:
    """How many right and wrong pixels have a score below and from a limit on.

    It does not wait for the device.

    Args:
        scores: (N, H, W), floating point.
        errors: (N, H, W) uint8: 0 right, 1 wrong, 255 void.
        limit: in the unit of the score.

    Returns:
        (2, 2), int64: row 0 below, row 1 flagged; column 0 right, column 1 wrong.
    """
    flagged = scores >= limit
    rows = [
        torch.stack([(where & (errors == kind)).count_nonzero() for kind in (0, 1)])
        for where in (~flagged, flagged)
    ]
    return torch.stack(rows)


class FlaggedPixels(StreamingMetric):
    """Whether the pixels that a score flags as uncertain are those whose class is wrong.

    A pixel is flagged where its score reaches (1 - threshold) times the greatest value the score
    can have: with threshold 0.05 those that URN's training all but leaves out. Void pixels do not
    count. Under ``flagged`` for each score: the ``share`` of the pixels that is flagged, the
    ``error_rate`` of all and that ``inside`` and ``outside`` of the flagged ones, in percent, and
    ``times``, inside over outside; what is undefined is None.

    Args:
        class_names: names by train id.
        scores: of one forward variant, each with a greatest value.
        threshold: in [0, 1].
        per_scene: also report every scene.
        bootstrap: resampling of the images.

    Raises:
        ValueError: if the threshold is out of range.
    """

    units: ClassVar[dict[str, str]] = {
        "pixels": "pixels",
        "share": "percent",
        "error_rate": "percent",
        "inside": "percent",
        "outside": "percent",
        "times": "ratio",
    }

    def __init__(
        self,
        class_names: Sequence[str],
        scores: Sequence[Score],
        *,
        threshold: float = 0.05,
        per_scene: bool = False,
        bootstrap: Bootstrap | None = None,
    ) -> None:
        super().__init__(per_scene=per_scene, bootstrap=bootstrap)
        assert len({score.variant for score in scores}) == 1, "one metric for each variant"
        if not 0 <= threshold <= 1:
            raise ValueError(f"flag threshold {threshold:g} is outside 0..1; published is 0.05")
        self.scores = tuple(scores)
        self.needs = frozenset[str]().union(*(score.needs for score in scores))
        self.variant = scores[0].variant
        self.limits = {
            score.name: (1 - threshold) * greatest(score, len(class_names)) for score in scores
        }

    def sums_of(self, batch: Batch, prediction: Prediction) -> Sums:
        """Right and wrong pixels, flagged or not, and those whose score is not finite."""
        errors = error_map(prediction, batch["label"])
        known = errors != IGNORE_INDEX
        sums: Sums = {}
        for score in self.scores:
            values = score_map(score, prediction)
            sums[score.name] = flagged_counts(values, errors, self.limits[score.name])
            lost = (known & ~values.isfinite()).count_nonzero()
            sums[f"{score.name}.{NOT_FINITE}"] = lost[None]
        return sums

    def finish(self, sums: Sums) -> dict[str, Any]:
        """The numbers of the class docstring.

        Raises:
            ValueError: if scores were not finite.
        """
        results = {}
        for score in self.scores:
            lost = int(sums[f"{score.name}.{NOT_FINITE}"])
            if lost:
                raise ValueError(
                    f"the score {score.name} is nan or infinite at {lost} pixels, which can be"
                    " neither flagged nor left out: the network's logits overflow or its weights"
                    " are damaged"
                )
            results[score.name] = _summary(sums[score.name].tolist())
        return {"flagged": results}


def greatest(score: Score, classes: int) -> float:
    """The greatest value of a bounded score by the number of classes."""
    assert score.highest is not None, f"{score.name} has no greatest value"
    return score.highest(classes)


def _summary(counts: list[list[int]]) -> dict[str, Any]:
    """All results of one score, of ``flagged_counts``."""
    pixels = [sum(row) for row in counts]
    outside, inside = (_share(row[1], sum(row)) for row in counts)
    return {
        "pixels": sum(pixels),
        "share": percent(_share(pixels[1], sum(pixels))),
        "error_rate": percent(_share(counts[0][1] + counts[1][1], sum(pixels))),
        "inside": percent(inside),
        "outside": percent(outside),
        "times": inside / outside if inside is not None and outside else None,
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
