"""From the command line to results of networks with two heads."""

import json
from contextlib import suppress

import pytest
import torch

from datasets.streets import write_layout
from datasets.taxonomy import ROAD
from engine.checkpoint import network_content
from main import main
from methods.supervised import Supervised
from options import parse
from tests.small_runs import write_data

NETWORK = ["--pretrained_backbone", "none", "--crop_size", "48x96"]


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(new_folder):
    """Networks with two heads and with one; ``synthia`` is the first as if of other images."""
    folder = new_folder("heads")
    write_layout("cityscapes", folder / "data", images_per_split=3, size=(96, 192))
    (folder / "checkpoints").mkdir()
    for name, dataset, more in (
        ("two", "cityscapes", ["--aux_head"]),
        ("one", "cityscapes", []),
        ("synthia", "synthia", ["--aux_head"]),
    ):
        opts = parse(["--dataset", dataset, "--data_root", str(folder / "data"), *NETWORK, *more])
        torch.manual_seed(0)
        method = Supervised(opts, len(ROAD))
        content = network_content(method.deployable(), 0, opts, ROAD)
        torch.save(content, network(folder, name))
    return folder


def network(folder, name):
    return folder / "checkpoints" / f"latest_{name}.pth"


def of_a_test(folder, *arguments):
    """A test on three small images."""
    data = ("--dataset", "cityscapes", "--data_root", folder / "data", "--num_workers", 0)
    size = ("--eval_size", "crop", "--crop_size", "48x96")
    return ("--test_only", "--output_dir", folder, "--overwrite", *data, *size, *arguments)


def contents(folder, *arguments):
    assert run(*of_a_test(folder, "--run_name", "test", *arguments)) == 0
    return json.loads((folder / "results" / "test.json").read_text())


def total(folder, name, *arguments):
    return contents(folder, "--ckpt", network(folder, name), *arguments)["results"]["total"]


RELIABILITY = ("--metrics", "segmentation", "calibration", "misclassification", "pavpu",
               "--confidence", "msp,disagreement")  # fmt: skip


def test_reliability_of_two_heads_with_their_disagreement(folder):
    found = total(folder, "two", *RELIABILITY, "--eval_flip", "--scores", "disagreement")
    assert set(found["misclassification"]) >= {"msp", "disagreement"}
    assert found["calibration"]["pixels"] == found["pixels"] > 0
    assert list((folder / "results" / "test").glob("**/*disagreement*"))


def test_how_heads_are_fused_changes_the_result(folder):
    metrics = ("--metrics", "segmentation", "calibration")
    settings = {
        "logits": (),
        "probs": ("--fuse_heads", "probs"),
        "main": ("--fuse_heads", "main"),
        "aux": ("--fuse_heads", "aux"),
        "upsampled": ("--upsample", "probs"),
        "weight 0": ("--fuse_weight_aux", "0"),
    }
    nll = {
        name: total(folder, "two", *metrics, *more)["calibration"]["nll"]
        for name, more in settings.items()
    }
    assert nll["weight 0"] == nll.pop("main")
    assert len(set(nll.values())) == len(nll)


def test_one_head_is_what_it_was_however_heads_are_fused(folder):
    metrics = ("--metrics", "segmentation", "calibration", "--per_scene")
    plain = total(folder, "one", *metrics)
    for more in (("--fuse_heads", "probs"), ("--fuse_heads", "aux", "--fuse_weight_aux", "3")):
        assert total(folder, "one", *metrics, *more) == plain


def test_members_with_two_heads_agree_with_the_single_network(folder):
    weight = ("--weight", network(folder, "two"))
    joint = contents(folder, "--model", "deep_ensemble", *weight, *RELIABILITY)
    joint = joint["results"]["total"]
    alone = total(folder, "two", *RELIABILITY)
    for metric in ("miou", "overall_accuracy"):
        assert joint[metric] == pytest.approx(alone[metric], abs=1e-3)
    for score in ("msp", "disagreement"):
        ours, theirs = (each["misclassification"][score] for each in (joint, alone))
        assert ours["auroc"] == pytest.approx(theirs["auroc"], abs=0.01)


def test_members_with_and_without_second_heads_do_not_mix(folder, capsys):
    weights = [part for name in ("two", "one") for part in ("--weight", network(folder, name))]
    arguments = ("--model", "deep_ensemble", *weights)
    assert refused(folder, capsys, *arguments).endswith(
        "join members with --aux_head, or members without"
    )


def test_a_calibrator_is_fitted_on_fused_heads_and_reads_the_same(folder, capsys):
    assert run("--fit_calibrator", "temperature", "--ckpt", network(folder, "two"),
               "--output_dir", folder, "--num_workers", 0, "--run_name", "cooled", "--dataset",
               "cityscapes", "--data_root", folder / "data", "--val_split", "train",
               "--samples_per_image", 200,
               "--eval_size", "crop", "--crop_size", "48x96") == 0  # fmt: skip
    path = folder / "checkpoints" / "calibrator_cooled.pth"
    metrics = ("--metrics", "segmentation", "calibration", "misclassification",
               "--confidence", "disagreement")  # fmt: skip
    before = total(folder, "two", *metrics)
    after = total(folder, "two", *metrics, "--calibrator", path)
    assert after["calibration"]["nll"] != before["calibration"]["nll"]
    assert after["misclassification"] == before["misclassification"], "heads stay as they are"
    message = refused(
        folder, capsys, "--ckpt", network(folder, "two"), "--calibrator", path, "--upsample",
        "probs",
    )  # fmt: skip
    assert "was fitted on logits and this network gives log probabilities" in message


def refused(folder, capsys, *arguments):
    """The one sentence of a test that is refused."""
    with suppress(SystemExit):  # of flags that do not parse
        assert run(*of_a_test(folder, *arguments)) != 0
    return capsys.readouterr().err.splitlines()[-1]


MISTAKES = {
    ("one", "--confidence", "disagreement"): "with --aux_head",
    ("one", "--scores", "msp,odin+disagreement"): "compares the two heads of a network",
    ("two", "--confidence", "energy", "--upsample", "probs"): "leave --upsample out",
    ("two", "--confidence", "disagreement@mean_score"): "compares the heads itself",
    ("two", "--confidence", "disagreement", "--score_norm", "paper"): "has no published scale",
    ("two", "--fuse_heads", "mean"): "invalid choice: 'mean'",
    ("two", "--fuse_weight_aux", "-1"): "--fuse_weight_aux",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_sentence(folder, capsys, arguments):
    name, *more = arguments
    said = refused(folder, capsys, "--ckpt", network(folder, name), *more)
    assert MISTAKES[arguments] in said


def test_means_over_the_classes_of_synthia_come_with_a_network_trained_on_it(folder, capsys):
    content = contents(folder, "--ckpt", network(folder, "synthia"))
    found = content["results"]["total"]
    ious = list(found["class_iou"].values())
    for name, left_out in (("miou_16", {9, 14, 16}), ("miou_13", {3, 4, 5, 9, 14, 16})):
        known = [iou for index, iou in enumerate(ious) if iou is not None and index not in left_out]
        assert found[name] == pytest.approx(sum(known) / len(known))
        assert content["units"][name] == "percent"
    assert "mIoU of 13 classes" in capsys.readouterr().out
    assert "miou_16" not in total(folder, "two")
    assert {"miou_16"} == {
        name
        for name in total(folder, "two", "--miou_subsets", "synthia16")
        if name.startswith("miou_")
    }
    assert "miou_16" not in total(folder, "synthia", "--miou_subsets")


def test_classes_that_synthia_lacks_can_be_void(folder):
    plain = total(folder, "two", "--metrics", "segmentation", "calibration")
    without = total(folder, "two", "--metrics", "segmentation", "calibration", "--ignore_unshared")
    assert 0 < without["pixels"] < plain["pixels"]
    assert without["calibration"]["pixels"] == without["pixels"]
    for name in ("terrain", "truck", "train"):
        assert without["class_accuracy"][name] is None
    assert any(plain["class_accuracy"][name] is not None for name in ("terrain", "truck", "train"))


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (["--ignore_unshared"], "--ignore_unshared concerns the 19 road classes"),
        (["--miou_subsets", "synthia13"], "are of the 19 road classes, which the network or"),
    ],
)
def test_road_classes_alone_have_subsets(folder, capsys, tmp_path, flag, message):
    data = ("--dataset", "camvid", "--data_root", write_data(tmp_path), "--num_workers", 0)
    where = ("--output_dir", tmp_path, "--ckpt", network(folder, "two"))
    assert run("--test_only", *data, *where, *flag) != 0
    assert message in capsys.readouterr().err
