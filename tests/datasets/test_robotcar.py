import pytest
import torch

from datasets.cityscapes import Cityscapes
from datasets.robotcar import CityscapesRobotCar, RobotCar
from datasets.taxonomy import names_of
from datasets.taxonomy_adaptation import ROBOTCAR
from tests.datasets import layouts

SPEC = ("sky", "person", "two-wheel", "automobile", "sign", "light", "building", "sidewalk", "road")


def test_the_id_is_in_the_first_of_four_channels(tmp_path):
    dataset = RobotCar(layouts.robotcar(tmp_path), "val")
    assert dataset.read(0)[1][0].tolist() == [0, 8, 8, 255] * 2
    assert names_of(dataset.classes) == SPEC
    assert {item.scene for item in dataset.items} == {"2014-11-25-09-18-32_01"}


def test_every_annotation_id_has_its_train_id(tmp_path):
    table = RobotCar(layouts.robotcar(tmp_path), "val").label_map.table.tolist()
    known = {1: 0, 2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6, 10: 7, 11: 8, 12: 8, 13: 8, 14: 8, 17: 8}
    assert table == [known.get(label, 255) for label in range(256)]


def test_train_has_no_labels_and_says_so(tmp_path):
    layouts.robotcar(tmp_path)
    with pytest.raises(ValueError, match="split 'train' of robotcar has no labels") as said:
        RobotCar(tmp_path, "train")
    assert "\n" not in str(said.value)
    dataset = RobotCar(tmp_path, "train", labelled=False)
    assert [(item.id, item.scene, item.label) for item in dataset.items[1:3]] == [
        ("2015-05-29-09-36-29_07_000001", "2015-05-29-09-36-29_07", None),
        ("2015-07-24-14-17-50_01_000000", "2015-07-24-14-17-50_01", None),
    ]
    sample = dataset[0]
    assert sample["label"].unique().tolist() == [255]
    pseudo = RobotCar(
        tmp_path, "train", label_source=lambda item: torch.ones(layouts.SIZE, dtype=torch.uint8)
    )
    assert pseudo[3]["label"].unique().tolist() == [1]


def test_cityscapes_in_the_classes_of_robotcar(tmp_path):
    layouts.cityscapes(tmp_path)
    dataset, original = CityscapesRobotCar(tmp_path, "train"), Cityscapes(tmp_path, "train")
    assert dataset.classes == ROBOTCAR
    known = {7: 8, 8: 7, 11: 6, 19: 5, 20: 4, 23: 0, 24: 1, 25: 1, 26: 3, 27: 3, 28: 3}
    known |= {32: 2, 33: 2}
    table = dataset.label_map.table.tolist()
    assert [table[label] for label in range(34)] == [known.get(label, 255) for label in range(34)]
    assert dataset.read(0)[1][0].tolist() == [8, 255, 2, 255] * 2
    assert dataset.origins() == original.origins()
    assert dataset.items == original.items
    train_ids = torch.tensor([0, 8, 255], dtype=torch.uint8)
    assert torch.equal(dataset.decode_label(train_ids), train_ids)


def test_classes_keep_their_colours_of_cityscapes(tmp_path):
    layouts.cityscapes(tmp_path)
    colours = {entry.name: entry.colour for entry in Cityscapes(tmp_path, "train").classes}
    others = {"two-wheel": "bicycle", "automobile": "car", "sign": "traffic sign"}
    others["light"] = "traffic light"
    for entry in ROBOTCAR:
        assert entry.colour == colours[others.get(entry.name, entry.name)]
