"""Mapillary Vistas on tiny files in its layout."""

import json

import pytest
import torch

from datasets.mapillary import Mapillary
from datasets.statistics import check_data
from datasets.taxonomy_mapillary import MAPILLARY
from tests.datasets import layouts


@pytest.fixture
def root(tmp_path):
    return layouts.mapillary(tmp_path)


def write_config(root, names):
    labels = [{"readable": name, "color": [1, 2, 3], "name": "a--b"} for name in names]
    (root / "config.json").write_text(json.dumps({"labels": labels, "version": 1.1}))


def names():
    return [entry.name for entry in MAPILLARY] + ["Unlabeled"]


def test_there_are_65_classes_of_distinct_names_and_colours():
    assert len(MAPILLARY) == len({entry.name for entry in MAPILLARY}) == 65
    assert len({entry.colour for entry in MAPILLARY}) == 65
    known = {0: "Bird", 8: "Crosswalk - Plain", 13: "Road", 27: "Sky", 55: "Car", 64: "Ego Vehicle"}
    assert {index: MAPILLARY[index].name for index in known} == known
    assert MAPILLARY[13].colour == (128, 64, 128)
    assert MAPILLARY[47].colour == (0, 0, 80)


def test_label_ids_are_train_ids_and_the_last_is_void(root):
    dataset = Mapillary(root, "train")
    assert [item.id for item in dataset.items] == ["training0", "training1"]
    assert dataset[1]["label"].shape == (7, 8)
    assert dataset[1]["label"][0, :4].tolist() == [0, 13, 64, 255]
    assert "ood" not in dataset[0]
    assert dataset.num_classes == 65
    assert torch.equal(dataset.palette[55], torch.tensor([0, 0, 142], dtype=torch.uint8))


def test_validation_is_its_own_folder(root):
    dataset = Mapillary(root, "val")
    assert [item.id for item in dataset.items] == ["validation0", "validation1"]
    assert dataset.fingerprint() != Mapillary(root, "train").fingerprint()
    assert not dataset.origins() & Mapillary(root, "train").origins()


def test_images_of_several_sizes_come_one_by_one(root):
    assert Mapillary.defaults["val_batch_size"] == 1
    assert check_data(Mapillary(root, "val")).sizes == {(6, 8): 1, (7, 8): 1}


def test_unlabelled_things_may_be_unknown(root):
    assert Mapillary(root, "val", ood_ids=(65,))[0]["ood"][0, :4].tolist() == [0, 0, 0, 1]


def test_ids_of_other_versions_are_refused(root):
    label = root / "training/labels/training0.png"
    layouts.write_label(label, layouts.striped([0, 123]), palette=True)
    with pytest.raises(ValueError, match=r"training0\.png: label value 123 outside .* mapillary"):
        Mapillary(root, "train")[0]


def test_the_configuration_of_the_same_version_is_accepted(root):
    write_config(root, names())
    assert len(Mapillary(root, "train")) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda: [*names(), "Garage"], "has 67 labels, Mapillary Vistas v1.1 has 66"),
        (lambda: [*names()[:7], "Kerb", *names()[8:]], "label 7 is 'Kerb', .* it is 'Bike Lane'"),
    ],
)
def test_another_configuration_is_refused(root, changed, message):
    write_config(root, changed())
    with pytest.raises(ValueError, match=rf"config\.json:? {message}"):
        Mapillary(root, "train")


@pytest.mark.parametrize("content", ["{", "[]", '{"labels": [{"name": "a"}]}', '{"classes": []}'])
def test_what_is_no_configuration_is_refused(root, content):
    (root / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json is no configuration of Mapillary Vistas"):
        Mapillary(root, "train")


def test_a_missing_label_is_named(root):
    (root / "training/labels/training1.png").unlink()
    with pytest.raises(ValueError, match=r"image without label: .*training1\.jpg"):
        Mapillary(root, "train")


def test_a_missing_folder_shows_the_tree(tmp_path):
    with pytest.raises(ValueError, match=r"training/images does not exist; (.*\n)+  config\.json"):
        Mapillary(tmp_path, "train")
