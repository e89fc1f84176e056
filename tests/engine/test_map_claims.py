import json

import numpy as np
import pytest

from datasets.camvid import CamVid
from datasets.label_files import encode_label, encode_score
from datasets.map_folders import MANIFEST, map_path
from datasets.pseudo_labels import LABELS
from datasets.uncertainty_masks import MASKS
from engine.map_claims import FORMERLY, claim_folder, differences, missing_maps, remove_files
from tests.datasets import layouts

ENDINGS = (".png", "_score.png")


@pytest.fixture
def dataset(tmp_path):
    return CamVid(layouts.camvid(tmp_path / "camvid"), "train", labelled=False)


@pytest.fixture
def folder(tmp_path, dataset):
    """A label and a score map of every image."""
    folder = tmp_path / "labels"
    folder.mkdir()
    zeros = np.zeros(layouts.SIZE, np.uint8)
    for item in dataset.items:
        for ending, content in zip(
            ENDINGS, (encode_label(zeros, 3), encode_score(zeros)), strict=True
        ):
            map_path(folder, item, ending).write_bytes(content)
    return folder


def manifest(**changes):
    return {"format": 1, "content": "pseudo labels", "checkpoints": [], "flags": {}, **changes}


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_item_is_missing_if_any_of_its_files_is_not_good(folder, dataset, ending, caplog):
    assert missing_maps(LABELS, folder, dataset) == set()
    paths = [map_path(folder, item, ending) for item in dataset.items]
    paths[1].unlink()
    paths[2].write_bytes(paths[2].read_bytes()[:-1])
    small = np.zeros((2, 3), np.uint8)
    paths[4].write_bytes(encode_label(small, 3) if ending == ".png" else encode_score(small))
    assert missing_maps(LABELS, folder, dataset) == {1, 2, 4}
    assert f"{paths[2]} is damaged" in caplog.text
    assert f"{paths[4]} has another size, 2x3" in caplog.text


def test_maps_of_this_kind_alone_are_removed(folder):
    before = names(folder)
    mine = {"mine.png": b"mine", "mine_score.png": b"mine"}
    for name, content in mine.items():
        (folder / name).write_bytes(content)
    for name in (".a.png.12.tmp", ".a_score.png.12.tmp", ".a.txt.12.tmp"):
        (folder / name).write_bytes(b"half")
    remove_files(LABELS, folder, maps=False)
    assert names(folder) == before | mine.keys() | {".a.txt.12.tmp"}
    remove_files(MASKS, folder, maps=True)
    assert names(folder) == before | mine.keys() | {".a.txt.12.tmp"}
    remove_files(LABELS, folder, maps=True)
    assert names(folder) == mine.keys() | {".a.txt.12.tmp"}


def test_maps_in_a_folder_below_with_a_manifest_are_another_s(folder, dataset):
    label = map_path(folder, dataset.items[0], ".png").read_bytes()
    scene, other = folder / "scene", folder / "weights"
    for below in (scene, other):
        below.mkdir()
        for name in ("a.png", ".a.png.12.tmp"):
            (below / name).write_bytes(label)
    (other / MANIFEST).write_text("{}")
    kept = names(other)
    remove_files(LABELS, folder, maps=True)
    assert names(other) == kept
    assert names(scene) == set()


def test_a_manifest_older_than_a_flag_was_made_with_its_first_meaning():
    older = manifest(flags={"fuse": "probs"})
    same = manifest(flags={"fuse": "probs", **FORMERLY})
    assert differences(LABELS, same, older) == []
    other = manifest(flags={"fuse": "probs", **FORMERLY, "upsample": "probs"})
    assert differences(LABELS, other, older) == ["--upsample probs (there logits)"]


def test_a_kind_has_entries_of_its_own_that_tell_folders_apart():
    mine, there = manifest(threshold=0.9, scale=1.0), manifest(threshold=0, scale=2.0)
    assert differences(LABELS, mine, there) == ["threshold 0.9 (there 0)"]
    assert differences(MASKS, mine, there) == ["scale 1.0 (there 2.0)"]


def test_the_summary_is_written_once_all_maps_are_there(folder, dataset):
    calls = []

    def summary(written):
        calls.append(written)
        return {"rejected": 0.25}

    last = map_path(folder, dataset.items[0], ".png")
    content = last.read_bytes()
    (folder / MANIFEST).write_text(json.dumps(manifest(complete=False)))
    last.unlink()
    claim = {"overwrite": False, "summary": summary}
    assert claim_folder(LABELS, folder, manifest(), dataset, **claim) == {0}
    assert not calls
    last.write_bytes(content)
    assert claim_folder(LABELS, folder, manifest(), dataset, **claim) == set()
    assert calls == [manifest()]
    found = json.loads((folder / MANIFEST).read_text())
    assert (found["complete"], found["rejected"]) == (True, 0.25)


def test_a_score_map_of_another_program_is_in_the_way(folder, dataset):
    path = map_path(folder, dataset.items[3], "_score.png")
    path.write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"{path} exists and is no pseudo label.*--pseudo_dir"):
        claim_folder(LABELS, folder, manifest(), dataset, overwrite=True)
    with pytest.raises(ValueError, match=r"was not made by --make_pseudo_labels") as caught:
        claim_folder(LABELS, folder, manifest(), dataset, overwrite=False)
    assert "no longer read" not in str(caught.value), "there is no other form of these"
