import json

import pytest

from datasets.folder import Folder
from tests.datasets import layouts

NAMES = ["road", "car"]
FULL = {
    "classes": [
        {"name": "road", "colour": [1, 2, 3], "ids": [0, 7]},
        {"name": "car", "ids": 1},
        "tree",
    ],
    "void": [5, 255],
}


def row(sample):
    return sample["label"][0].tolist()


def test_a_list_of_names_is_enough(tmp_path):
    dataset = Folder(layouts.folder(tmp_path, NAMES), "train")
    assert dataset.class_names == ("road", "car")
    assert [item.id for item in dataset.items] == ["train_a", "train_b"]
    assert row(dataset[0])[:3] == [0, 1, 255]
    assert len(set(map(tuple, dataset.palette.tolist()))) == 2


def test_ids_colours_and_void_are_as_given(tmp_path):
    dataset = Folder(layouts.folder(tmp_path, FULL, ids=(7, 1, 2, 5, 255, 0)), "val")
    assert dataset.class_names == ("road", "car", "tree")
    assert dataset.palette[0].tolist() == [1, 2, 3]
    assert row(dataset[0])[:6] == [0, 1, 2, 255, 255, 0]
    assert str(dataset.label_map) == "0, 7 = road; 1 = car; 2 = tree; 5, 255 = void"


def test_a_mask_of_0_and_255_is_two_classes(tmp_path):
    classes = {"classes": ["back", {"name": "polyp", "ids": [255]}], "void": []}
    dataset = Folder(layouts.folder(tmp_path, classes, ids=(0, 255)), "train")
    assert row(dataset[0])[:2] == [0, 1]


def flat(root):
    layouts.folder(root, NAMES, splits=())
    for name in "abc":
        layouts.write_image(root / "images" / f"{name}.jpg")
        layouts.write_label(root / "labels" / f"{name}.png", layouts.striped([0, 1]))
    return root


def test_lists_divide_flat_folders(tmp_path):
    root = flat(tmp_path)
    (root / "train.txt").write_text("c\na.jpg\n\n")
    assert [item.id for item in Folder(root, "train").items] == ["a", "c"]
    assert [item.id for item in Folder(root, "all").items] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="folder has no split 'val'; its splits are train, all"):
        Folder(root, "val")
    (root / "val.txt").write_text("a\nz\n")
    with pytest.raises(ValueError, match=r"val\.txt lists z, but no image and no label has this"):
        Folder(root, "val")
    (root / "labels" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"image without label: .*images/a\.jpg"):
        Folder(root, "train")


def test_all_takes_every_folder_and_scenes_are_folders(tmp_path):
    root = layouts.folder(tmp_path, NAMES)
    layouts.write_image(root / "images/train/town/x.png")
    layouts.write_label(root / "labels/train/town/x.png", layouts.filled(1))
    assert next((i.id, i.scene) for i in Folder(root, "train").items) == ("town/x", "town")
    assert len(Folder(root, "all")) == 5


def test_suffixes_are_left_out_of_the_names(tmp_path):
    classes = {"classes": NAMES, "image_suffix": "_rgb", "label_suffix": "_ids"}
    root = layouts.folder(tmp_path, classes, splits=())
    layouts.write_image(root / "images/train/a_rgb.png")
    layouts.write_label(root / "labels/train/a_ids.png", layouts.filled(1))
    layouts.write_image(root / "labels/train/a_colour.png")
    assert [item.id for item in Folder(root, "train").items] == ["a"]


def test_a_value_outside_the_classes_is_explained(tmp_path):
    dataset = Folder(layouts.folder(tmp_path, NAMES, ids=(0, 7)), "train")
    with pytest.raises(
        ValueError,
        match=r"train_a\.png: label value 7 outside the classes of folder"
        r", whose ids are 0 = road; 1 = car; 255 = void",
    ):
        dataset[0]


def test_missing_parts_show_the_layout(tmp_path):
    with pytest.raises(ValueError, match="images does not exist; .* is empty") as caught:
        Folder(tmp_path, "train")
    assert 'classes.json   ["background", "road", "car"]' in str(caught.value)
    layouts.write_image(tmp_path / "images/train/a.png")
    with pytest.raises(ValueError, match=r"classes\.json does not exist"):
        Folder(tmp_path, "train")
    (tmp_path / "classes.json").write_text(json.dumps(NAMES))
    with pytest.raises(ValueError, match="labels/train does not exist; .* classes.json, images/"):
        Folder(tmp_path, "train")


MISTAKES = [
    ("[", "is not valid JSON: Expecting value: line 1 column 2"),
    ("3", 'must be a list of classes, or an object with the list "classes"'),
    ('{"clases": []}', 'or an object with the list "classes"'),
    ('{"classes": ["a", "b"], "viod": [3]}', "unknown key 'viod'; did you mean 'void'"),
    ('["a"]', "1 classes; there must be 2 to 254"),
    ('["a", "a"]', "two classes are called 'a'"),
    ('["a", 3]', 'class 1 must be a name or an object with a "name", not 3'),
    ('["a", {"name": "b", "color": [1, 2, 3]}]', "'color'; did you mean 'colour'"),
    ('["a", {"name": "b", "colour": "red"}]', "three numbers from 0 to 255, not 'red'"),
    ('["a", {"name": "b", "colour": [1, 2, 300]}]', "three numbers from 0 to 255"),
    ('["a", {"name": "b", "ids": [256]}]', 'class 1: "ids" must be whole numbers from 0 to 255'),
    ('["a", {"name": "b", "ids": []}]', "class 1 has no ids"),
    ('["a", {"name": "b", "ids": [0]}]', "the id 0 is given twice"),
    ('["a", {"name": "b", "ids": [255]}]', "the id 255 is given twice; each id has one class, or"),
    ('{"classes": ["a", "b"], "void": "x"}', '"void" must be whole numbers'),
    ('{"classes": ["a", "b"], "label_suffix": 3}', "are texts such as"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_a_mistake_in_the_classes_is_explained(tmp_path, text, message):
    layouts.folder(tmp_path, NAMES)
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(ValueError, match=r"classes\.json") as caught:
        Folder(tmp_path, "train")
    assert message in str(caught.value)
