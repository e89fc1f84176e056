"""LostAndFound: small obstacles on roads, lost on purpose."""

from __future__ import annotations

from types import MappingProxyType
from typing import ClassVar

from datasets.anomalies import KNOWN, OBSTACLE_SIZES, UNKNOWN, AnomalyDataset
from datasets.base import Item
from datasets.files import pair
from utils.types import IGNORE_INDEX

_TRAIN_IDS, _LABEL_IDS = "_gtCoarse_labelTrainIds", "_gtCoarse_labelIds"

# Free road is known; not what lies outside it, nor marker poles, posts, timber, wheel caps and
# thin wood, which are no hazards.
_NO_HAZARDS = (31, 33, 34, 36, 37, 38, 39)
_VOID = {0: IGNORE_INDEX, IGNORE_INDEX: IGNORE_INDEX}
_OF_TRAIN_IDS = MappingProxyType({**_VOID, 1: KNOWN, 2: UNKNOWN})
_OF_LABEL_IDS = MappingProxyType(
    {
        **_VOID,
        1: KNOWN,
        **dict.fromkeys(range(2, 44), UNKNOWN),
        **dict.fromkeys(_NO_HAZARDS, IGNORE_INDEX),
    }
)
_OF_SMIYC = MappingProxyType({**_VOID, 1: KNOWN, **dict.fromkeys(range(2, 201), UNKNOWN)})

# SegmentMeIfYouCan's benchmark: places in the list of all test images, sorted by name, whose
# labels are empty, and how names begin of images with children or a bicycle.
_TEST_IMAGES = 1203
_EMPTY = frozenset({17, 37, 55, 72, 91, 110, 129, 153, 174, 197, 218, 353, 490, 618, 686, 792, 793})
_KNOWN_CLASSES = (
    "15_Rechbergstr_Deckenpfronn",
    "01_Hanns_Klemm_Str_45_000006",
    "01_Hanns_Klemm_Str_45_000007",
    "10_Schlossberg_9_000004",
)


class LostAndFound(AnomalyDataset):
    """Lost and Found, 1024x2048, 1036 train and 1203 test images of hazards on free road.

    The scene of an item is its sequence. ``train`` and ``test`` are the published ones: free road
    is known, hazards are unknown (children, dogs and bicycles too), the rest is void. Their labels
    are read from the train ids or, where those are missing or ``ood_ids`` are given, from the
    label ids. ``smiyc`` is the test set of SegmentMeIfYouCan: its objects are all unknown,
    hazards or not, and 17 images with an empty label are left out (1186 stay).
    ``smiyc_no_known`` leaves out images with children or a bicycle as well (1043 stay).
    """

    name = "lost_and_found"
    splits = ("train", "test", "smiyc", "smiyc_no_known")
    component_sizes: ClassVar[tuple[int, int]] = OBSTACLE_SIZES
    layout = """\
  leftImg8bit/test/04_Maurener_Weg_8/04_Maurener_Weg_8_000000_000030_leftImg8bit.png ...
  gtCoarse/test/04_Maurener_Weg_8/04_Maurener_Weg_8_000000_000030_gtCoarse_labelTrainIds.png ...
  and _gtCoarse_labelIds.png   (train alike)"""

    def files(self) -> list[Item]:
        """The pairs of every sequence of the split."""
        of_smiyc = self.split.startswith("smiyc")
        folder = "test" if of_smiyc else self.split
        labels = self.root / "gtCoarse" / folder
        ending = _LABEL_IDS
        if not (of_smiyc or self.ood_ids) and self.labels_in(labels, "*/*", _TRAIN_IDS):
            ending = _TRAIN_IDS
        of_label_ids = _OF_SMIYC if of_smiyc else _OF_LABEL_IDS
        self.ood_values = dict(_OF_TRAIN_IDS if ending == _TRAIN_IDS else of_label_ids)
        pairs = pair(
            self.images_in(self.root / "leftImg8bit" / folder, "*/*", "_leftImg8bit"),
            self.labels_in(labels, "*/*", ending),
        )
        named = [(key.split("/"), image, label) for key, image, label in pairs]
        items = [Item(name, image, label, scene) for (scene, name), image, label in named]
        return self._benchmark(items) if of_smiyc else items

    def _benchmark(self, items: list[Item]) -> list[Item]:
        """The test images that SegmentMeIfYouCan keeps."""
        if len(items) != _TEST_IMAGES:
            raise ValueError(
                f"split {self.split!r} of {self.name} leaves out images by their place among all"
                f" {_TEST_IMAGES} test images, but {self.root} has {len(items)}: complete them, or"
                " use the split test"
            )
        items = sorted(items, key=lambda item: item.id)
        kept = [item for place, item in enumerate(items) if place not in _EMPTY]
        if self.split == "smiyc_no_known":
            kept = [item for item in kept if not item.id.startswith(_KNOWN_CLASSES)]
        return kept
