"""Flags that a checkpoint brings along, and flags that contradict it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoint import plain
from engine.restore import stored_flags
from network import build_model
from options import parse


@pytest.fixture
def own(tmp_path):
    """A checkpoint of this program, trained on CamVid with a separable head."""
    opts = parse(
        [
            "--dataset",
            "camvid",
            "--data_root",
            str(tmp_path),
            "--separable_conv",
            "--lr",
            "0.5",
            "--crop_val",
            "--crop_size",
            "64x96",
            "--print_interval",
            "3",
            "--flip",
            "0.25",
        ]
    )
    path = tmp_path / "latest_x.pth"
    torch.save({"opts": plain(opts), "model_state": {"w": torch.ones(1)}, "cur_itrs": 4}, path)
    return path


def published(folder: Path, separable=False) -> Path:
    network = build_model("deeplabv3plus_mobilenet", 19, separable_conv=separable)
    path = folder / "best_deeplabv3plus_mobilenet_cityscapes_os16_seed12.pth"
    torch.save({"model_state": network.state_dict(), "best_score": np.float64(0.5)}, path)
    return path


def refused(capsys, *argv):
    with pytest.raises(SystemExit):
        parse(list(map(str, argv)))
    return capsys.readouterr().err


def test_testing_takes_over_network_and_data(own, tmp_path):
    opts = parse(["--test_only", "--ckpt", str(own)])
    assert (opts.dataset, opts.data_root, opts.separable_conv) == ("camvid", tmp_path, True)
    assert (opts.crop_size, opts.eval_size) == ((64, 96), "crop")
    assert opts.lr != 0.5


def test_another_data_set_brings_its_own_flags(own):
    opts = parse(["--test_only", "--ckpt", str(own), "--dataset", "streets"])
    assert opts.separable_conv
    assert opts.data_root is None
    assert opts.crop_size != (64, 96)


def test_continuing_takes_over_every_flag(own):
    opts = parse(["--continue_training", "--ckpt", str(own), "--num_workers", "0"])
    assert (opts.lr, opts.flip, opts.print_interval, opts.num_workers) == (0.5, 0.25, 3, 0)
    assert opts.continue_training
    assert opts.ckpt == own


def test_a_contradiction_is_refused(own, capsys):
    message = refused(capsys, "--continue_training", "--ckpt", own, "--lr", "0.1")
    assert "--lr 0.1 contradicts" in message
    assert "--lr 0.5" in message
    message = refused(capsys, "--test_only", "--ckpt", own, "--model", "deeplabv3_resnet50")
    assert "--model deeplabv3_resnet50 contradicts" in message


def test_starting_from_weights_takes_over_nothing(own):
    opts = parse(["--ckpt", str(own)])
    assert (opts.dataset, opts.separable_conv) == ("streets", False)


@pytest.mark.parametrize("separable", [False, True])
def test_a_published_file_is_known_by_its_name_and_keys(tmp_path, separable):
    assert stored_flags(published(tmp_path, separable)) == {
        "model": "deeplabv3plus_mobilenet",
        "dataset": "cityscapes",
        "output_stride": 16,
        "separable_conv": separable,
    }


def test_an_unknown_name_tells_nothing(tmp_path):
    path = tmp_path / "best.pth"
    torch.save({"w": torch.ones(1)}, path)
    assert stored_flags(path) == {}


def test_a_file_that_is_no_checkpoint_is_refused_at_once(tmp_path, capsys):
    path = tmp_path / "notes.pth"
    path.write_text("hello")
    message = refused(capsys, "--test_only", "--ckpt", path)
    assert "notes.pth (5 bytes) is truncated or not a checkpoint" in message


@pytest.fixture
def tempered(tmp_path):
    """A checkpoint of this program with AbeT's heads, evaluated at the middle of its images."""
    heads = ["--head", "cosine", "--temperature", "learned", "--temperature_floor", "0.01"]
    data = ["--dataset", "camvid", "--data_root", str(tmp_path), "--eval_centre", "48x64"]
    sampling = ["--train_transform", "scale_crop", "--class_uniform_pct", "0.5", "--epochs", "3"]
    schedule = ["--lr_policy", "scl_poly", "--rlx_off_epoch", "1"]
    opts = parse([*heads, *data, *sampling, *schedule])
    opts.epoch_itrs, opts.total_itrs = 4, 12  # as a run fills them in
    path = tmp_path / "latest_abet.pth"
    torch.save({"opts": plain(opts), "model_state": {"w": torch.ones(1)}, "cur_itrs": 4}, path)
    return path


@pytest.mark.parametrize("more", [(), ("--dataset", "streets_obstacles")])
def test_heads_come_with_the_network_whatever_the_images(tempered, more):
    opts = parse(["--test_only", "--ckpt", str(tempered), *more])
    assert (opts.head, opts.temperature, opts.temperature_floor) == ("cosine", "learned", 0.01)
    assert opts.eval_centre == (None if more else (48, 64))
    assert (opts.class_uniform_pct, opts.lr_policy) == (0, "poly")


@pytest.mark.parametrize(
    ("flag", "typed", "stored"),
    [
        ("head", "linear", "cosine"),
        ("temperature", "none", "learned"),
        ("temperature_floor", "0.001", "0.01"),
    ],
)
def test_another_head_than_that_of_the_file_is_refused(tempered, capsys, flag, typed, stored):
    message = refused(capsys, "--test_only", "--ckpt", tempered, f"--{flag}", typed)
    assert f"--{flag} {typed} contradicts {tempered}" in message
    assert f"trained with --{flag} {stored}: leave the flag out" in message


def test_continuing_takes_over_sampling_schedule_and_epochs(tempered):
    opts = parse(["--continue_training", "--ckpt", str(tempered)])
    assert (opts.epochs, opts.epoch_itrs, opts.total_itrs) == (3, 4, 12)
    assert (opts.lr_policy, opts.rlx_off_epoch, opts.class_uniform_pct) == ("scl_poly", 1, 0.5)


@pytest.mark.parametrize("size", ["native", "crop"])
def test_a_typed_size_undoes_the_middle_of_the_training(tmp_path, size):
    path = tmp_path / "latest.pth"
    opts = parse(["--dataset", "streets", "--eval_centre", "40x64"])
    torch.save({"opts": plain(opts), "model_state": {"w": torch.ones(1)}, "cur_itrs": 4}, path)
    assert parse(["--test_only", "--ckpt", str(path)]).eval_centre == (40, 64)
    found = parse(["--test_only", "--ckpt", str(path), "--eval_size", size])
    assert (found.eval_centre, found.eval_size) == (None, size)
