"""How many false alarms a meta classifier removes, from features of the predicted segments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metrics.component_counts import connected_components, overlap
from metrics.ood import unknown_map
from metrics.ranking import auroc, average_precision, percent, ranking_of_values
from metrics.segment_features import segment_features, segment_pixels
from utils.distributed import all_gather_object
from utils.softmax import most_likely, probabilities
from utils.types import IGNORE_INDEX, Batch, ForwardVariant, Prediction

Array = NDArray[np.float64]

SINGLE_IMAGES = 50  # up to so many images with segments each is left out alone
FOLDS = 10  # beyond


class ImageSegments(NamedTuple):
    """The S predicted segments of an image and the unknown objects that they touch."""

    dataset: str
    id: str
    features: Array  # (S, F)
    truths: int  # unknown objects
    touched: NDArray[np.int64]  # (E,), the objects of all touching pairs, from 0
    touching: NDArray[np.int64]  # (E,), their segments, from 0

    @property
    def false_positives(self) -> NDArray[np.int64]:
        """Which segments touch no unknown object, (S,): 1, else 0."""
        false = np.ones(len(self.features), np.int64)
        false[self.touching] = 0
        return false

    def missed(self, kept: NDArray[np.bool_]) -> int:
        """How many objects none of the kept segments (S,) touches."""
        return self.truths - len(np.unique(self.touched[kept[self.touching]]))


class MetaClassification:
    """Unknown objects as segments of high entropy, and a classifier that removes false alarms.

    Chan et al. 2021, "Entropy Maximization and Meta Classification for Out-of-Distribution
    Detection in Semantic Segmentation". Reads ``batch["ood"]``. Predicted are the 8-connected
    segments of pixels whose entropy is at least ``threshold`` times log C, void ones left out. A
    segment is a false positive where it touches no pixel of an unknown object, and an object (an
    8-connected component) is missed where no segment touches it. A logistic regression on
    ``metrics.segment_features`` says of each segment how likely it is a false positive; those
    above one half are removed.

    The classifier never saw the segment's image: images are left out one at a time up to 50 with
    segments, beyond in ten groups by their place in the sorted ids, and the scaling of the
    features is fitted with it. The published code leaves out segments only and scales with
    those of all images, which leaks; that is not offered. It also reports how many other segments
    were removed where false positives that remain are meant.

    Under ``meta_classification``: the numbers of ``segments``, ``false_positives``, ``missed``
    objects and of the latter two after the removal; ``auroc``, ``aupr`` (false positives are the
    positives) and ``accuracy`` of the classifier, in percent. Without segments of both kinds, or
    with those of one image only, what needs the classifier is None.

    Args:
        class_names: names by train id.
        threshold: of the entropy over log C, above 0 and at most 1.

    Raises:
        ValueError: for a threshold out of range.
    """

    needs: frozenset[str] = frozenset()
    variant: ForwardVariant | None = None
    units: ClassVar[dict[str, str]] = {
        "segments": "segments",
        "false_positives": "segments",
        "missed": "objects",
        "false_positives_after": "segments",
        "missed_after": "objects",
        "auroc": "percent",
        "aupr": "percent",
        "accuracy": "percent",
    }

    def __init__(self, class_names: Sequence[str], *, threshold: float = 0.7) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(
                f"entropy threshold {threshold} is out of range; as a share of log C it must be "
                "above 0 and at most 1"
            )
        self.class_names = tuple(class_names)
        self.threshold = threshold
        self.mine: list[ImageSegments] = []
        self.images: list[ImageSegments] | None = None  # of all processes, sorted

    def update(self, batch: Batch, prediction: Prediction) -> None:
        """Take the segments of the images, which are found on the host.

        Raises:
            ValueError: if the data has no map of unknown objects or logits are not finite.
        """
        ood = unknown_map(batch, "meta_classification")
        likely, classes = probabilities(prediction.logits), most_likely(prediction.logits)
        datasets = batch.get("dataset") or [""] * len(ood)
        for image, name in enumerate(batch["id"]):
            masks = torch.stack((self._uncertain(likely[image], name), ood[image], classes[image]))
            found = _image_segments(masks.cpu().numpy(), likely[image])
            self.mine.append(ImageSegments(datasets[image], name, *found))

    def all_reduce(self) -> None:
        """Bring the images of all processes together, in an order that does not depend on them."""
        gathered = [image for part in all_gather_object(self.mine) for image in part]
        self.images = sorted(gathered, key=lambda image: (image.dataset, image.id))

    def compute(self) -> dict[str, Any]:
        """The results, under ``total``; an empty dict when there was no image."""
        assert self.images is not None, "all_reduce comes first"
        if not self.images:
            return {}
        truth = np.concatenate([image.false_positives for image in self.images])
        owners = np.repeat(
            np.arange(len(self.images)), [len(image.features) for image in self.images]
        )
        everything = np.ones(len(truth), bool)
        results: dict[str, Any] = dict.fromkeys(self.units)
        results |= {
            "segments": len(truth),
            "false_positives": int(truth.sum()),
            "missed": _missed(self.images, owners, everything),
        }
        if len(np.unique(truth)) > 1 and len(np.unique(owners)) > 1:
            features = np.concatenate([image.features for image in self.images])
            likely = held_out_probabilities(features, truth, owners)
            removed = likely > 1 / 2
            ranked = ranking_of_values(likely, truth)
            results |= {
                "false_positives_after": int(truth[~removed].sum()),
                "missed_after": _missed(self.images, owners, ~removed),
                "auroc": percent(auroc(ranked)),
                "aupr": percent(average_precision(ranked)),
                "accuracy": percent(float((removed == truth).mean())),
            }
        return {"total": {"meta_classification": results}}

    def _uncertain(self, likely: Tensor, name: str) -> Tensor:
        """Where the entropy of a softmax (C, H, W) is high, (H, W) uint8.

        Raises:
            ValueError: if the softmax is not finite, naming the image.
        """
        entropy = torch.special.entr(likely).sum(0) / math.log(len(likely))
        if not entropy.isfinite().all():
            raise ValueError(
                f"{name}: the entropy is not finite (nan or infinite); expected finite numbers: "
                "the network's logits overflow or its weights are damaged"
            )
        return (entropy >= self.threshold).byte()


def held_out_probabilities(
    features: Array, truth: NDArray[np.int64], owners: NDArray[np.int64]
) -> Array:
    """The probability of a false positive by classifiers that saw no segment of the same image.

    Where all other images have segments of one kind only it is that kind's, 0 or 1.

    Args:
        features: (S, F).
        truth: (S,), 1 where a segment is a false positive, else 0; both occur.
        owners: (S,), the number of each segment's image; at least two.
    """
    # slow to import, and only wanted here
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, folds = np.unique(owners, return_inverse=True)
    if len(images) > SINGLE_IMAGES:
        folds %= FOLDS
    likely = np.empty(len(truth))
    for fold in np.unique(folds):
        tested = folds == fold
        kinds = np.unique(truth[~tested])
        if len(kinds) == 1:
            likely[tested] = kinds[0]
            continue
        classifier = make_pipeline(StandardScaler(), LogisticRegression(solver="liblinear"))
        classifier.fit(features[~tested], truth[~tested])
        likely[tested] = classifier.predict_proba(features[tested])[:, 1]
    return likely


def _image_segments(
    masks: NDArray[np.uint8], likely: Tensor
) -> tuple[Array, int, NDArray[np.int64], NDArray[np.int64]]:
    """What ``ImageSegments`` holds of one image.

    Args:
        masks: (3, H, W): whether the entropy is high, the unknown objects, the classes.
        likely: softmax (C, H, W), on any device; only the pixels of segments leave it.
    """
    uncertain, ood, classes = masks
    segments = connected_components((uncertain == 1) & (ood != IGNORE_INDEX))
    objects = connected_components(ood == 1)
    pixels = segment_pixels(segments)
    places = torch.from_numpy(pixels.places).to(likely.device)
    chosen = likely.flatten(1).index_select(1, places).cpu().numpy()
    features = segment_features(segments, pixels, chosen, classes)
    pairs = overlap(objects, segments)
    both = (pairs.truth > 0) & (pairs.predicted > 0)
    return features, objects.number, pairs.truth[both] - 1, pairs.predicted[both] - 1


def _missed(
    images: Sequence[ImageSegments], owners: NDArray[np.int64], kept: NDArray[np.bool_]
) -> int:
    """How many unknown objects of all images none of the kept segments touches."""
    return sum(image.missed(kept[owners == index]) for index, image in enumerate(images))
