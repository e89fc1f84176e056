"""Calibration: how well the confidence of a pixel says how likely it is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray
from torch import Tensor

from metrics.base import StreamingMetric, Sums
from metrics.bootstrap import Bootstrap
from metrics.calibration_errors import (
    WIDE,
    ConfidenceBins,
    Estimate,
    GapPath,
    Layout,
    classwise_ece,
    reliability,
)
from metrics.calibration_sums import confidence_sums, own_nll, probability_sums, total
from metrics.ranking import percent
from utils.softmax import probabilities, top_class
from utils.types import IGNORE_INDEX, Batch, Prediction, Score

Array = NDArray[Any]


class Calibration(StreamingMetric):
    """Calibration errors, proper scores and the reliability diagram, over all labelled pixels.

    The prediction is the class of the highest logit; the confidence is its probability or, with a
    score, 1 - value / highest. ``ece`` has M bins of equal width, open below and closed above (a
    confidence of 0 is in none); ``mce`` is the greatest difference of mean confidence and
    accuracy in one of them; ``ece_equal_mass`` has M bins of equal numbers of pixels;
    ``ks_error`` is max_k |sum_{i <= k} (confidence_i - right_i)| / N over sorted confidences.
    Both of the latter come from about 2^16 bins, and by how much they can be off at most stands
    beside them. ``class_ece`` is ``ece`` of a class's probability against the pixels of this
    class, over all pixels, also where the labels never show the class; ``classwise_ece`` is its
    mean over the classes in the labels. ``nll`` and ``brier`` (sum over the classes) are means
    over the pixels, of the probabilities also with a score. Counts are exact, sums are float64;
    without labelled pixels all is None.

    Labels that are no class are void.

    Args:
        class_names: names by train id, at most 255.
        bins: M, at most 1024.
        score: gives the confidence in place of the highest probability; it needs ``highest``.
        parity: also report ``ece_equal_mass_original``, the published one, which leaves the
            pixels of the lowest confidence out, see ``GapPath.equal_mass``.
        per_scene: also report every scene.
        bootstrap: resampling of the images; its confidences are kept in about 2^10 bins.

    Raises:
        ValueError: if the score has no highest value, or for a number of bins out of range.
    """

    units: ClassVar[dict[str, str]] = {
        "pixels": "pixels",
        "accuracy": "percent",
        "mean_confidence": "percent",
        "ece": "percent",
        "ece_equal_mass": "percent",
        "ece_equal_mass_error_bound": "percent",
        "ece_equal_mass_original": "percent",
        "ece_equal_mass_original_error_bound": "percent",
        "ks_error": "percent",
        "ks_error_bound": "percent",
        "mce": "percent",
        "classwise_ece": "percent",
        "class_ece": "percent",
        "nll": "nats",
        "brier": "squared probability",
        "diagram.count": "pixels",
        "diagram.confidence": "percent",
        "diagram.accuracy": "percent",
    }

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        bins: int = 15,
        score: Score | None = None,
        parity: bool = False,
        per_scene: bool = False,
        bootstrap: Bootstrap | None = None,
    ) -> None:
        super().__init__(per_scene=per_scene, bootstrap=bootstrap)
        assert len(class_names) <= IGNORE_INDEX, "train ids are uint8 and 255 is void"
        if not 1 <= bins <= WIDE:
            raise ValueError(f"calibration in {bins} bins: expected 1 to {WIDE}")
        if score is not None and score.highest is None:
            raise ValueError(
                f"the score {score.name} has no greatest value, so it gives no confidence in "
                "[0, 1]; a score such as msp, margin or entropy does"
            )
        self.class_names = tuple(class_names)
        self.bins = ConfidenceBins(bins)
        self.score = score
        self.parity = parity
        if score is not None:
            self.needs = score.needs
            self.variant = score.variant

    def sums_of(self, batch: Batch, prediction: Prediction) -> Sums:
        """Pixels, confidences and probabilities by bin, and the sums of the proper scores."""
        logits, labels = prediction.logits, batch["label"]
        classes = logits.shape[1]
        assert classes == len(self.class_names), "predictions are over the scored classes"
        top = top_class(logits)
        own = labels.clamp(max=classes - 1).long()[:, None]
        nll = own_nll(logits, own, top)
        confidence = self._confidence(prediction)
        known = labels < classes
        kept = known & (nll + confidence).isfinite()
        return {
            **confidence_sums(confidence.clamp(0, 1), top.classes == labels, kept, self.bins),
            **probability_sums(probabilities(logits), own, kept, self.bins.number),
            "nll": total(nll, kept),
            "not_finite": (known & ~kept).sum(),
        }

    def resampled(self, sums: Sums) -> Sums:
        """The sums with confidences in fewer bins."""
        fewer = {name: self.bins.coarsen(sums[name]) for name in ("counts", "confidence")}
        return sums | fewer

    def finish(self, sums: Sums) -> dict[str, Any]:
        """The numbers of the class docstring, under ``calibration``.

        Raises:
            ValueError: if logits (or the score) of labelled pixels were not finite.
        """
        self._refuse_not_finite(int(sums["not_finite"]))
        arrays = {name: value.cpu().numpy() for name, value in sums.items()}
        counts, confidence = arrays["counts"], arrays["confidence"]
        layout = self.bins.layout_of(counts.shape[1])
        pixels = int(counts.sum())
        diagram = reliability(counts, confidence, layout)
        found: dict[str, Any] = {"pixels": pixels}
        if self.score is not None:
            found["confidence"] = self.score.name
        found |= {
            "accuracy": percent(_mean(counts[1].sum(), pixels)),
            "mean_confidence": percent(_mean(confidence.sum(), pixels)),
            "ece": percent(diagram.ece()),
            **self._ranked(counts, confidence, layout),
            "mce": percent(diagram.mce()),
            **self._classwise(arrays["probability"], arrays["hits"], pixels),
            "nll": _mean(arrays["nll"], pixels),
            "brier": _mean(arrays["brier"], pixels),
            "diagram": {
                "count": diagram.count.tolist(),
                "confidence": _percents(diagram.confidence, diagram.count),
                "accuracy": _percents(diagram.right, diagram.count),
            },
        }
        return {"calibration": found}

    def _confidence(self, prediction: Prediction) -> Tensor:
        """The confidence of each pixel, (N, H, W), float32; rounding may leave [0, 1]."""
        if self.score is None:
            return top_class(prediction.logits).confidence
        assert self.score.highest is not None, "refused when built"
        return 1 - self.score.function(prediction) / self.score.highest(len(self.class_names))

    def _refuse_not_finite(self, pixels: int) -> None:
        """Raise when there were pixels without a finite probability or score."""
        if pixels:
            source = "logits" if self.score is None else f"logits or {self.score.name}"
            raise ValueError(
                f"calibration: {source} of {pixels} labelled pixels are not finite (nan, inf, or "
                "-inf for the pixel's own class); expected finite numbers from the model"
            )

    def _ranked(self, counts: Array, confidence: Array, layout: Layout) -> dict[str, float | None]:
        """The numbers that follow from the order of the confidences."""
        found: dict[str, Estimate | None] = dict.fromkeys(("ece_equal_mass", "ks_error"))
        if self.parity:
            found["ece_equal_mass_original"] = None
        if counts.any():
            path, number = GapPath(counts, confidence, layout), self.bins.number
            found["ece_equal_mass"] = path.equal_mass(number)
            found["ks_error"] = path.ks()
            if self.parity:
                found["ece_equal_mass_original"] = path.equal_mass(number, original=True)
        results: dict[str, float | None] = {}
        for name, estimate in found.items():
            value, bound = (None, None) if estimate is None else estimate
            results[name] = percent(value)
            # ks_error_bound, not ks_error_error_bound
            results[f"{name.removesuffix('_error')}_error_bound"] = percent(bound)
        return results

    def _classwise(self, sums: Array, hits: Array, pixels: int) -> dict[str, Any]:
        """The calibration error of every class and the mean over the classes in the labels."""
        if not pixels:
            return {"classwise_ece": None, "class_ece": dict.fromkeys(self.class_names)}
        errors = 100 * classwise_ece(sums[:, 1:], hits[:, 1:], pixels)
        return {
            "classwise_ece": float(errors[hits.any(axis=1)].mean()),
            "class_ece": dict(zip(self.class_names, errors.tolist(), strict=True)),
        }


def _percents(part: Array, whole: Array) -> list[float | None]:
    """100 part / whole of each bin, None where there is no whole."""
    return [percent(_mean(one, all_)) for one, all_ in zip(part, whole, strict=True)]


def _mean(sum_of_values: float, count: int) -> float | None:
    """A mean, None of nothing."""
    return float(sum_of_values / count) if count else None
