"""Instance uncertainty as its user runs it: masks and training on them, online ensembles, maps."""

import json
import shutil
import signal

import cv2
import numpy as np
import pytest

from engine import checkpoint
from main import main
from tests.small_runs import (
    SIZE,
    assert_same,
    flags,
    killed_while_saving,
    run,
    weights,
    write_data,
)
from uncertainty import SCORES
from utils.log import read_metrics
from utils.types import HEADS

WITHOUT_EXTRAS = [
    name for name, score in SCORES.items() if not score.needs & {"temperature", *HEADS}
]
SINGLE = "deeplabv3plus_mobilenet_camvid_os16_seed1"
JOINT = "ensemble_camvid_os16_seed1_uncertainty_cross_entropy-mobilenet"
PAIR = {"model": "ensemble", "num_models": 2, "backbone": "mobilenet"}


@pytest.fixture(scope="module")
def data(new_folder):
    return write_data(new_folder("camvid"))


@pytest.fixture(scope="module")
def single(data, new_folder):
    """A network trained by cross entropy."""
    out = new_folder("single")
    assert main(flags(data, out, total_itrs=3)) == 0
    return out / "checkpoints" / f"best_{SINGLE}.pth"


@pytest.fixture(scope="module")
def joint(data, new_folder):
    """An ensemble of two, trained online."""
    out = new_folder("joint")
    assert main(flags(data, out, **PAIR)) == 0
    return out


def deep_ensemble(data, out, single, **more):
    return flags(data, out, model=["deep_ensemble", "--weight", single, "--weight", single], **more)


def test_masks_then_training_that_reads_them(data, single, tmp_path, caplog):
    masks = tmp_path / "masks"
    trains = flags(
        data, tmp_path, loss_type="uncertainty_cross_entropy", mask_dir=masks, total_itrs=3
    )
    assert main(trains) == 1
    assert "--make_uncertainty_masks" in caplog.text, "the error names the command to run"
    assert (
        main(deep_ensemble(data, tmp_path, single, mask_dir=masks, make_uncertainty_masks=True))
        == 0
    )
    assert len(list(masks.glob("*.png"))) == 6
    assert main(trains) == 0
    trained = tmp_path / "checkpoints" / f"latest_{SINGLE}_uncertainty_cross_entropy.pth"
    baseline = single.with_name(f"latest_{SINGLE}.pth")
    assert not np.allclose(
        weights(trained)["classifier.classifier.3.bias"],
        weights(baseline)["classifier.classifier.3.bias"],
        atol=1e-7,
    )


def test_masks_of_zeros_are_cross_entropy_over_all_pixels(data, single, tmp_path):
    """(1 + 0)^2 = 1: the same steps as --loss_normalize all, to the last bit."""
    masks = tmp_path / "masks"
    masks.mkdir()
    for image in (data / "train").glob("*.png"):
        np.save(masks / f"{image.stem}_uncertainty_mask.npy", np.zeros(SIZE, np.float32))
    argv = {"total_itrs": 2, "val_interval": 2}
    assert (
        main(flags(data, tmp_path, loss_type="uncertainty_cross_entropy", mask_dir=masks, **argv))
        == 0
    )
    assert main(flags(data, tmp_path, loss_normalize="all", **argv)) == 0
    folder = tmp_path / "checkpoints"
    weighted = weights(folder / f"latest_{SINGLE}_uncertainty_cross_entropy.pth")
    assert_same(weighted, weights(folder / f"latest_{SINGLE}.pth"))


def test_an_ensemble_leaves_one_family_of_checkpoints(joint):
    folder = joint / "checkpoints"
    names = {path.name for path in folder.iterdir()}
    member = f"best_{SINGLE}_ensemble-uncertainty_cross_entropy"
    assert names == {
        f"best_{JOINT}.pth",
        f"latest_{JOINT}.pth",
        f"{member}-1.pth",
        f"{member}-2.pth",
    }
    latest = checkpoint.read(folder / f"latest_{JOINT}.pth")
    assert set(latest["member_scores"]) == {f"deeplabv3plus_mobilenet-{n}" for n in (1, 2)}
    assert {key.split(".")[1] for key in latest["model_state"]} == {"0", "1"}


def test_the_log_has_every_loss_rate_and_score(joint):
    records = read_metrics(joint / "runs" / JOINT / "metrics.jsonl")
    train = [record for record in records if record["kind"] == "train"]
    members = ["deeplabv3plus_mobilenet-1", "deeplabv3plus_mobilenet-2"]
    for name in members:
        assert {f"loss_{name}", f"lr_{name}"} <= train[0].keys()
    assert 0 < train[0]["uncertainty"] < np.log(11)
    assert train[0]["loss"] == pytest.approx(sum(train[0][f"loss_{name}"] for name in members))
    validation = [record for record in records if record["kind"] == "val"]
    assert {f"{name}/miou" for name in members} | {"miou"} <= validation[0].keys()


def test_an_ensemble_killed_while_saving_continues_bit_for_bit(data, joint, tmp_path):
    """The fifth file is the first of the second validation, after two members, best and latest."""
    process = run(flags(data, tmp_path, **PAIR), prefix=["-c", killed_while_saving(5)])
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    latest = tmp_path / "checkpoints" / f"latest_{JOINT}.pth"
    assert checkpoint.read(latest)["cur_itrs"] == 3
    more = ["--continue_training", "--ckpt", str(latest), "--data_root", str(data)]
    assert main([*more, "--output_dir", str(tmp_path), "--num_workers", "1"]) == 0
    written = sorted(path.name for path in (joint / "checkpoints").iterdir())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == written
    for name in written:
        assert_same(weights(joint / "checkpoints" / name), weights(tmp_path / "checkpoints" / name))


def test_testing_an_ensemble_scores_every_member(data, joint, capsys):
    argv = [
        "--test_only", "--ckpt", joint / "checkpoints" / f"best_{JOINT}.pth", "--data_root", data,
        "--output_dir", joint, "--num_workers", 0, "--save_val_results",
        "--scores", "entropy", "instance", "mutual_information",
    ]  # fmt: skip
    assert main(list(map(str, argv))) == 0
    assert "IoU mobilenet-1" in capsys.readouterr().out
    (path,) = (joint / "results").glob("*.json")
    result = json.loads(path.read_text())
    assert list(result["results"]["member"]) == [f"deeplabv3plus_mobilenet-{n}" for n in (1, 2)]
    assert result["checkpoint"]["opts"]["model"] == "ensemble"
    folder = path.with_suffix("")
    maps = np.load(folder / "0016E5_f00000_scores.npz")
    assert set(maps) == {"entropy", "instance", "mutual_information"}
    assert maps["instance"].mean() == pytest.approx(maps["entropy"].mean(), rel=1e-5)
    with np.load(path.with_suffix(".images.npz")) as counts:
        correct = 100 * counts["hits"].sum() / counts["in_label"].sum()
    assert correct == pytest.approx(result["results"]["total"]["overall_accuracy"])


def test_two_processes_train_an_ensemble_and_score_it_as_one(data, joint, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "main.py"]
    process = run(flags(data, tmp_path, **PAIR, batch_size=4, total_itrs=2), prefix=torchrun)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert checkpoint.read(tmp_path / "checkpoints" / f"latest_{JOINT}.pth")["cur_itrs"] == 2
    best = joint / "checkpoints" / f"best_{JOINT}.pth"
    argv = ["--test_only", "--ckpt", best, "--data_root", data, "--num_workers", 0]
    argv = [str(word) for word in (*argv, "--output_dir", tmp_path, "--run_name")]
    process = run([*argv, "two"], prefix=torchrun)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert main([*argv, "one"]) == 0
    folder = tmp_path / "results"
    one, two = (json.loads((folder / f"{name}.json").read_text()) for name in ("one", "two"))
    assert one["results"] == two["results"]
    with np.load(folder / "one.images.npz") as first, np.load(folder / "two.images.npz") as second:
        assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_member_of_an_ensemble_is_a_network_like_any(data, joint, capsys):
    (member,) = (joint / "checkpoints").glob("best_deeplab*-1.pth")
    argv = ["--test_only", "--ckpt", member, "--data_root", data, "--output_dir", joint,
            "--num_workers", 0, "--run_name", "member"]  # fmt: skip
    assert main(list(map(str, argv))) == 0
    result = json.loads((joint / "results" / "member.json").read_text())
    scores = checkpoint.read(member)
    assert result["results"]["total"]["miou"] == pytest.approx(scores["best_score"])
    assert result["opts"]["model"] == "deeplabv3plus_mobilenet"


def test_a_deep_ensemble_of_one_network_twice_scores_as_that_network(data, single, tmp_path):
    alone = ["--test_only", "--ckpt", single, "--data_root", data, "--output_dir", tmp_path,
             "--num_workers", 0, "--run_name", "alone"]  # fmt: skip
    assert main(list(map(str, alone))) == 0
    assert main(deep_ensemble(data, tmp_path, single, test_only=True, run_name="twice")) == 0
    results = [
        json.loads((tmp_path / "results" / f"{name}.json").read_text())
        for name in ("alone", "twice")
    ]
    assert results[0]["results"]["total"] == results[1]["results"]["total"]
    members = results[1]["checkpoint"]["members"]
    assert [member["path"] for member in members] == [str(single)] * 2


def test_dropout_samples_make_an_ensemble_of_a_single_network(data, single, tmp_path):
    argv = ["--predict", data / "val", "--ckpt", single, "--output_dir", tmp_path, "--num_workers",
            0, "--mc_samples", 3, "--scores", *WITHOUT_EXTRAS]  # fmt: skip
    assert main(list(map(str, argv))) == 0
    folder = tmp_path / "predictions" / single.stem
    maps = np.load(folder / "0016E5_f00002_scores.npz")
    assert set(maps) == set(WITHOUT_EXTRAS)
    assert maps["mutual_information"].min() >= 0
    assert maps["mutual_information"].max() > 0
    assert cv2.imread(str(folder / "0016E5_f00002_uncertainty.png")).shape[2] == 3


def test_uce_trains_with_dropout_passes(data, tmp_path):
    argv = {"loss_type": "uce", "alpha": 2, "dropout": 0.2, "mc_samples": 2, "total_itrs": 1}
    assert main(flags(data, tmp_path, **argv)) == 0
    (path,) = (tmp_path / "checkpoints").glob("latest_*uce-alpha2*.pth")
    assert checkpoint.read(path)["cur_itrs"] == 1


def test_the_first_member_of_a_baseline_ensemble_is_the_single_network(data, single, tmp_path):
    """The same seed draws its weights, batches and dropout: members do not touch each other."""
    argv = {**PAIR, "loss_type": "cross_entropy", "total_itrs": 3}
    assert main(flags(data, tmp_path, **argv)) == 0
    (member,) = (tmp_path / "checkpoints").glob(f"best_{SINGLE}_ensemble-1.pth")
    assert_same(weights(member), weights(single))


def test_an_ensemble_is_fine_tuned_on_other_classes(data, joint, tmp_path):
    """--reset_head gives every member a new last layer; without it the error says so."""
    other = tmp_path / "three"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (other / kind / split).mkdir(parents=True)
        for path in sorted((data / split).glob("*.png")):
            shutil.copy(path, other / "images" / split)
            label = cv2.imread(str(data / f"{split}annot" / path.name), -1)
            cv2.imwrite(str(other / "labels" / split / path.name), label % 3)
    (other / "classes.json").write_text('["a", "b", "c"]')
    best = joint / "checkpoints" / f"best_{JOINT}.pth"
    argv = flags(other, tmp_path, **PAIR, dataset="folder", ckpt=best, total_itrs=1, run_name="x")
    assert main(argv) == 1
    assert main([*argv, "--reset_head"]) == 0
    tuned = weights(tmp_path / "checkpoints" / "latest_x.pth")
    assert {len(tuned[f"members.{n}.classifier.classifier.3.bias"]) for n in (0, 1)} == {3}
