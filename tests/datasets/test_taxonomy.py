import pytest
from torchvision.datasets import Cityscapes as TorchvisionCityscapes

from datasets.taxonomy import (
    CAMVID,
    CAMVID_TRAIN_IDS,
    KVASIR,
    KVASIR_TRAIN_IDS,
    ROAD,
    ROAD_LABEL_IDS,
    ROAD_TRAIN_IDS,
    VOC,
    VOC_TRAIN_IDS,
    class_mapping,
)


def names(classes):
    return tuple(entry.name for entry in classes)


def test_the_road_classes_are_those_of_cityscapes():
    """Names, colours and ids against torchvision's own table."""
    for entry in TorchvisionCityscapes.classes:
        if entry.id < 0:
            continue
        if entry.train_id in (255, -1):
            assert ROAD_TRAIN_IDS[entry.id] == 255
        else:
            assert ROAD_TRAIN_IDS[entry.id] == entry.train_id
            assert ROAD_LABEL_IDS[entry.train_id] == entry.id
            assert ROAD[entry.train_id] == (entry.name, entry.color)
    assert set(ROAD_TRAIN_IDS) == {*range(34), 255}


def test_the_voc_palette_is_the_published_one():
    published = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    assert [entry.colour for entry in VOC[:5]] == published
    assert (VOC[15].name, VOC[15].colour) == ("person", (192, 128, 128))
    assert (VOC[20].name, VOC[20].colour) == ("tv monitor", (0, 64, 128))
    assert set(VOC_TRAIN_IDS) == {*range(21), 255}


@pytest.mark.parametrize(
    ("classes", "count"),
    [(ROAD, 19), (VOC, 21), (CAMVID, 11), (KVASIR, 2)],
    ids=lambda x: str(x)[:9],
)
def test_names_and_colours_are_unique(classes, count):
    assert len(classes) == len(set(names(classes))) == count
    assert len({entry.colour for entry in classes}) == count


def test_other_maps():
    assert {**{i: i for i in range(11)}, 11: 255, 255: 255} == CAMVID_TRAIN_IDS
    assert [KVASIR_TRAIN_IDS[value] for value in (0, 127, 128, 255)] == [0, 0, 1, 1]
    assert len(KVASIR_TRAIN_IDS) == 256


def test_equal_classes_map_to_themselves():
    mapping = class_mapping(names(ROAD), names(ROAD))
    assert mapping.names == names(ROAD)
    assert mapping.prediction == mapping.label == tuple(range(19))


def test_classes_in_another_order_meet_by_name():
    mapping = class_mapping(("b", "c", "a"), ("a", "b", "c"))
    assert mapping == (("a", "b", "c"), (1, 2, 0), (0, 1, 2))


GROUPS = {
    "building": ("building", "wall"),
    "pavement": ("sidewalk",),
    "tree": ("vegetation", "terrain"),
    "sign or symbol": ("traffic light", "traffic sign"),
    "car": ("car", "truck", "bus", "train"),
    "bicyclist": ("rider", "motorcycle", "bicycle"),
    "pedestrian": ("person",),
    "road": ("road",),
    "sky": ("sky",),
    "pole": ("pole",),
    "fence": ("fence",),
}


@pytest.mark.parametrize("model_is_road", [True, False])
def test_road_and_camvid_meet_in_camvids_eleven(model_is_road):
    pair = (names(ROAD), names(CAMVID))
    mapping = class_mapping(*(pair if model_is_road else pair[::-1]))
    fine, coarse = (mapping.prediction, mapping.label)[:: 1 if model_is_road else -1]
    assert mapping.names == names(CAMVID)
    assert coarse == tuple(range(11))
    found = {
        name: {ROAD[i].name for i in range(19) if mapping.names[fine[i]] == name} for name in GROUPS
    }
    assert found == {name: set(group) for name, group in GROUPS.items()}


@pytest.mark.parametrize("other", [names(VOC), names(ROAD)[:18], ("road", "sky")])
def test_unknown_pairs_have_no_mapping(other):
    assert class_mapping(names(ROAD), other) is None
    assert class_mapping(other, names(CAMVID)) is None
