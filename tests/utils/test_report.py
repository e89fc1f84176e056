import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from metrics.segmentation import SegmentationMetrics
from utils.files import WriteError
from utils.log import RunLog
from utils.report import format_table, results_table, save_curves
from utils.types import Prediction

RED, GREEN, BLUE = (220, 20, 60), (20, 200, 60), (0, 0, 142)


def test_a_table_is_aligned():
    table = format_table(
        [["road", 98.765, 3], ["traffic light", None, 12]], ["class", "IoU, %", "images"]
    )
    assert table.split("\n") == [
        "class          IoU, %  images",
        "-------------  ------  ------",
        "road            98.77       3",
        "traffic light     n/a      12",
    ]


def test_a_table_without_rows_is_its_header():
    assert format_table([], ["a", "bc"]) == "a  bc\n-  --"


def test_headings_and_lines_between_the_rows_of_a_table():
    rows = [["a heading wider than its column", ""], ["  a", 1.0], ["  b", 2.0]]
    assert format_table(rows, ["", "x"], rules=[2]).split("\n") == [
        "        x",
        "---  ----",
        "a heading wider than its column",
        "  a  1.00",
        "---  ----",
        "  b  2.00",
    ]


def evaluated(conditions):
    """Half of the road is taken for sidewalk, once per condition; no image shows a train."""
    metric = SegmentationMetrics(["road", "sidewalk", "train"])
    label = torch.tensor([[[0, 0, 1, 255]]], dtype=torch.uint8)
    predicted = torch.tensor([[[0, 1, 1, 0]]])
    logits = torch.nn.functional.one_hot(predicted, 3).permute(0, 3, 1, 2).float()
    for condition in conditions:
        metric.update({"label": label, "id": ["a"], "condition": [condition]}, Prediction(logits))
    return metric.compute()


def rows_of(table):
    return {re.split(r"\s{2,}", line)[0]: re.split(r"\s{2,}", line)[1:] for line in table}


def test_the_results_of_an_evaluation_class_by_class_and_in_the_mean():
    table = results_table(evaluated(["fog"]), ["road", "sidewalk", "train"])
    rows = rows_of(table.split("\n"))
    assert rows["class, %"] == ["IoU", "accuracy", "dice"]
    assert rows["road"] == ["50.00", "50.00", "66.67"]
    assert rows["sidewalk"] == ["50.00", "100.00", "66.67"]
    assert rows["train"] == ["n/a", "n/a", "n/a"]
    assert rows["mIoU"] == ["50.00"]
    assert rows["overall accuracy"] == ["66.67"]
    assert rows["mean accuracy"] == ["75.00"]
    assert rows["frequency-weighted accuracy"] == ["50.00"]
    assert rows["mean dice"] == ["66.67"]
    assert rows["classes seen"] == ["2 of 3"]
    assert rows["labelled pixels"] == ["3"]
    assert "nan" not in table


def test_conditions_are_further_columns():
    table = results_table(evaluated(["fog", "night", "night"]), ["road", "sidewalk", "train"])
    rows = rows_of(table.split("\n"))
    assert rows["class, %"] == ["IoU", "accuracy", "dice", "IoU fog", "IoU night"]
    assert rows["road"] == ["50.00", "50.00", "66.67", "50.00", "50.00"]
    assert rows["mean, %"] == ["all", "fog", "night"]
    assert rows["labelled pixels"] == ["9", "3", "6"]


@pytest.fixture
def metrics(tmp_path):
    run = RunLog(tmp_path / "run", tensorboard=False)
    for step in range(10, 210, 10):
        loss = None if step == 50 else 1 / step
        run.log_scalars("train", step, {"loss": loss, "lr": 1e-3, "images_per_second": 9.0})
    for step in (100, 200):
        run.log_scalars("val", step, {"miou": step / 10, "night/miou": step / 20})
    return run.path


def colours(image):
    return {colour for _, colour in image.convert("RGB").getcolors(1 << 24)}


def test_curves_become_one_picture(metrics, tmp_path):
    path = tmp_path / "pictures" / "curves.png"
    save_curves(metrics, path, "a run")
    with Image.open(path) as image:
        assert image.size == (1320, 624)
        half = image.width // 2
        left, right = image.crop((0, 0, half, image.height)), image.crop((half, 0, *image.size))
        blue = (37, 99, 168)
        assert blue in colours(left)
        assert blue in colours(right)


def test_the_picture_follows_the_numbers(metrics, tmp_path):
    save_curves(metrics, tmp_path / "a.png", "a run")
    save_curves(metrics, tmp_path / "b.png", "a run")
    RunLog(metrics.parent, tensorboard=False, resume_step=190).log_scalars(
        "val", 200, {"miou": 90.0}
    )
    save_curves(metrics, tmp_path / "c.png", "a run")
    same, again, changed = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in "abc")
    assert np.array_equal(same, again)
    assert not np.array_equal(same, changed)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [("train", 1, {"loss": 1.0, "lr": 0.1})],
        [("train", 1, {"loss": None, "lr": 0.1})],
        [("train", 1, {"loss": None, "loss_a": 1.0, "loss_b": 2.0, "lr_a": 0.1, "lr_b": 0.2})],
        [("val", 0, {"miou": None, "fog/miou": None})],
        [("val", 0, {"miou": 0.0})],
    ],
    ids=[
        "nothing",
        "one step",
        "no finite loss",
        "several losses",
        "nothing labelled",
        "only validation",
    ],
)
@pytest.mark.filterwarnings("error")
def test_curves_of_runs_that_have_hardly_begun(tmp_path, records):
    run = RunLog(tmp_path, tensorboard=False)
    for kind, step, values in records:
        run.log_scalars(kind, step, values)
    save_curves(run.path, tmp_path / "curves.png", "a run")
    assert (tmp_path / "curves.png").stat().st_size > 5_000


def test_drawing_needs_no_global_state_of_pyplot(metrics, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    save_curves(metrics, tmp_path / "curves.png", "a run")
    assert (tmp_path / "curves.png").is_file()


def test_curves_of_a_run_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match=r"metrics\.jsonl does not exist"):
        save_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", "a run")


def test_a_picture_that_cannot_be_written_names_its_path(metrics, tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(WriteError, match=r"taken/curves\.png"):
        save_curves(metrics, tmp_path / "taken" / "curves.png", "a run")
