"""From the command line to results on unknown objects."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.streets import write_layout
from main import main

SMALL = ["--crop_size", "48x96", "--batch_size", "2", "--num_workers", "0", "--total_itrs", "2",
         "--val_interval", "2", "--scenes", "nordwick"]  # fmt: skip


def run(*arguments):
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(new_folder):
    """Two networks with cosine heads and learned temperatures, and statistics of the first."""
    folder = new_folder("abet")
    for seed in (1, 2):
        done = run(
            *("--head", "cosine", "--temperature", "learned", "--random_seed", seed),
            *("--run_name", f"net{seed}", "--output_dir", folder, *SMALL[:-2]),
            *("--loss_type", "relaxed_boundary", "--strict_bdr_cls", "5,6", "--rlx_off_epoch", 1),
            *("--lr_policy", "scl_poly", "--epoch_itrs", 1),
            *("--train_transform", "scale_crop", "--class_uniform_pct", 0.5),
        )
        assert done == 0
    assert run("--fit_score", "sml", "--ckpt", network(folder, 1), "--output_dir", folder,
               "--scenes", "altbruck", "--num_workers", 0, "--run_name", "net1") == 0  # fmt: skip
    return folder


def network(folder, seed):
    return folder / "checkpoints" / f"latest_net{seed}.pth"


def results(folder, *arguments):
    assert run("--test_only", "--output_dir", folder, "--num_workers", 0, "--overwrite",
               "--dataset", "streets_obstacles", "--eval_size", "crop", "--crop_size", "48x96",
               "--scenes", "nordwick", "--run_name", "test", *arguments) == 0  # fmt: skip
    return json.loads((folder / "results" / "test.json").read_text())["results"]["total"]


def test_a_run_is_named_after_its_head_and_logs_its_temperatures(folder):
    stored = torch.load(network(folder, 1), weights_only=True)
    assert stored["opts"]["head"] == "cosine"
    assert "classifier.temperature.conv.weight" in stored["model_state"]
    lines = [json.loads(line) for line in (folder / "runs/net1/metrics.jsonl").open()]
    trained = [line for line in lines if line["kind"] == "train"][-1]
    assert 0 < trained["temperature_min"] <= trained["temperature"] <= trained["temperature_max"]
    assert trained["temperature_max"] <= 1.001
    assert 0 <= trained["training_accuracy"] <= 1


def test_all_scores_are_judged_in_one_test(folder):
    names = ["abet", "energy", "msp", "entropy", "max_logit", "godin", "sml", "react+abet",
             "dice+abet", "odin+msp", "react+energy"]  # fmt: skip
    found = results(
        folder, "--ckpt", network(folder, 1), "--ood_score", ",".join(names),
        "--score_statistics", folder / "checkpoints/score_statistics_net1.pth",
    )  # fmt: skip
    assert list(found["ood"]) == list(found["components"])
    assert set(found["ood"]) == set(names)
    assert all(0 <= one["auroc"] <= 100 for one in found["ood"].values())
    assert found["ood"]["abet"]["auroc"] != found["ood"]["energy"]["auroc"]
    for name, one in found["components"].items():
        assert one["threshold"] < found["ood"][name]["f1_threshold"]


def test_the_papers_scale_changes_no_ranking(folder):
    argv = ("--ckpt", network(folder, 1), "--ood_score", "abet,msp,entropy,max_logit")
    plain = results(folder, *argv, "--metrics", "ood")["ood"]
    paper = results(folder, *argv, "--metrics", "ood", "--score_norm", "paper")["ood"]
    for name, one in plain.items():
        assert paper[name]["auroc"] == pytest.approx(one["auroc"], abs=1e-3)


def test_an_ensemble_of_one_is_its_network(folder):
    names = "abet,energy,msp,godin,max_logit@mean_logit,entropy@mean_score"
    alone = results(folder, "--ckpt", network(folder, 1), "--ood_score", names)
    joint = results(
        folder, "--model", "deep_ensemble", "--weight", network(folder, 1), "--ood_score", names
    )
    assert joint["ood"] == alone["ood"]
    assert joint["components"] == alone["components"]


def test_members_deviate_and_passes_can_be_members(folder):
    names = ("--ood_score", "abet,abet@deviation,mutual_information", "--metrics", "ood")
    weights = [part for seed in (1, 2) for part in ("--weight", network(folder, seed))]
    found = results(folder, "--model", "deep_ensemble", *weights, *names)["ood"]
    assert set(found) == {"abet", "abet@deviation", "mutual_information"}
    flipped = results(
        folder, "--ckpt", network(folder, 1), *names, "--eval_flip", "--fuse", "members"
    )["ood"]
    assert set(flipped) == set(found)


def test_maps_of_scores_are_written_for_any_image(folder, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (48, 96, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "photo.png")
    names = ["abet", "godin", "react+abet", "odin+msp"]
    statistics = folder / "checkpoints" / "score_statistics_net1.pth"
    assert run("--predict", tmp_path / "photo.png", "--ckpt", network(folder, 1), "--ood_score",
               ",".join(names), "--score_statistics", statistics, "--num_workers", 0,
               "--output_dir", tmp_path) == 0  # fmt: skip
    (written,) = (tmp_path / "predictions").iterdir()
    for name in names:
        assert (written / f"photo_{name}.png").is_file()
    with np.load(written / "photo_scores.npz") as maps:
        assert maps["abet"].shape == (48, 96)
        assert np.isfinite(maps["abet"]).all()
        assert 0 < maps["godin"].min() <= maps["godin"].max() <= 1.001


def test_a_typed_threshold_needs_no_ranking_before(folder):
    network_1 = ("--ckpt", network(folder, 1), "--ood_score", "msp")
    ranked = results(folder, *network_1, "--metrics", "ood", "components")
    threshold = ranked["components"]["msp"]["threshold"]
    alone = results(folder, *network_1, "--metrics", "components", "--ood_threshold", threshold)
    assert alone["components"] == ranked["components"]


def test_images_without_class_labels_meet_any_network(folder, tmp_path):
    write_layout("road_anomaly", tmp_path, images_per_split=2, size=(48, 96))
    assert run("--test_only", "--ckpt", network(folder, 1), "--dataset", "road_anomaly",
               "--data_root", tmp_path, "--output_dir", tmp_path, "--run_name", "anomaly",
               "--num_workers", 0) == 0  # fmt: skip
    content = json.loads((tmp_path / "results/anomaly.json").read_text())
    assert set(content["results"]["total"]) == {"ood", "components"}
    assert len(content["classes"]) == 19


MISTAKES = {
    ("--ood_score", "abt"): "did you mean abet",
    ("--ood_score", "sml"): "--fit_score sml",
    ("--ood_score", "mutual_information"): "compares members",
    ("--ood_score", "abet@mean_prob"): "choose a rule from mean_score",
    ("--ood_score", "energy", "--score_norm", "paper"): "has no published scale",
    ("--ood_score", "abet", "--metrics", "segmentation"): "the metrics ood, components",
    ("--ood_score", "abet,msp", "--ood_threshold", "1", "2", "3"): "3 values for 2 scores",
    ("--ood_threshold", "1", "--metrics", "ood"): "concerns the metric components",
    ("--ood_score", "abet", "--eval_flip"): "add --fuse logits or --fuse members",
    ("--confidence", "energy", "--eval_scales", "1", "1.25"): "add --fuse logits",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_sentence(folder, capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        run("--test_only", "--ckpt", network(folder, 1), "--dataset", "streets_obstacles",
            *arguments)  # fmt: skip
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert MISTAKES[arguments] in said
    assert said.count("\n") == 1


TRAINING_MISTAKES = {
    ("--lr_policy", "scl_poly"): "add --rlx_off_epoch N",
    ("--epochs", "2", "--total_itrs", "5"): "give one",
    ("--class_uniform_pct", "0.5"): "add --train_transform scale_crop",
    ("--class_uniform_tile", "64"): "add --class_uniform_pct",
    ("--wt_bound", "3"): "goes with --loss_type image_weighted_cross_entropy or relaxed_boundary",
    ("--strict_bdr_cls", "a"): "write 5,6,7",
    ("--temperature", "learnt"): "none",
    ("--dataset", "road_anomaly", "--data_root", "."): "has no class labels to train on",
}


@pytest.mark.parametrize("arguments", TRAINING_MISTAKES)
def test_a_mistake_in_training_is_one_sentence(capsys, arguments):
    with pytest.raises(SystemExit):
        run(*arguments)
    assert TRAINING_MISTAKES[arguments] in capsys.readouterr().err


def test_statistics_of_another_network_are_refused(folder, caplog):
    statistics = folder / "checkpoints/score_statistics_net1.pth"
    assert run("--test_only", "--ckpt", network(folder, 2), "--dataset", "streets_obstacles",
               "--ood_score", "sml", "--output_dir", folder, "--run_name", "other",
               "--score_statistics", statistics) == 1  # fmt: skip
    assert "holds statistics of another network" in caplog.text


def test_a_head_that_does_not_fit_is_named_with_the_flags_that_do(folder, caplog):
    state = torch.load(network(folder, 1), weights_only=True)["model_state"]
    bare = folder / "bare.pth"
    torch.save(state, bare)
    argv = ("--ckpt", bare, "--output_dir", folder, *SMALL[:-2])
    assert run(*argv, "--run_name", "plain") == 1
    assert "--head cosine --temperature learned" in caplog.text
    assert "--reset_head" in caplog.text
    assert run(*argv, "--run_name", "reset", "--reset_head") == 0
