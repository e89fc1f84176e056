"""Flags that do not go together, told before anything is read or built."""

import pytest
import torch

from engine.checkpoint import plain
from options import parse

MISTAKES = {
    ("--ood_score", "godin"): "--temperature learned, or take a score without",
    ("--ood_score", "abet,dice+godin"): "--temperature learned, or take a score without",
    ("--ood_score", "sml"): "make them with --fit_score",
    ("--scores", "godin"): "--scores godin reads the learned temperature",
    ("--ood_score", "godin", "--temperature", "learned"): "contradicts",
}


@pytest.fixture
def without_temperature(tmp_path):
    opts = parse(["--dataset", "streets", "--head", "cosine"])
    path = tmp_path / "best_cosine.pth"
    content = {"opts": plain(opts), "model_state": {"w": torch.ones(1)}, "cur_itrs": 4}
    torch.save(content, path)
    return path


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as stopped:
        parse(list(map(str, argv)))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("arguments", MISTAKES)
def test_scores_that_the_network_cannot_have(without_temperature, capsys, arguments):
    argv = ("--test_only", "--dataset", "streets_obstacles", "--ckpt", without_temperature)
    assert MISTAKES[arguments] in refused(capsys, *argv, *arguments)


def test_passes_give_a_score_of_members_their_members(without_temperature, capsys):
    argv = ["--test_only", "--dataset", "streets_obstacles", "--ckpt", str(without_temperature)]
    argv += ["--ood_score", "mutual_information"]
    assert "compares members" in refused(capsys, *argv, "--eval_flip", "--fuse", "logits")
    assert "compares members" in refused(capsys, *argv, "--fuse", "members")
    for passes in (("--eval_flip",), ("--eval_scales", "1", "0.5")):
        assert parse([*argv, "--fuse", "members", *passes]).fuse == "members"


@pytest.mark.parametrize("score", ["energy", "max_logit", "mutual_information", "odin+msp"])
def test_a_crf_leaves_probabilities_alone(without_temperature, capsys, score):
    argv = ("--test_only", "--dataset", "streets_obstacles", "--ckpt", without_temperature)
    said = refused(capsys, *argv, "--eval_crf", "--ood_score", score)
    assert "reads more than probabilities, and --eval_crf leaves these alone" in said
    assert parse([*map(str, argv), "--eval_crf", "--ood_score", "msp"]).eval_crf


def test_an_online_ensemble_is_not_validated_by_a_crf(capsys):
    said = refused(capsys, "--method", "ensemble", "--model", "ensemble", "--backbone",
                   "deeplabv3plus_mobilenet", "--num_models", "2", "--eval_crf")  # fmt: skip
    assert "--eval_crf leaves no members" in said


def test_threads_of_crfs_go_with_both_that_have_them(tmp_path, capsys):
    data = ["--dataset", "camvid", "--data_root", str(tmp_path)]
    masks = parse(["--make_pseudo_masks", *data, "--crf_workers", "2"])
    assert masks.crf_workers == 2
    said = refused(capsys, *data, "--crf_workers", "2")
    assert "--crf_workers is of --make_response_weights and --make_pseudo_masks" in said


@pytest.mark.parametrize("size", ["0", "-5", "0x40", "40x0"])
def test_a_crop_has_pixels(capsys, size):
    assert "is not a size; write 768 for a square" in refused(capsys, "--crop_size", size)


def test_two_sizes_of_evaluation_contradict_each_other(capsys):
    said = refused(capsys, "--eval_centre", "40x40", "--eval_size", "crop")
    assert "--eval_centre and --eval_size crop both say which size images have" in said
