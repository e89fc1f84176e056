import json
import re

import numpy as np
import pytest

from datasets.tag_files import ClassNames, read_annotation, read_tag_file
from datasets.taxonomy import CAMVID, VOC, names_of
from tests.datasets import layouts

CLASSES = ClassNames(names_of(VOC), 0, "voc")
FEW = ClassNames(("background", "car", "bus"), 0, "folder")
NO_BACKGROUND = ClassNames(names_of(CAMVID), None, "camvid")


def read(tmp_path, name, content, classes=FEW):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    found = read_tag_file(path, classes)
    return {key: np.flatnonzero(present).tolist() for key, present in found.items()}


def refused(tmp_path, name, content, classes=FEW):
    with pytest.raises(ValueError, match=re.escape(name)) as said:
        read(tmp_path, name, content, classes)
    message = str(said.value)
    assert "\n" not in message
    return message


def test_names_and_vectors_say_the_same(tmp_path):
    expected = {"a": [0, 1], "b": [0, 1, 2], "c": [0]}
    names = {"a": ["car"], "b": ["bus", "car", "bus"], "c": []}
    vectors = {"a": [1, 0], "b": [1.0, 1.0], "c": [0, 0]}
    assert read(tmp_path, "tags.json", names) == expected
    assert read(tmp_path, "tags.json", vectors) == expected
    for text in (
        "a,car\nb,bus,car\nc\n",
        "a,car,\nb,bus;car\nc,\n",
        "id,classes\na,car\nb, bus, car\n\nc\n",
        "a,1,0\nb,1,1\nc,0,0\n",
        "\ufeffimage_id,x,y\na.jpg,1,0\nb.png,1.0,1.0\nc,0,0\n",
        "id,bus,car\na,0,1\nb,1,1\nc,0,0\n",  # the heading names the columns
        "id,bus,background,car\na,0,1,1\nb,1,1,1\nc,0,0,0\n",
    ):
        assert read(tmp_path, "tags.csv", text) == expected, text


def test_without_a_background_all_classes_have_an_entry(tmp_path):
    vector = [0] * 11
    vector[3] = 1
    assert read(tmp_path, "t.json", {"a": vector, "b": []}, NO_BACKGROUND) == {"a": [3], "b": []}
    assert read(tmp_path, "t.csv", "a,road\nb,\n", NO_BACKGROUND) == {"a": [3], "b": []}
    message = refused(tmp_path, "t.json", {"a": vector[:-1]}, NO_BACKGROUND)
    assert "a vector of 10 entries; camvid has 11 classes, so 11 are expected, one for" in message


def test_other_spellings_of_a_name(tmp_path):
    spelt = ["diningtable", "Potted-Plant", "tv_monitor", "tv monitor", "background"]
    assert read(tmp_path, "t.json", {"a": spelt}, CLASSES) == {"a": [0, 11, 16, 20]}
    alike = ClassNames(("Car", "car"), None, "folder")
    assert [alike.find(name, "") for name in ("Car", "car")] == [0, 1]


@pytest.mark.parametrize("vector", [[1], [0, 1, 0], [1] * 20])
def test_a_vector_of_another_length_is_refused(tmp_path, vector):
    expected = f"a vector of {len(vector)} entries; folder has 3 classes, so 2 are expected"
    assert expected in refused(tmp_path, "t.json", {"img7": vector})
    message = refused(tmp_path, "t.csv", "img7," + ",".join(map(str, vector)))
    assert expected in message
    assert "img7" in message
    assert "one for each but background" in message


def test_other_values_than_zero_and_one_are_refused(tmp_path):
    message = refused(tmp_path, "t.json", {"img7": [0.5, 1]})
    assert "img7 has a vector with other values than 0 and 1: [0.5, 1]" in message


def test_an_unknown_class_names_the_nearest(tmp_path):
    for name, content in (("t.json", {"img7": ["catt"]}), ("t.csv", "img7,cow,catt")):
        message = refused(tmp_path, name, content, CLASSES)
        assert "img7 names the class 'catt', which voc does not have (did you mean 'cat'?)" in (
            message
        )
        assert "tv monitor" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.json", "{", "is not valid JSON"),
        ("t.json", [["a", "car"]], "holds a list: a row of a .csv file is an id"),
        ("t.json", {"a": "car"}, "a has the entry 'car': a row of"),
        ("t.json", {"a": ["car", 1]}, "a has the entry ['car', 1]: a row of"),
        ("t.csv", "a,car\nb,bus\na,bus\n", "lists a twice"),
        ("t.csv", "id,bus,lorry\na,1,0\n", "heading of"),
        ("t.csv", "id,bus,lorry\na,1,0\n", "names the class 'lorry'"),
        ("t.csv", "img_id,bus,car\na,1,0\n", "if these are a heading, begin it with id"),
        ("t.json", '{"a": ["car"], "b": [], "a": ["bus"]}', "lists a twice"),
        ("t.txt", "a 1\n", "is neither masks nor xml nor a .csv or .json file"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path, name, content, words):
    assert words in refused(tmp_path, name, content)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"--image_tags .*none\.csv does not exist; .* is empty"):
        read_tag_file(tmp_path / "none.csv", FEW)


@pytest.mark.parametrize("name", ["folder.csv", "folder.json"])
def test_a_folder_in_the_place_of_a_file_is_named(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.txt").touch()
    with pytest.raises(ValueError, match=f"{name} is a folder, where a file .* holds a.txt"):
        read_tag_file(tmp_path / name, FEW)


def test_a_byte_order_mark_is_no_part_of_the_tags(tmp_path):
    for name, content in (("t.json", '{"a": ["car"]}'), ("t.csv", "a,car\n")):
        assert read(tmp_path, name, "\ufeff" + content) == {"a": [0, 1]}


@pytest.mark.parametrize(("name", "content"), [("t.csv", "a,café"), ("t.json", '{"a": ["café"]}')])
def test_a_file_in_another_encoding_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    place = content.encode("latin-1").index(0xE9)
    words = rf"{name} is not in UTF-8 \(byte {place} is 0xe9\): save it in that encoding"
    with pytest.raises(ValueError, match=words) as said:
        read_tag_file(path, FEW)
    assert not isinstance(said.value, UnicodeDecodeError)


def test_annotations_name_objects_but_not_their_parts(tmp_path):
    path = tmp_path / "Annotations/a.xml"
    layouts.annotation(path, ["person", "diningtable", "person"])
    assert np.flatnonzero(read_annotation(path, CLASSES)).tolist() == [0, 11, 15]
    layouts.annotation(path, [])
    assert np.flatnonzero(read_annotation(path, CLASSES)).tolist() == [0]


def test_bad_annotations_are_named(tmp_path):
    path = tmp_path / "a.xml"
    with pytest.raises(ValueError, match=r"a\.xml does not exist; .* is empty"):
        read_annotation(path, CLASSES)
    with pytest.raises(ValueError, match="is a folder, where a file is expected"):
        read_annotation(tmp_path, CLASSES)
    path.write_text("<annotation>")
    with pytest.raises(ValueError, match=r"a\.xml is no XML file: "):
        read_annotation(path, CLASSES)
    layouts.annotation(path, ["unicorn"])
    with pytest.raises(ValueError, match=r"a\.xml names the class 'unicorn', which voc does not"):
        read_annotation(path, CLASSES)


def test_a_quote_that_is_never_closed_is_named(tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text('first,"cat\n' + "another,car\n" * 20000)
    with pytest.raises(ValueError, match=rf"{path} is not valid CSV, perhaps a quote is open: "):
        read_tag_file(path, CLASSES)


@pytest.mark.parametrize("encoding", ["klingon", "utf-7"])
def test_an_annotation_in_an_unknown_encoding_is_named(tmp_path, encoding):
    path = tmp_path / "first.xml"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?><annotation/>')
    with pytest.raises(ValueError, match=f"{path} is no XML file: "):
        read_annotation(path, CLASSES)
