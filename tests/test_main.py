"""The program as its user runs it: train, continue, test, predict, check, and everything wrong."""

import json
import os
import re
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

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
from tests.utils.locking import another_run
from utils.log import read_metrics

ROOT = Path(__file__).parents[1]
NAME = "deeplabv3plus_mobilenet_camvid_os16_seed1"


@pytest.fixture(scope="module")
def data(new_folder):
    return write_data(new_folder("camvid"))


@pytest.fixture(scope="module")
def trained(data, new_folder):
    out = new_folder("out")
    assert main(flags(data, out)) == 0
    return out


def best(out):
    return out / "checkpoints" / f"best_{NAME}.pth"


def latest(out):
    return out / "checkpoints" / f"latest_{NAME}.pth"


def test_training_leaves_checkpoints_logs_and_curves(trained):
    run = trained / "runs" / NAME
    assert checkpoint.read(latest(trained))["cur_itrs"] == 6
    assert checkpoint.read(best(trained))["classes"][3] == "road"
    opts = json.loads((run / "opts.json").read_text())
    assert opts["opts"]["lr"] == 1e-3
    assert torch.__version__.startswith(opts["versions"]["torch"])
    steps = [r["step"] for r in read_metrics(run / "metrics.jsonl") if r["kind"] == "val"]
    assert steps == [3, 6]
    assert cv2.imread(str(run / "curves.png")).shape[2] == 3


def test_the_same_command_again_says_finished_and_changes_nothing(trained, data, caplog):
    before = latest(trained).stat().st_mtime_ns
    assert main(flags(data, trained)) == 0
    assert "is finished" in caplog.text
    assert latest(trained).stat().st_mtime_ns == before


def test_other_flags_under_the_same_name_are_refused(trained, data, caplog):
    assert main(flags(data, trained, lr=0.5)) == 1
    assert "--lr 0.5 (there 0.001)" in caplog.text
    assert main(flags(data, trained, lr=0.5, run_name="other", total_itrs=1)) == 0
    assert (trained / "checkpoints" / "best_other.pth").is_file()


def test_killed_by_sigterm_and_continued_is_bit_for_bit_the_same(trained, data, tmp_path):
    """The run is stopped somewhere, continued with another number of workers, and compared."""
    process = run(flags(data, tmp_path, num_workers=1))
    log = tmp_path / "runs" / NAME / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and '"train"' in log.read_text()):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    stopped_at = checkpoint.read(latest(tmp_path))["cur_itrs"]
    assert 0 < stopped_at < 6
    assert f"stopped at step {stopped_at} of 6 and saved" in errors
    assert main(flags(data, tmp_path, num_workers=2, continue_training=True)) == 0
    assert_same(weights(latest(trained)), weights(latest(tmp_path)))
    assert_same(weights(best(trained)), weights(best(tmp_path)))


def test_killed_by_sigkill_while_saving_and_continued(trained, data, tmp_path):
    process = run(flags(data, tmp_path), prefix=["-c", killed_while_saving(3)])
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert checkpoint.read(latest(tmp_path))["cur_itrs"] == 3
    assert (
        main(
            [
                "--continue_training",
                "--ckpt",
                str(latest(tmp_path)),
                "--data_root",
                str(data),
                "--output_dir",
                str(tmp_path),
            ]
        )
        == 0
    )
    assert_same(weights(latest(trained)), weights(latest(tmp_path)))
    files = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert files == [best(tmp_path).name, latest(tmp_path).name]
    steps = [
        r["step"]
        for r in read_metrics(tmp_path / "runs" / NAME / "metrics.jsonl")
        if r["kind"] == "train"
    ]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_an_unfinished_run_is_not_restarted_by_accident(data, tmp_path, caplog):
    assert main(flags(data, tmp_path, total_itrs=6, run_name="x")) == 0
    content = torch.load(tmp_path / "checkpoints" / "latest_x.pth", weights_only=True)
    content["cur_itrs"] = 4
    torch.save(content, tmp_path / "checkpoints" / "latest_x.pth")
    assert main(flags(data, tmp_path, total_itrs=6, run_name="x")) == 1
    assert "stopped at step 4 of 6: go on with --continue_training" in caplog.text


def test_testing_prints_a_table_and_writes_every_number(trained, data, capsys):
    argv = [
        "--test_only",
        "--ckpt",
        str(best(trained)),
        "--data_root",
        str(data),
        "--output_dir",
        str(trained),
        "--val_split",
        "test",
        "--num_workers",
        "0",
    ]
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert re.search(r"^bicyclist\s", table, re.MULTILINE)
    result = json.loads((trained / "results" / f"best_{NAME}_on_camvid_test.json").read_text())
    total = result["results"]["total"]
    assert f"{total['miou']:.2f}" in table
    assert result["units"]["miou"] == "percent"
    assert total["pixels"] > 0
    assert result["dataset"]["images"] == 6
    assert len(result["checkpoint"]["sha256"]) == 64
    assert main(argv) == 0, "the same test again replaces its own result"


def test_pictures_and_server_files_are_named_after_the_images(trained, data):
    argv = flags(
        data,
        trained,
        test_only=True,
        ckpt=best(trained),
        save_val_results=True,
        server_format=True,
        run_name="pictures",
        eval_flip=True,
    )
    assert main(argv) == 0
    folder = trained / "results" / "pictures"
    names = {path.name for path in folder.iterdir()}
    stem = "0016E5_f00000"
    assert {f"{stem}_{kind}.png" for kind in ("image", "target", "prediction", "overlay")} <= names
    server = cv2.imread(str(trained / "results" / "pictures_server" / f"{stem}.png"), -1)
    assert server.shape == SIZE
    assert server.max() < 11


def test_predicting_a_folder_an_image_and_a_glob(trained, data):
    for number, what in enumerate(("val", "val/0016E5_f00001.png", "[t]est/*.png")):
        name = f"predicted{number}"
        argv = [
            "--predict",
            str(data / what),
            "--ckpt",
            str(best(trained)),
            "--output_dir",
            str(trained),
            "--num_workers",
            "0",
            "--run_name",
            name,
            "--save_probs",
        ]
        assert main(argv) == 0
        files = sorted((trained / "predictions" / name).rglob("*_trainids.png"))
        assert len(files) == (6, 1, 6)[number]
        assert cv2.imread(str(files[0]), -1).shape == SIZE
    probabilities = np.load(
        next((trained / "predictions" / "predicted1").glob("*_probabilities.npz"))
    )
    np.testing.assert_allclose(probabilities["probabilities"].sum(0), 1, atol=5e-3)


def test_a_network_on_other_classes_maps_by_name_or_is_refused(trained, data, tmp_path, caplog):
    road = [
        "--test_only",
        "--ckpt",
        str(best(trained)),
        "--dataset",
        "streets",
        "--crop_val",
        "--crop_size",
        "40x56",
        "--output_dir",
        str(tmp_path),
        "--num_workers",
        "0",
    ]
    assert main(road) == 0
    result = json.loads(next((tmp_path / "results").glob("*.json")).read_text())
    assert result["classes"] == checkpoint.read(best(trained))["classes"]
    mine = tmp_path / "mine"
    for folder in ("images", "labels"):
        (mine / folder).mkdir(parents=True)
        cv2.imwrite(str(mine / folder / "a.png"), np.zeros((8, 8), np.uint8))
    (mine / "classes.json").write_text('["cat", "dog"]')
    argv = [
        "--test_only",
        "--ckpt",
        str(best(trained)),
        "--dataset",
        "folder",
        "--val_split",
        "all",
        "--data_root",
        str(mine),
        "--output_dir",
        str(tmp_path),
        "--num_workers",
        "0",
    ]
    assert main(argv) == 1
    assert "have no known mapping" in caplog.text


def test_fine_tuning_on_other_classes_needs_reset_head(trained, tmp_path, caplog):
    argv = [
        "--dataset",
        "streets",
        "--crop_size",
        "40x56",
        "--batch_size",
        "2",
        "--total_itrs",
        "1",
        "--ckpt",
        str(best(trained)),
        "--output_dir",
        str(tmp_path),
        "--num_workers",
        "0",
        "--infer_size",
        "40x56",
    ]
    assert main(argv) == 1
    assert "classifies 11 classes, this run 19" in caplog.text
    assert not (tmp_path / "runs").exists(), "nothing is left of a run that could not start"


def test_checking_data_names_what_is_wrong(data, tmp_path, capsys):
    broken = tmp_path / "camvid"
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (broken / folder).mkdir(parents=True)
            for path in (data / folder).iterdir():
                (broken / folder / path.name).write_bytes(path.read_bytes())
    assert main(["--check_data", "--dataset", "camvid", "--data_root", str(broken)]) == 0
    assert "no problems" in capsys.readouterr().out
    cv2.imwrite(str(broken / "valannot" / "0016E5_f00002.png"), np.full(SIZE, 77, np.uint8))
    assert main(["--check_data", "--dataset", "camvid", "--data_root", str(broken)]) == 1
    assert "0016E5_f00002.png: label value 77" in capsys.readouterr().out


def test_a_bad_label_met_in_training_is_one_line(data, tmp_path, caplog):
    broken = tmp_path / "camvid"
    for folder in ("train", "trainannot", "val", "valannot"):
        (broken / folder).mkdir(parents=True)
        for path in (data / folder).iterdir():
            (broken / folder / path.name).write_bytes(path.read_bytes())
    for path in (broken / "trainannot").iterdir():
        cv2.imwrite(str(path), np.full(SIZE, 77, np.uint8))
    assert main(flags(broken, tmp_path, num_workers=1)) == 1
    message = caplog.records[-1].getMessage()
    assert "label value 77" in message
    assert "Traceback" not in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_to_write_is_said(data, tmp_path, caplog):
    tmp_path.chmod(0o500)
    assert main(flags(data, tmp_path)) == 1
    assert "no permission to write" in caplog.text


def test_a_folder_that_is_a_file_is_said(data, tmp_path, caplog):
    (tmp_path / "runs").touch()
    assert main(flags(data, tmp_path)) == 1
    assert "is not a folder" in caplog.text


def test_two_processes_train_together_and_score_as_one(trained, data, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "main.py"]
    process = run(flags(data, tmp_path, batch_size=4, total_itrs=2), prefix=torchrun)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    content = checkpoint.read(latest(tmp_path))
    assert content["cur_itrs"] == 2
    assert len(content["rng"]) == 2
    argv = flags(data, tmp_path, test_only=True, ckpt=best(trained), run_name="two")
    process = run(argv, prefix=torchrun)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert main(flags(data, tmp_path, test_only=True, ckpt=best(trained), run_name="one")) == 0
    one, two = (
        json.loads((tmp_path / "results" / f"{n}.json").read_text()) for n in ("one", "two")
    )
    assert one["results"] == two["results"]


@pytest.mark.parametrize(
    "what", ["models", "datasets", "methods", "losses", "scores", "metrics", "recipes"]
)
def test_lists_name_everything_with_a_line(what, capsys):
    assert main(["--list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(len(line.split("  ", 1)) == 2 for line in lines)


def test_a_run_that_another_process_trains_is_refused(data, tmp_path, caplog):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    with another_run(tmp_path / "runs" / "mine"):
        assert main(flags(data, tmp_path, run_name="mine")) == 1
    assert "run mine is being trained by another process: wait for it, or choose" in caplog.text
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "mine"]
