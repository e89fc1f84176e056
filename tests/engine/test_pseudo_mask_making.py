import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.cam_files import CAM_ENDING, encode_cams
from datasets.cams import CAMS, CamReader
from datasets.camvid import CamVid
from datasets.label_files import encode_score
from datasets.map_folders import MANIFEST, origin
from datasets.pseudo_labels import PseudoLabels
from engine.pseudo_mask_making import (
    MASK_FLAGS,
    cams_hash,
    check_pseudo_mask_flags,
    run_pseudo_mask_making,
)
from tests.engine.cam_runs import (
    options,
    stop_half_way,
    write_images,
)
from tests.engine.map_runs import contents, manifest_of
from uncertainty.dense_crf import PSEUDO_MASK_CRF
from uncertainty.pseudo_masks import proportional_mask
from utils.files import write_json

ROOT = Path(__file__).parents[2]
STEPS = 2  # of the CRF


def blobs(classes, size, seed):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, max(1, len(classes)), 4, 4, generator=generator)
    maps = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)[0]
    return maps[: len(classes)].numpy()


def write_cams(directory, dataset, **changes):
    """A folder as ``--make_cams`` leaves it; the first image shows nothing."""
    directory.mkdir(parents=True)
    for index, item in enumerate(dataset.items):
        classes = np.array([index, 7][: min(index, 2)], np.int64)
        content = encode_cams(classes, blobs(classes, dataset.native_size(index), index))
        (directory / f"{item.id}{CAM_ENDING}").write_bytes(content)
    manifest = {
        "format": 1,
        "content": "class activation maps",
        **origin(CAMS, dataset),
        "classes": [{"name": one.name, "colour": one.colour} for one in dataset.classes],
        "checkpoints": [{"file": "cam.pth", "sha256": "1"}],
        "command": "python main.py --make_cams",
        "complete": True,
    }
    write_json(directory / MANIFEST, {**manifest, **changes})
    return directory


@pytest.fixture(scope="module")
def root(new_folder):
    root = write_images(new_folder("data"))
    shutil.rmtree(root / "trainannot")
    shutil.rmtree(root / "valannot")
    shutil.rmtree(root / "testannot")
    return root


@pytest.fixture(scope="module")
def dataset(root):
    return CamVid(root, "train", labelled=False)


@pytest.fixture(scope="module")
def cams(dataset, new_folder):
    return write_cams(new_folder("maps") / "cams", dataset)


@pytest.fixture
def run(root, cams):
    """Make masks in a folder, without a CRF if nothing else is said."""

    def make(directory, **values):
        flags = {"crf_iterations": 0, "cam_dir": cams, "pseudo_dir": directory, **values}
        return run_pseudo_mask_making(options(root, **flags))

    return make


@pytest.fixture
def made(run, tmp_path):
    assert run(tmp_path / "masks") == 0
    return tmp_path / "masks"


@pytest.mark.parametrize("iterations", [0, STEPS])
@pytest.mark.parametrize("background", [None, 0])
def test_masks_are_those_of_maps_and_image(
    run, dataset, cams, tmp_path, monkeypatch, iterations, background
):
    monkeypatch.setattr(CamVid, "background", background)
    assert run(tmp_path / "masks", crf_iterations=iterations) == 0
    labels, reader = PseudoLabels(tmp_path / "masks"), CamReader(cams)
    crf = PSEUDO_MASK_CRF._replace(iterations=iterations) if iterations else None
    for index, item in enumerate(dataset.items):
        image = dataset.read(index)[0]
        expected = proportional_mask(*reader(item), image, crf=crf, background=background)
        assert torch.equal(labels(item), expected)
        shown = {*reader(item)[0].tolist(), 255 if background is None else background}
        assert set(labels(item).unique().tolist()) <= shown
    assert {path.suffix for path in (tmp_path / "masks").iterdir()} == {".png", ".json"}


def test_training_reads_them_as_pseudo_labels(root, made):
    labels = PseudoLabels(made)
    dataset = CamVid(root, "train", label_source=labels, classes=labels.classes)
    labels.check(dataset)
    for index, item in enumerate(dataset.items):
        assert torch.equal(dataset[index]["label"].as_subclass(torch.Tensor), labels(item))


def test_they_have_no_scores_to_compare_with_a_threshold(made):
    with pytest.raises(ValueError, match=f"--pseudo_threshold 0.5 needs.*{made} do not have"):
        PseudoLabels(made, 0.5)


def test_the_manifest_says_what_made_them_and_what_they_hold(made, dataset, cams):
    manifest = manifest_of(made)
    assert (manifest["content"], manifest["complete"]) == ("pseudo labels", True)
    assert (manifest["scores"], manifest["threshold"], manifest["crf"]) == (False, 0, None)
    assert manifest["cams"] == cams_hash(CamReader(cams), dataset)
    assert manifest["flags"] == {
        "crf_iterations": 0,
        "cam_threshold": 0.05,
        "cv_scale": 0.3,
        "background_power": 11,
    }
    values = torch.cat([PseudoLabels(made)(item).flatten() for item in dataset.items])
    assert sum(manifest["pixels"].values()) == (values != 255).sum()
    assert manifest["pixels"]["fence"] == (values == 7).sum() > 0
    assert manifest["rejected"] == pytest.approx((values == 255).double().mean().item())


def test_any_number_of_workers_writes_the_same_bytes(run, tmp_path):
    for workers in (1, 4):
        directory = tmp_path / str(workers)
        assert run(directory, crf_iterations=STEPS, crf_workers=workers) == 0
    assert contents(tmp_path / "1") == contents(tmp_path / "4")


def test_the_number_of_cores_of_the_program_changes_no_byte(run, tmp_path):
    threads = torch.get_num_threads()
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            assert run(tmp_path / str(count), crf_iterations=STEPS) == 0
    finally:
        torch.set_num_threads(threads)
    assert contents(tmp_path / "1") == contents(tmp_path / "4")


def test_what_a_kill_left_is_completed_to_the_same_bytes(run, tmp_path):
    assert run(tmp_path / "masks", crf_iterations=STEPS) == 0
    half = stop_half_way(tmp_path / "masks", 3)
    kept = {path: path.stat().st_mtime_ns for path in half.glob("[0-9]*.png")}
    assert run(half, crf_iterations=STEPS) == 0
    assert contents(half) == contents(tmp_path / "masks")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_the_same_again_changes_nothing(run, made, caplog):
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    caplog.set_level("INFO", logger="segdoubt")
    assert run(made) == 0
    assert "all 6 pseudo labels are there" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_whole_files_alone(root, cams, run, tmp_path):
    """Killed while it works, then started again: the bytes of one go."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    slow = {"crf_iterations": 40}
    assert run(whole, **slow) == 0
    script = (
        "from tests.engine.cam_runs import options\n"
        "from engine.pseudo_mask_making import run_pseudo_mask_making\n"
        f"run_pseudo_mask_making(options({str(root)!r}, cam_dir={str(cams)!r},"
        f" pseudo_dir={str(killed)!r}, crf_iterations=40, crf_workers=1))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not list(killed.glob("[0-9]*.png")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert manifest_of(killed)["complete"] is False
    there = contents(killed)
    assert 0 < sum(name.endswith(".png") for name in there) < 6
    assert all(there[name] == contents(whole)[name] for name in there if name[0].isdigit())
    assert run(killed, **slow) == 0
    ours, theirs = contents(killed), contents(whole)
    assert ours.keys() == theirs.keys()
    assert all(ours[name] == theirs[name] for name in ours if name != MANIFEST)


@pytest.mark.parametrize(
    ("change", "wording"),
    [
        ({"cv_scale": 0.5}, "--cv_scale 0.5 (there 0.3)"),
        ({"crf_iterations": 1}, "--crf_iterations 1 (there 0)"),
        ({"background_power": 24.0}, "--background_power 24.0 (there 11.0)"),
    ],
)
def test_masks_of_another_making_are_not_mixed(run, made, change, wording):
    before = contents(made)
    with pytest.raises(ValueError, match="holds pseudo labels of another origin") as caught:
        run(made, **change)
    assert wording in str(caught.value)
    assert contents(made) == before
    assert run(made, overwrite=True, **change) == 0
    assert manifest_of(made)["flags"].items() >= change.items()


def test_masks_of_other_maps_are_not_mixed(run, made, dataset, tmp_path):
    others = write_cams(tmp_path / "others", dataset, checkpoints=[{"sha256": "2"}])
    with pytest.raises(ValueError, match="another origin: cams "):
        run(made, cam_dir=others)
    completed = write_cams(tmp_path / "same", dataset, complete=False, command="another")
    assert run(made, cam_dir=completed) == 0, "the same maps, made in another go"


@pytest.mark.parametrize("crf", [dict(PSEUDO_MASK_CRF._asdict(), bilateral_xy=67.0), None])
def test_masks_of_other_settings_of_the_crf_are_not_mixed(run, tmp_path, crf):
    directory = tmp_path / "masks"
    assert run(directory, crf_iterations=STEPS) == 0
    assert run(directory, crf_iterations=STEPS) == 0
    manifest = manifest_of(directory)
    write_json(directory / MANIFEST, {**manifest, "crf": crf})
    with pytest.raises(ValueError, match=r"another origin: crf .* \(there "):
        run(directory, crf_iterations=STEPS)
    assert run(directory, crf_iterations=STEPS, overwrite=True) == 0
    assert manifest_of(directory)["crf"] == manifest["crf"]


def test_scores_of_labels_that_are_overwritten_are_removed(run, made, dataset):
    manifest = {**manifest_of(made), "scores": True}
    del manifest["cams"], manifest["crf"]
    write_json(made / MANIFEST, manifest)
    before = contents(made).keys()
    for index, item in enumerate(dataset.items):
        levels = np.zeros(dataset.native_size(index), np.uint8)
        (made / f"{item.id}_score.png").write_bytes(encode_score(levels))
    (made / "mine_score.png").write_bytes(b"mine")
    assert run(made, overwrite=True) == 0
    assert contents(made).keys() == before | {"mine_score.png"}


def test_a_folder_is_held_until_its_masks_are_made(run, made):
    handle = os.open(made, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = contents(made)
        with pytest.raises(ValueError, match=f"another run is writing {made}"):
            run(made, overwrite=True)
        assert contents(made) == before
    finally:
        os.close(handle)
    assert run(made) == 0


def test_pseudo_labels_of_a_network_are_not_mixed_in(run, made):
    manifest = {**manifest_of(made), "scores": True, "checkpoints": [{"file": "a", "sha256": "b"}]}
    del manifest["cams"]
    write_json(made / MANIFEST, manifest)
    with pytest.raises(ValueError, match=r"another origin: cams .*checkpoints"):
        run(made)


def test_missing_and_damaged_maps_are_named_before_a_mask_is_made(run, dataset, tmp_path):
    broken = write_cams(tmp_path / "broken", dataset)
    path = broken / f"{dataset.items[4].id}{CAM_ENDING}"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        run(tmp_path / "masks", cam_dir=broken)
    path.unlink()
    with pytest.raises(ValueError, match=f"1 of 6 class activation maps.*{path.name}"):
        run(tmp_path / "masks", cam_dir=broken)
    with pytest.raises(ValueError, match="nowhere does not exist"):
        run(tmp_path / "masks", cam_dir=tmp_path / "nowhere")
    assert not (tmp_path / "masks").exists()


def test_maps_of_another_program_make_the_same_masks(run, cams, dataset, made, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    reader = CamReader(cams)
    for item in dataset.items:
        classes, maps = reader(item)
        np.savez(foreign / f"{item.id}{CAM_ENDING}", classes=classes, maps=maps)
    assert run(tmp_path / "again", cam_dir=foreign) == 0
    ours, theirs = contents(tmp_path / "again"), contents(made)
    assert all(ours[name] == theirs[name] for name in theirs if name != MANIFEST)
    assert manifest_of(tmp_path / "again")["cams"] != manifest_of(made)["cams"]
    np.savez(
        foreign / f"{dataset.items[1].id}{CAM_ENDING}",
        classes=[1],
        maps=np.zeros((1, *dataset.native_size(1))),
    )
    with pytest.raises(ValueError, match="another origin: cams "):
        run(tmp_path / "again", cam_dir=foreign)


class TestFlags:
    def problems(self, root, *typed, **values):
        opts = options(root, **values)
        opts.typed = frozenset({*opts.typed, *typed})
        return list(check_pseudo_mask_flags(opts))

    def test_what_is_right_has_no_problem(self, root):
        assert self.problems(root, *MASK_FLAGS) == []
        assert self.problems(root, make_pseudo_masks=False) == []

    def test_a_network_is_not_read(self, root):
        (found,) = self.problems(root, "ckpt")
        assert "leave --ckpt out" in found
        (found,) = self.problems(root, "pseudo_threshold")
        assert "--pseudo_threshold is of probabilities" in found

    @pytest.mark.parametrize("name", MASK_FLAGS)
    def test_flags_of_the_making_need_it(self, root, name):
        (found,) = self.problems(root, name, make_pseudo_masks=False)
        assert found == f"--{name} is of the making: add --make_pseudo_masks"
