"""Results that several consumers of one batch share, kept as long as their input lives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from utils.types import Prediction, Score


class Kept:
    """A function of maps (N, C, H, W) whose results are kept as long as the maps live.

    Args:
        function: works on every image alone and returns a tensor with the images first.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        # Keys are compared by identity; the version tells of a change in place.
        self.results: Any = WeakIdKeyDictionary()

    def __call__(self, maps: Tensor) -> Tensor:
        """The function's result; of a slice of images that of the whole, sliced."""
        whole, images = whole_batch(maps)
        known = self.results.get(whole)
        if known is None or known[0] != whole._version:
            known = (whole._version, self.function(whole.detach()))
            self.results[whole] = known
        return known[1][images]


def whole_batch(maps: Tensor) -> tuple[Tensor, slice]:
    """The batch that maps are a slice of, and which of its images they are."""
    base = maps._base
    if base is None or base.shape[1:] != maps.shape[1:] or base.stride() != maps.stride():
        return maps, slice(None)
    first = (maps.storage_offset() - base.storage_offset()) // max(base.stride(0), 1)
    return base, slice(first, first + len(maps))


_score_maps: Any = WeakIdKeyDictionary()


def score_map(score: Score, prediction: Prediction) -> Tensor:
    """A score's map (N, H, W), float32; to be read only.

    It is kept as long as the prediction's logits live, which nobody changes in between.
    """
    maps = _score_maps.setdefault(prediction.logits, {})
    if score.function not in maps:  # not the name: settings change the values under it
        maps[score.function] = score.function(prediction).float()
    return maps[score.function]
