"""Classes and ids of the data sets of domain adaptation: GTA5, SYNTHIA and Oxford RobotCar."""

from __future__ import annotations

from types import MappingProxyType

from datasets.taxonomy import ROAD, ROAD_LABEL_IDS, SegClass
from utils.types import IGNORE_INDEX

_ALL_VOID = dict.fromkeys(range(256), IGNORE_INDEX)

# Label id of GTA5 -> train id of ROAD: the ids of Cityscapes, and whatever else is void.
GTA5_TRAIN_IDS = MappingProxyType(
    _ALL_VOID | {label: train for train, label in enumerate(ROAD_LABEL_IDS)}
)

# The SYNTHIA id (1..21) of each train id, in the order of ROAD.
SYNTHIA_LABEL_IDS = (3, 4, 2, 21, 5, 7, 15, 9, 6, 16, 1, 10, 17, 8, 18, 19, 20, 12, 11)
SYNTHIA_TRAIN_IDS = MappingProxyType(
    _ALL_VOID | {label: train for train, label in enumerate(SYNTHIA_LABEL_IDS)}
)

# Classes of ROAD that no image of SYNTHIA shows, although it has ids for them.
SYNTHIA_ABSENT = frozenset({"terrain", "truck", "train"})

# Train ids of ROAD over which results on SYNTHIA -> Cityscapes are averaged; the 13 are those 16
# without wall, fence and pole.
SYNTHIA_16 = tuple(train for train, entry in enumerate(ROAD) if entry.name not in SYNTHIA_ABSENT)
SYNTHIA_13 = tuple(
    train for train in SYNTHIA_16 if ROAD[train].name not in {"wall", "fence", "pole"}
)

ROBOTCAR = (
    SegClass("sky", (70, 130, 180)),
    SegClass("person", (220, 20, 60)),
    SegClass("two-wheel", (119, 11, 32)),
    SegClass("automobile", (0, 0, 142)),
    SegClass("sign", (220, 220, 0)),
    SegClass("light", (250, 170, 30)),
    SegClass("building", (70, 70, 70)),
    SegClass("sidewalk", (244, 35, 232)),
    SegClass("road", (128, 64, 128)),
)

# Annotation id -> train id of ROBOTCAR.
ROBOTCAR_TRAIN_IDS = MappingProxyType(
    _ALL_VOID
    | {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 10: 7}
    | dict.fromkeys((11, 12, 13, 14, 17), 8)
)

# Label id of Cityscapes -> train id of ROBOTCAR; wall, fence, pole, vegetation, terrain and train
# are void.
CITYSCAPES_ROBOTCAR_TRAIN_IDS = MappingProxyType(
    dict.fromkeys((*range(34), IGNORE_INDEX), IGNORE_INDEX)
    | {
        **{7: 8, 8: 7, 11: 6, 19: 5, 20: 4, 23: 0, 24: 1, 25: 1},
        **{26: 3, 27: 3, 28: 3, 32: 2, 33: 2},
    }
)
