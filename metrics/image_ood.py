"""How well the mean score of an image tells the data sets that a model does not know."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence, Set
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.ranking import (
    auroc,
    average_precision,
    flipped,
    fpr_at_tpr,
    percent,
    ranking_of_values,
)
from utils.distributed import all_gather_object
from utils.kept import score_map
from utils.types import Batch, ForwardVariant, Prediction, Score

ALL = "all"  # every image that is not in-domain


class Image(NamedTuple):
    """Where an image comes from, and its mean scores in the order of the metric's."""

    dataset: str
    condition: str
    id: str
    means: tuple[float, ...]


class ImageOutOfDistribution:
    """How well the mean score of an image tells other data sets (positives) from in-domain ones.

    The mean is over all pixels, void ones too, as in the published study of reliability; its
    float64 value depends on the image alone. The results have, for each score, the name of the
    in-domain images and, against every other data set, every condition of it where there are
    several (``dataset/condition``) and all of them: ``images`` of that kind; ``auroc``, ties
    counted half; ``aupr_out`` with the other images as positives and ``aupr_in`` with in-domain
    ones, by the negated score; ``fpr95``, the share of in-domain images taken for others where
    95 % of the others are found. All exact and in percent.

    Args:
        scores: of one forward variant.
        in_domain: the (data set, condition) pairs that the model knows.
    """

    units: ClassVar[dict[str, str]] = {
        "images": "images",
        "auroc": "percent",
        "aupr_in": "percent",
        "aupr_out": "percent",
        "fpr95": "percent",
    }

    def __init__(
        self,
        scores: Sequence[Score],
        in_domain: Collection[tuple[str, str]],
    ) -> None:
        assert len({score.variant for score in scores}) == 1, "one metric for each variant"
        self.scores = tuple(scores)
        self.needs = frozenset[str]().union(*(score.needs for score in scores))
        self.variant: ForwardVariant | None = scores[0].variant
        self.in_domain = in_domain
        self.places: list[tuple[str, str, str]] = []  # data set, condition and id of each image
        self.means: list[Tensor] = []  # (S,) float64 of each image, on the device
        self.images: list[Image] | None = None  # of all processes, sorted

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Take the mean scores of the images, without waiting for the device."""
        maps = [score_map(score, prediction) for score in self.scores]
        # image by image: over a batch the order of the additions would depend on its size
        self.means += [
            torch.stack([values.mean(dtype=torch.float64) for values in image])
            for image in zip(*maps, strict=True)
        ]
        unnamed = [""] * len(batch["id"])
        datasets, conditions = batch.get("dataset", unnamed), batch.get("condition", unnamed)
        self.places += zip(datasets, conditions, batch["id"], strict=True)

    def all_reduce(self) -> None:
        """Bring the images of all processes together, in an order that does not depend on them."""
        means = torch.stack(self.means).tolist() if self.means else []
        mine = [Image(*place, tuple(row)) for place, row in zip(self.places, means, strict=True)]
        self.images = sorted(image for part in all_gather_object(mine) for image in part)

    def compute(self) -> dict[str, Any]:
        """The results under ``image_ood``; an empty dict when there was no image.

        Raises:
            ValueError: if all images are in-domain or none is, or if a score is not finite.
        """
        images = self._gathered()
        if not images:
            return {}
        self._refuse_non_finite(images)
        known = [image for image in images if self._knows(image)]
        others = [image for image in images if not self._knows(image)]
        _refuse_one_kind(known, others)
        against = _groups(others, {image.dataset for image in known})
        results = {
            score.name: {
                "in_domain": _name(known, others),
                "against": {
                    name: _compare(_column(known, index), _column(group, index))
                    for name, group in against.items()
                },
            }
            for index, score in enumerate(self.scores)
        }
        return {"image_ood": results}

    def image_scores(self) -> dict[str, Any]:
        """Every image's mean scores, for a file; call it after ``all_reduce``.

        Returns:
            Lists of equal length, sorted by data set, condition and id: ``dataset``,
            ``condition``, ``id``, ``in_domain`` and, under ``scores``, one for each score.
        """
        images = self._gathered()
        return {
            "dataset": [image.dataset for image in images],
            "condition": [image.condition for image in images],
            "id": [image.id for image in images],
            "in_domain": [self._knows(image) for image in images],
            "scores": {
                score.name: [image.means[index] for image in images]
                for index, score in enumerate(self.scores)
            },
        }

    def _gathered(self) -> list[Image]:
        assert self.images is not None, "all_reduce comes first"
        return self.images

    def _knows(self, image: Image) -> bool:
        """Whether an image is in-domain."""
        return (image.dataset, image.condition) in self.in_domain

    def _refuse_non_finite(self, images: Iterable[Image]) -> None:
        """Raise when a mean is nan or infinite.

        Raises:
            ValueError: naming the first such image and the score.
        """
        for image in images:
            for score, mean in zip(self.scores, image.means, strict=True):
                if not np.isfinite(mean):
                    raise ValueError(
                        f"{image.id}: the mean of the score {score.name} is {mean}; expected a "
                        "finite number: the network's logits overflow or its weights are damaged"
                    )


def _refuse_one_kind(known: Sequence[Image], others: Sequence[Image]) -> None:
    """Raise when there is nothing to tell apart.

    Raises:
        ValueError: naming the data sets given.
    """
    if known and others:
        return
    kind = "in-domain" if known else "out-of-distribution"
    names = ", ".join(sorted({image.dataset for image in (*known, *others)}))
    missing = "another data set or condition" if known else "the data that the model was trained on"
    raise ValueError(
        f"only {kind} images given ({len(known) + len(others)} of {names}); the image-level OOD "
        f"metric compares both kinds: add {missing} with --eval_on"
    )


def _groups(others: Sequence[Image], divided: Set[str]) -> dict[str, list[Image]]:
    """The images by data set, by condition where a data set has several, and all.

    Of the divided data sets, which have in-domain images too, only by condition.
    """
    groups: dict[str, list[Image]] = {}
    for dataset in sorted({image.dataset for image in others}):
        mine = [image for image in others if image.dataset == dataset]
        conditions = sorted({image.condition for image in mine})
        if dataset not in divided:
            groups[dataset] = mine
        if len(conditions) > 1 or dataset in divided:
            for condition in conditions:
                groups[f"{dataset}/{condition}"] = [
                    image for image in mine if image.condition == condition
                ]
    return groups | {ALL: list(others)}


def _name(known: Sequence[Image], others: Sequence[Image]) -> str:
    """The in-domain data sets, with their conditions where others of them are not in-domain."""
    divided = {image.dataset for image in others}
    names = {
        f"{image.dataset}/{image.condition}" if image.dataset in divided else image.dataset
        for image in known
    }
    return " + ".join(sorted(names))


def _column(images: Sequence[Image], score: int) -> NDArray[np.float64]:
    return np.array([image.means[score] for image in images])


def _compare(known: NDArray[np.float64], others: NDArray[np.float64]) -> dict[str, Any]:
    """The numbers of one group of other images."""
    truth = np.repeat(np.array([0, 1]), [len(known), len(others)])
    ranked = ranking_of_values(np.concatenate([known, others]), truth)
    return {
        "images": len(others),
        "auroc": percent(auroc(ranked)),
        "aupr_in": percent(average_precision(flipped(ranked))),
        "aupr_out": percent(average_precision(ranked)),
        "fpr95": percent(fpr_at_tpr(ranked, 0.95)),
    }
