"""Connected components of two masks, and how they overlap, from one joint count of their pixels."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]


class ComponentMap(NamedTuple):
    """The 8-connected components of a mask."""

    number: int
    ids: Ids  # (H, W): 0 outside the mask, then from 1 to number


class Overlap(NamedTuple):
    """The pairs of a true and a predicted component that share pixels; each (E,) int64.

    A pair occurs once. Component 0 is what lies in no component.
    """

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    pixels: NDArray[np.int64]


class Agreement(NamedTuple):
    """How well components fit, fractions."""

    siou: NDArray[np.float64]  # of each true component that counts
    ppv: NDArray[np.float64]  # of each predicted component that counts


def connected_components(mask: NDArray[np.bool_ | np.uint8]) -> ComponentMap:
    """The 8-connected components of a mask (H, W), which is true where it is not 0."""
    highest, ids = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    return ComponentMap(highest - 1, np.asarray(ids, np.int32))


def overlap(truth: ComponentMap, predicted: ComponentMap) -> Overlap:
    """Count the pixels of every pair of components of two masks of one size, in O(pixels).

    Runs of pixels of one pair are counted first, so that few additions remain.
    """
    true_ids, predicted_ids = truth.ids.ravel(), predicted.ids.ravel()
    changes = true_ids[1:] != true_ids[:-1]
    changes |= predicted_ids[1:] != predicted_ids[:-1]
    starts = np.concatenate(([0], np.flatnonzero(changes) + 1))
    stride = predicted.number + 1
    pairs = true_ids[starts].astype(np.int64) * stride + predicted_ids[starts]
    found, places = np.unique(pairs, return_inverse=True)
    lengths = np.diff(starts, append=true_ids.size)
    pixels = np.bincount(places, lengths, len(found)).astype(np.int64)
    return Overlap(*np.divmod(found, stride), pixels)


def agreement(pairs: Overlap, smallest_prediction: int = 0, smallest_truth: int = 0) -> Agreement:
    """The sIoU of true and the PPV of predicted components as SegmentMeIfYouCan defines them.

    Chan et al. 2021, "SegmentMeIfYouCan: A Benchmark for Anomaly Segmentation". For a true
    component K, with P the union of the predicted components that touch it and A the pixels of P
    on other true components, sIoU = |K and P| / (|K or P| - |A|); for a predicted component the
    PPV is the share of its pixels on true components.

    As in the public benchmark, predicted components are removed by their size before small true
    ones are cut out together with the pixels predicted on them; what is left of a predicted
    component is not divided anew, and one of which nothing is left does not count.

    Args:
        pairs: of the components without void pixels.
        smallest_prediction: predicted components with fewer pixels are removed.
        smallest_truth: true components with fewer pixels are cut out.
    """
    true, predicted, pixels = pairs
    big = _sizes(predicted, pixels)[predicted] >= smallest_prediction
    kept = _sizes(true, pixels)[true] >= smallest_truth
    kept |= true == 0
    predicted = np.where(big, predicted, 0)[kept]
    true, pixels = true[kept], pixels[kept]
    both = (true > 0) & (predicted > 0)
    predicted_sizes = _sizes(predicted, pixels)
    on_truth = _sizes(predicted, pixels * both, len(predicted_sizes))
    true_sizes = _sizes(true, pixels)
    covered = _sizes(true, pixels * both, len(true_sizes))
    # |K or P| - |A|: K itself, and the pixels of P that lie on no true component
    stray = (predicted_sizes - on_truth)[predicted]
    unions = true_sizes + _sizes(true, stray * both, len(true_sizes))
    counting, raised = true_sizes[1:] > 0, predicted_sizes[1:] > 0
    return Agreement(
        covered[1:][counting] / unions[1:][counting],
        on_truth[1:][raised] / predicted_sizes[1:][raised],
    )


def _sizes(
    components: NDArray[np.int64], pixels: NDArray[np.int64], count: int = 1
) -> NDArray[np.int64]:
    """Pixels of each component, by its number; at least ``count`` entries."""
    return np.bincount(components, pixels, count).astype(np.int64)
