import json
from dataclasses import replace

import numpy as np
import pytest

from datasets.camvid import CamVid
from datasets.items import Item
from datasets.label_files import encode_label
from datasets.map_folders import (
    MANIFEST,
    MapReader,
    map_path,
    origin,
    read_manifest,
    size_of_map,
)
from datasets.pseudo_labels import LABELS
from datasets.streets import Streets
from datasets.transforms import eval_transform
from datasets.uncertainty_masks import MASKS
from tests.datasets import layouts
from utils.files import write_json


def write_manifest(directory, **entries):
    (directory / MANIFEST).write_text(json.dumps(entries))


def test_the_words_of_a_kind():
    assert (MASKS.single, MASKS.short) == ("uncertainty mask", "masks")
    assert (LABELS.single, LABELS.short) == ("pseudo label", "labels")
    assert replace(MASKS, content="CAMs").single == replace(MASKS, content="CAMs").short[:-1]


def test_slashes_of_an_id_are_folders_and_none_leads_out(tmp_path):
    item = Item("city/../a:b", None, None)
    assert map_path(tmp_path, item, "_x.png") == tmp_path / "city" / "_" / "a%3Ab_x.png"


def test_a_folder_holds_one_kind(tmp_path):
    assert read_manifest(tmp_path, MASKS) is None
    write_manifest(tmp_path, format=1, content="pseudo labels")
    assert read_manifest(tmp_path, LABELS)["content"] == "pseudo labels"
    with pytest.raises(ValueError, match=r"no manifest of uncertainty masks in format 1.*mask_dir"):
        read_manifest(tmp_path, MASKS)
    with pytest.raises(ValueError, match=r"no manifest of pseudo labels in format 2.*pseudo_dir"):
        read_manifest(tmp_path, replace(LABELS, format=2))


def test_a_damaged_manifest_says_how_to_go_on(tmp_path):
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match="remake the labels with --overwrite"):
        read_manifest(tmp_path, LABELS)


def test_a_manifest_is_read_as_it_was_written_whatever_the_locale(tmp_path, monkeypatch):
    write_json(
        tmp_path / MANIFEST, {"format": 1, "content": "pseudo labels", "command": "--ckpt ü"}
    )
    monkeypatch.setattr("io.text_encoding", lambda encoding, level=2: encoding or "ascii")
    assert read_manifest(tmp_path, LABELS)["command"] == "--ckpt ü"


def test_maps_of_native_size_do_not_follow_the_resize(tmp_path):
    root = layouts.camvid(tmp_path)
    dataset = CamVid(root, "train", transform=eval_transform((3, 4)))
    assert origin(MASKS, dataset)["size"] == [3, 4]
    assert size_of_map(MASKS, dataset, 0) == (3, 4)
    assert origin(LABELS, dataset)["size"] == "native"
    assert size_of_map(LABELS, dataset, 0) == layouts.SIZE


def test_generated_images_are_drawn_at_the_size_that_is_asked_for():
    """Of another size they are other images, which the size says before the fingerprint does."""
    sizes = [
        origin(LABELS, Streets(None, "val", transform=eval_transform(size)))["size"]
        for size in (None, (32, 64))
    ]
    assert sizes == [[128, 256], [32, 64]]


class Labels(MapReader):
    """The least that a kind of map brings."""

    kind = LABELS

    def making_command(self, dataset):
        return f"make {dataset.name}"


def test_a_reader_finds_every_fault_of_a_folder(tmp_path):
    dataset = CamVid(layouts.camvid(tmp_path / "data"), "train")
    folder = tmp_path / "labels"
    folder.mkdir()
    content = encode_label(np.zeros(layouts.SIZE, np.uint8), 3)
    for item in dataset.items:
        map_path(folder, item, ".png").write_bytes(content)
    write_manifest(
        folder, format=1, content="pseudo labels", command="again", **origin(LABELS, dataset)
    )
    reader = Labels(folder)
    for refuse in (reader.refuse_other_origin, reader.refuse_missing, reader.refuse_damaged):
        refuse(dataset)
    with pytest.raises(
        ValueError, match=r"(?s)are of split train, training is on val.*make camvid"
    ):
        reader.refuse_other_origin(CamVid(dataset.root, "val"))
    path = reader.path(dataset.items[2])
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=f"(?s)the pseudo label {path} is damaged.*again"):
        reader.refuse_damaged(dataset)
    path.write_bytes(encode_label(np.zeros((2, 3), np.uint8), 3))
    with pytest.raises(ValueError, match=f"{path} has 2x3 pixels, training sees 6x8"):
        reader.refuse_damaged(dataset)
    path.unlink()
    with pytest.raises(ValueError, match=f"1 of 6 pseudo labels are missing.*{path.name}"):
        reader.refuse_missing(dataset)
