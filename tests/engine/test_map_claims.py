import json

import numpy as np
import pytest

from datasets.camvid import CamVid
from datasets.label_files import encode_label, encode_score
from datasets.map_folders import MANIFEST, map_path
from datasets.pseudo_labels import LABELS, PSEUDO_MASKS
from datasets.response_weights import RESPONSE_WEIGHTS
from datasets.uncertainty_masks import MASKS
from datasets.weight_files import encode_weight
from engine.map_claims import (
    FORMERLY,
    claim_folder,
    differences,
    missing_maps,
    remove_files,
)
from tests.datasets import layouts
from tests.utils.locking import another_run, is_held

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


@pytest.mark.parametrize("kind", [LABELS, PSEUDO_MASKS])
def test_labels_made_with_scores_are_replaced_with_them(folder, dataset, kind):
    (folder / MANIFEST).write_text(json.dumps(manifest(complete=True)))
    stale = folder / "of_another_split_score.png"
    stale.write_bytes(map_path(folder, dataset.items[0], "_score.png").read_bytes())
    (folder / "mine_score.png").write_bytes(b"mine")
    assert len(claim_folder(kind, folder, manifest(), dataset, overwrite=True)) == len(dataset)
    assert names(folder) == {MANIFEST, "mine_score.png"}


class TestWithoutManifest:
    def test_maps_of_other_images_are_kept_by_overwriting(self, folder, dataset):
        label = map_path(folder, dataset.items[0], ".png").read_bytes()
        for ending in ENDINGS:
            for item in dataset.items:
                map_path(folder, item, ending).rename(folder / f"former_{item.id}{ending}")
        kept = names(folder)
        with pytest.raises(ValueError, match="beside it, in place of files of their names"):
            claim_folder(RESPONSE_WEIGHTS, folder, manifest(), dataset, overwrite=False)
        claim_folder(RESPONSE_WEIGHTS, folder, manifest(), dataset, overwrite=True)
        assert names(folder) == kept | {MANIFEST}
        assert (folder / f"former_{dataset.items[0].id}.png").read_bytes() == label

    @pytest.mark.parametrize("kind", [LABELS, PSEUDO_MASKS, RESPONSE_WEIGHTS])
    def test_maps_of_unknown_origin_are_not_taken_for_those_of_this_run(
        self, folder, dataset, kind
    ):
        weight = encode_weight(np.zeros(layouts.SIZE, np.uint8))
        for item in dataset.items:
            map_path(folder, item, "_weight.png").write_bytes(weight)
        missing = claim_folder(kind, folder, manifest(), dataset, overwrite=True)
        assert missing == set(range(len(dataset)))
        assert not any(map_path(folder, item, ".png").exists() for item in dataset.items)
        kept = [path for path in folder.glob("*.png") if path.name.endswith(ENDINGS[1])]
        assert bool(kept) is (kind is RESPONSE_WEIGHTS), "scores are none of its files"


@pytest.mark.parametrize("crf", [{"bilateral_xy": 67.0}, None])
def test_masks_of_another_crf_are_not_mixed(crf):
    mine = manifest(cams="1", crf={"bilateral_xy": 80.0})
    assert differences(PSEUDO_MASKS, mine, {**mine, "crf": crf}) == [
        f"crf {{'bilateral_xy': 80.0}} (there {crf})"
    ]
    assert differences(PSEUDO_MASKS, mine, dict(mine)) == []


class TestHolding:
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_second_run_is_refused_until_the_first_is_killed(self, folder, dataset, overwrite):
        (folder / MANIFEST).write_text(json.dumps(manifest(complete=False)))
        (folder / ".a.png.12.tmp").write_bytes(b"half")
        before = names(folder)
        with another_run(folder):
            wording = f"another run is writing {folder}: wait for it, or .* --pseudo_dir"
            with pytest.raises(ValueError, match=wording):
                claim_folder(LABELS, folder, manifest(), dataset, overwrite=overwrite)
            assert names(folder) == before
        claim_folder(LABELS, folder, manifest(), dataset, overwrite=overwrite)
        assert ".a.png.12.tmp" not in names(folder)

    def test_a_folder_is_held_while_maps_are_missing(self, folder, dataset):
        (folder / MANIFEST).write_text(json.dumps(manifest(complete=False)))
        last = map_path(folder, dataset.items[0], ".png")
        content = last.read_bytes()
        last.unlink()
        for _ in range(2):
            claim_folder(LABELS, folder, manifest(), dataset, overwrite=False)
            assert is_held(folder), "by this process, which may claim it again"
        last.write_bytes(content)
        claim_folder(LABELS, folder, manifest(), dataset, overwrite=False)
        assert not is_held(folder)

    def test_a_refused_claim_holds_nothing(self, folder, dataset):
        with pytest.raises(ValueError, match=f"no {MANIFEST}"):
            claim_folder(LABELS, folder, manifest(), dataset, overwrite=False)
        assert not is_held(folder)
