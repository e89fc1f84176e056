"""From the command line through both stages of the adaptation, on generated streets."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.streets import write_layout
from main import main

NETWORK = ("--model", "deeplabv3plus_mobilenet", "--aux_head", "--head_norm", "gn", "--use_se",
           "--pretrained_backbone", "none")  # fmt: skip
SMALL = ("--train_transform", "resize_crop", "--input_size", "80x160", "--scale_range", "0.8",
         "1.2", "--crop_size", "48x96", "--crop_classes", "3", "--flip", "0.5", "--batch_size", "2",
         "--num_workers", "0", "--total_itrs", "4", "--val_interval", "2", "--val_split", "none",
         "--print_interval", "1", "--class_balance", "--often_balance", "--max_value", "7",
         "--lambda_seg", "0.5")  # fmt: skip
PASSES = ("--eval_flip", "--eval_scales", "1.0", "1.25", "--fuse", "probs", "--upsample", "probs")


def run(*arguments):
    return main([str(argument) for argument in arguments])


def checkpoint(folder, name):
    return folder / "checkpoints" / f"latest_{name}.pth"


def stage_one(folder):
    return ("--method", "mrnet", *NETWORK, *SMALL, "--dataset", "gta5", "--data_root",
            folder / "gta5", "--target_dataset", "cityscapes", "--target_root",
            folder / "cityscapes", "--target_input_size", "64x128", "--only_hard_label", "80",
            "--lambda_kl_target", "0.1", "--mr_start", "1", "--ema", "0.9",
            "--run_name", "one")  # fmt: skip


def stage_two(folder):
    return ("--method", "rectified", *NETWORK, *SMALL, "--dataset", "cityscapes", "--data_root",
            folder / "cityscapes", "--init", checkpoint(folder, "one"), "--train_bn",
            "--output_dir", folder)  # fmt: skip


@pytest.fixture(scope="module")
def folder(new_folder):
    """A network after stage one, its pseudo labels, and the network after stage two.

    The target domain's training images have no labels at all.
    """
    folder = new_folder("adaptation")
    for layout in ("gta5", "cityscapes"):
        write_layout(layout, folder / layout, images_per_split=4, size=(64, 128))
    shutil.rmtree(folder / "cityscapes" / "gtFine" / "train")
    assert run(*stage_one(folder), "--output_dir", folder) == 0
    assert run("--make_pseudo_labels", "--ckpt", checkpoint(folder, "one"), "--dataset",
               "cityscapes", "--data_root", folder / "cityscapes", "--pseudo_dir",
               folder / "labels", *PASSES, "--num_workers", 0) == 0  # fmt: skip
    assert run(*stage_two(folder), "--pseudo_dir", folder / "labels", "--run_name", "two") == 0
    return folder


def test_stage_one_keeps_discriminators_balance_and_the_average(folder):
    content = torch.load(checkpoint(folder, "one"), weights_only=True)
    names = content["method_state"].keys()
    assert any(name.startswith("discriminators.main.") for name in names)
    assert "supervised_loss.balance.often_weights" in names
    assert content["optimizer_state"].keys() == {
        *("network", "discriminator_aux", "discriminator_main")
    }
    assert content["trained_state"].keys() == content["model_state"].keys()
    assert any(name.startswith("aux_classifier.") for name in content["model_state"])
    lines = [json.loads(line) for line in (folder / "runs/one/metrics.jsonl").open()]
    trained = [line for line in lines if line["kind"] == "train"]
    assert not any(line["kind"] == "val" for line in lines)
    assert "loss_agreement" not in trained[0]
    assert trained[1]["loss_agreement"] > 0
    assert {"loss_labels", "loss_adversarial_main", "lr_discriminator_aux"} <= trained[0].keys()


def test_pseudo_labels_are_classes_with_a_probability(folder):
    manifest = json.loads((folder / "labels/manifest.json").read_text())
    assert manifest["complete"]
    labels = sorted(
        path for path in (folder / "labels").rglob("*.png") if "_score" not in path.name
    )
    assert len(labels) == manifest["images"]
    label, score = (np.asarray(Image.open(p)) for p in (labels[0], labels[0].with_name(
        labels[0].name.replace(".png", "_score.png"))))  # fmt: skip
    assert label.shape == score.shape
    assert label.max() < 19
    assert score.min() > 255 / 20


def test_the_reliability_pass_judges_the_heads_disagreement(folder):
    for name in ("one", "two"):
        assert run("--test_only", "--ckpt", checkpoint(folder, name), "--dataset", "cityscapes",
                   "--data_root", folder / "cityscapes", "--val_split", "val", "--metrics",
                   "segmentation", "calibration", "misclassification", "--confidence", "msp",
                   "disagreement", "--scores", "disagreement", "--eval_size", "native",
                   "--output_dir", folder, "--num_workers", 0, "--run_name",
                   f"test_{name}") == 0  # fmt: skip
        total = json.loads((folder / f"results/test_{name}.json").read_text())["results"]["total"]
        scores = total["misclassification"]
        assert set(scores) == {"msp", "disagreement"}
        assert 0 <= scores["disagreement"]["auroc"] <= 100
        assert 0 <= total["calibration"]["ece"] <= 100
        assert (
            len(list((folder / "results" / f"test_{name}").rglob("*_000019_disagreement.png"))) == 4
        )


def test_an_interrupted_first_stage_goes_on_bit_for_bit(folder, tmp_path):
    common = (*stage_one(folder), "--output_dir", tmp_path)
    assert run(*common, "--stop_itrs", 2) == 0
    assert run(*common, "--continue_training") == 0
    whole, parts = (
        torch.load(checkpoint(where, "one"), weights_only=True) for where in (folder, tmp_path)
    )
    for key in ("model_state", "trained_state", "method_state"):
        assert whole[key].keys() == parts[key].keys()
        for name, value in whole[key].items():
            assert torch.equal(value, parts[key][name]), name
    for optimizer in whole["optimizer_state"]:
        mine, theirs = (c["optimizer_state"][optimizer]["state"] for c in (whole, parts))
        for index, state in mine.items():
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(value, theirs[index][name])


MISTAKES = {
    ("--pseudo_dir", "no_such_folder"): "no_such_folder",
    ("--pseudo_threshold", "1.5", "--pseudo_dir", "x"): "--pseudo_threshold",
    ("--init", "no.pth", "--pseudo_dir", "x"): "--init no.pth",
    ("--pseudo_dir", "x", "--input_size", "40x80"): "--crop_size",
    ("--head_norm", "bn"): "--head_norm gn",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_of_stage_two_is_one_sentence(folder, arguments, capsys, caplog):
    labels = () if "--pseudo_dir" in arguments else ("--pseudo_dir", folder / "labels")
    try:
        status = run(*stage_two(folder), "--run_name", "wrong", *labels, *arguments)
    except SystemExit as stopped:
        status = stopped.code
    assert status != 0
    said = capsys.readouterr().err + caplog.text
    assert MISTAKES[arguments] in said
    assert "Traceback" not in said


def test_pseudo_labels_of_other_images_are_refused(folder, caplog):
    assert run(*stage_two(folder), "--run_name", "wrong", "--dataset", "gta5", "--data_root",
               folder / "gta5", "--pseudo_dir", folder / "labels") == 1  # fmt: skip
    assert "cityscapes" in caplog.text


def test_a_pseudo_label_that_is_no_class_is_named(folder, tmp_path, caplog):
    damaged = tmp_path / "labels"
    shutil.copytree(folder / "labels", damaged)
    path = sorted(damaged.rglob("*[!e].png"))[0]
    Image.fromarray(np.full((64, 128), 19, np.uint8)).save(path)
    assert run(*stage_two(folder), "--run_name", "wrong", "--pseudo_dir", damaged) == 1
    assert path.name in caplog.text
    assert "19" in caplog.text


def test_a_network_with_one_head_has_no_disagreement(capsys):
    with pytest.raises(SystemExit):
        run("--test_only", "--external", "torch.nn:Identity", "--logits_dir", ".",
            "--confidence", "disagreement")  # fmt: skip
    assert capsys.readouterr().err.count("\n") == 1
