"""Class names, colours and ids of the data sets, and maps between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from utils.types import IGNORE_INDEX


class SegClass(NamedTuple):
    """A class and the colour that stands for it in pictures."""

    name: str
    colour: tuple[int, int, int]


def names_of(classes: Sequence[SegClass]) -> tuple[str, ...]:
    """The names in the order of the train ids."""
    return tuple(entry.name for entry in classes)


def palette_of(classes: Sequence[SegClass]) -> Tensor:
    """The colour of each class, (C, 3) uint8, in the order of the train ids."""
    return torch.tensor([entry.colour for entry in classes], dtype=torch.uint8).reshape(-1, 3)


ROAD = (  # Cityscapes, ACDC, IDD and streets
    SegClass("road", (128, 64, 128)),
    SegClass("sidewalk", (244, 35, 232)),
    SegClass("building", (70, 70, 70)),
    SegClass("wall", (102, 102, 156)),
    SegClass("fence", (190, 153, 153)),
    SegClass("pole", (153, 153, 153)),
    SegClass("traffic light", (250, 170, 30)),
    SegClass("traffic sign", (220, 220, 0)),
    SegClass("vegetation", (107, 142, 35)),
    SegClass("terrain", (152, 251, 152)),
    SegClass("sky", (70, 130, 180)),
    SegClass("person", (220, 20, 60)),
    SegClass("rider", (255, 0, 0)),
    SegClass("car", (0, 0, 142)),
    SegClass("truck", (0, 0, 70)),
    SegClass("bus", (0, 60, 100)),
    SegClass("train", (0, 80, 100)),
    SegClass("motorcycle", (0, 0, 230)),
    SegClass("bicycle", (119, 11, 32)),
)

# The label id (0..33) of each train id, in the order of ROAD.
ROAD_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# Label id -> train id; a licence plate (-1) is stored as 255.
ROAD_TRAIN_IDS = MappingProxyType(
    dict.fromkeys((*range(34), IGNORE_INDEX), IGNORE_INDEX)
    | {label: train for train, label in enumerate(ROAD_LABEL_IDS)}
)


# Background and the road users of ROAD, whose train ids keep their order.
_ROAD_USERS = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
STREET_OBJECTS = (
    SegClass("background", (0, 0, 0)),
    *(entry for entry in ROAD if entry.name in _ROAD_USERS),
)

# Label id -> train id of STREET_OBJECTS: furniture without a class (4, 5) is background, too; the
# ego vehicle and what Cityscapes leaves out stay void.
STREET_OBJECTS_TRAIN_IDS = MappingProxyType(
    dict.fromkeys((*range(34), IGNORE_INDEX), IGNORE_INDEX)
    | dict.fromkeys((4, 5, *ROAD_LABEL_IDS), 0)
    | {
        label: 1 + _ROAD_USERS.index(entry.name)
        for label, entry in zip(ROAD_LABEL_IDS, ROAD, strict=True)
        if entry.name in _ROAD_USERS
    }
)

# Level-3 id of India Driving Dataset -> train id; terrain and train have none, and what it calls
# autorickshaw (8), guard rail (16), billboard (17) or bridge (23) is no class of ROAD.
IDD_LEVEL3_TRAIN_IDS = MappingProxyType(
    dict.fromkeys(range(256), IGNORE_INDEX)
    | {
        **{0: 0, 2: 1, 4: 11, 5: 12, 6: 17, 7: 18, 9: 13, 10: 14, 11: 15},
        **{14: 3, 15: 4, 18: 7, 19: 6, 20: 5, 22: 2, 24: 8, 25: 10},
    }
)


def same_ids(classes: Sequence[SegClass]) -> Mapping[int, int]:
    """The map of label files that hold train ids, and 255 for void."""
    return MappingProxyType({**{i: i for i in range(len(classes))}, IGNORE_INDEX: IGNORE_INDEX})


CAMVID = (
    SegClass("sky", (128, 128, 128)),
    SegClass("building", (128, 0, 0)),
    SegClass("pole", (192, 192, 128)),
    SegClass("road", (128, 64, 128)),
    SegClass("pavement", (0, 0, 192)),
    SegClass("tree", (128, 128, 0)),
    SegClass("sign or symbol", (192, 128, 128)),
    SegClass("fence", (64, 64, 128)),
    SegClass("car", (64, 0, 128)),
    SegClass("pedestrian", (64, 64, 0)),
    SegClass("bicyclist", (0, 128, 192)),
)

# Raw id -> train id; SegNet's twelfth id is void.
CAMVID_TRAIN_IDS = MappingProxyType({**same_ids(CAMVID), 11: IGNORE_INDEX})

KVASIR = (SegClass("background", (0, 0, 0)), SegClass("polyp", (255, 255, 255)))

# Grey value of a mask -> train id; the masks are JPEG files.
KVASIR_TRAIN_IDS = MappingProxyType({value: int(value > 127) for value in range(256)})

_VOC_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorbike",
    "person",
    "potted plant",
    "sheep",
    "sofa",
    "train",
    "tv monitor",
)


def voc_colour(index: int) -> tuple[int, int, int]:
    """The colour of an id in VOC's palette: its bits spread over the high bits of R, G and B."""
    channels = [0, 0, 0]
    for bit in range(8):
        channels[bit % 3] |= (index >> bit & 1) << 7 - bit // 3
    return channels[0], channels[1], channels[2]


VOC = tuple(SegClass(name, voc_colour(index)) for index, name in enumerate(_VOC_NAMES))
VOC_TRAIN_IDS = same_ids(VOC)

# The CamVid class of each road class, as the SegNet papers group CamVid's 32 labels.
_ROAD_TO_CAMVID = MappingProxyType(
    {
        "road": "road",
        "sidewalk": "pavement",
        "building": "building",
        "wall": "building",
        "fence": "fence",
        "pole": "pole",
        "traffic light": "sign or symbol",
        "traffic sign": "sign or symbol",
        "vegetation": "tree",
        "terrain": "tree",
        "sky": "sky",
        "person": "pedestrian",
        "rider": "bicyclist",
        "car": "car",
        "truck": "car",
        "bus": "car",
        "train": "car",
        "motorcycle": "bicyclist",
        "bicycle": "bicyclist",
    }
)


class ClassMapping(NamedTuple):
    """How a model's and a data set's classes meet in one set of classes.

    Attributes:
        names: the classes that are scored.
        prediction: model class -> index into ``names``.
        label: train id of the data set -> index into ``names``.
    """

    names: tuple[str, ...]
    prediction: tuple[int, ...]
    label: tuple[int, ...]


def class_mapping(model_names: Sequence[str], dataset_names: Sequence[str]) -> ClassMapping | None:
    """The common classes of a model and a data set, or None where no mapping is known.

    Equal names map to themselves, in whatever order. Between the 19 road classes and CamVid's 11
    the coarser eleven are scored.
    """
    model, dataset = tuple(model_names), tuple(dataset_names)
    if sorted(model) == sorted(dataset):
        grouping = {name: name for name in dataset}
        names = dataset
    elif {frozenset(model), frozenset(dataset)} == {_ROAD_SET, _CAMVID_SET}:
        grouping = {**{name: name for name in _CAMVID_SET}, **_ROAD_TO_CAMVID}
        names = model if frozenset(model) == _CAMVID_SET else dataset
    else:
        return None
    index = {name: position for position, name in enumerate(names)}
    return ClassMapping(
        names,
        tuple(index[grouping[name]] for name in model),
        tuple(index[grouping[name]] for name in dataset),
    )


_ROAD_SET = frozenset(entry.name for entry in ROAD)
_CAMVID_SET = frozenset(entry.name for entry in CAMVID)
