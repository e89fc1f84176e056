import csv
import io
import re

import pytest

from engine.reporting import NOT_TOLD_APART, OF_TRAINING
from tests.utils.result_files import ROAD_NAMES, write_result
from utils.report.analysis import analyse
from utils.report.latex import as_latex
from utils.report.page import as_html
from utils.report.reliability_layout import report_pictures
from utils.report.results import find_results, read_results
from utils.report.text import as_csv, as_text

# mIoU and ECE, by model and test set.
NUMBERS = {
    ("a", "cityscapes"): (80.0, 2.0),
    ("a", "acdc"): (60.0, 16.0),
    ("b", "cityscapes"): (75.0, 1.0),
    ("b", "acdc"): (50.0, 8.0),
}


def write(folder, model, tested_on, miou, ece, **others):
    write_result(
        folder,
        model=model,
        tested_on=tested_on,
        **{"trained_on": "cityscapes", **others},
        iou=dict.fromkeys(ROAD_NAMES, miou),
        reliability={} if ece is None else {"calibration": {"ece": ece}},
    )


@pytest.fixture
def two_models(tmp_path):
    for (model, tested_on), numbers in NUMBERS.items():
        write(tmp_path, model, tested_on, *numbers)
    return tmp_path


def report_on(folder, **settings):
    rows = [
        row
        for path in find_results([str(folder)])
        for row in read_results(path, NOT_TOLD_APART, OF_TRAINING)
    ]
    return analyse(rows, **settings)


def errors_of(report):
    return {
        (point.model.split(",")[0], point.test): (point.miou_error.mean, point.ece_error.mean)
        for point in report.robustness.points
    }


def test_errors_are_divided_by_the_best_on_the_source(two_models):
    report = report_on(two_models)
    # The best on cityscapes: 100 - 80 = 20 of model a, 1 of model b.
    assert errors_of(report) == {
        ("a", "cityscapes val"): (1.0, 2.0),
        ("a", "acdc val"): (2.0, 16.0),
        ("b", "cityscapes val"): (1.25, 1.0),
        ("b", "acdc val"): (2.5, 8.0),
    }
    assert report.robustness.tests == ("cityscapes val", "acdc val")
    assert report.robustness.reason == "Networks were trained on cityscapes."


@pytest.mark.parametrize("wanted", ["acdc", "acdc val"])
def test_another_source(two_models, wanted):
    report = report_on(two_models, source=wanted)
    assert report.robustness.source == "acdc val"
    assert errors_of(report)["a", "cityscapes val"] == (0.5, 0.25)
    assert errors_of(report)["b", "acdc val"] == (1.25, 1.0)


def test_a_source_that_was_not_tested_is_refused(two_models):
    with pytest.raises(
        ValueError,
        match="--robustness_source idd is none of the test sets: acdc val; cityscapes val",
    ):
        report_on(two_models, source="idd")


def test_the_first_test_set_is_the_source_of_foreign_networks(tmp_path):
    for tested_on in ("idd", "acdc"):
        write(tmp_path, "a", tested_on, 50.0, None, trained_on="gta5")
    robustness = report_on(tmp_path).robustness
    assert robustness.source == "acdc val"
    assert "it is the first" in robustness.reason


def test_one_test_set_needs_no_robustness(tmp_path):
    write(tmp_path, "a", "acdc", 50.0, 1.0)
    write(tmp_path, "b", "acdc", 50.0, 1.0)
    report = report_on(tmp_path)
    assert report.robustness is None
    assert "Robustness" not in as_text(report) + as_html(report)
    write(tmp_path, "c", "cityscapes", 50.0, 1.0)  # a model with no other test set, either
    assert report_on(tmp_path).robustness is None


def test_seeds_have_a_deviation_and_the_best_is_a_mean(tmp_path):
    for seed, miou in ((1, 78.0), (2, 82.0)):
        write(tmp_path, "a", "cityscapes", miou, None, seed=seed)
        write(tmp_path, "a", "acdc", miou - 40, None, seed=seed)
    first, second = report_on(tmp_path).robustness.points
    assert (first.miou_error.mean, second.miou_error.mean) == (1.0, 3.0)
    assert first.miou_error.std == pytest.approx(8**0.5 / 20)
    assert first.miou_error.n == 2
    assert first.ece_error.mean is None


def test_a_perfect_source_leaves_nothing_to_divide_by(tmp_path):
    write(tmp_path, "a", "cityscapes", 100.0, 0.0)
    write(tmp_path, "a", "acdc", 60.0, 5.0)
    assert set(errors_of(report_on(tmp_path)).values()) == {(None, None)}


def test_a_joined_file_gives_a_point_for_each_data_set_and_condition(tmp_path):
    write_result(
        tmp_path,
        tested_on="cityscapes+acdc",
        trained_on="cityscapes",
        iou=dict.fromkeys(ROAD_NAMES, 80.0),
        datasets={"cityscapes": {}, "acdc": {"calibration": {"ece": 4.0}}},
        conditions=["cityscapes/", "acdc/fog", "acdc/night"],
    )
    report = report_on(tmp_path)
    found = {point.test: point.miou_error.mean for point in report.robustness.points}
    assert found == pytest.approx(
        {"cityscapes val": 1.0, "acdc val": 1.5, "acdc val fog": 1.05, "acdc val night": 1.1}
    )
    assert list(found) == ["cityscapes val", "acdc val", "acdc val fog", "acdc val night"]


def test_a_flag_of_the_test_is_part_of_a_model_only_where_it_was_varied(tmp_path):
    write(tmp_path, "a", "cityscapes", 80.0, None, testing={"eval_size": "native"})
    write(tmp_path, "a", "acdc", 60.0, None, testing={"eval_size": "crop"})
    assert report_on(tmp_path).robustness.models == ["cross_entropy"]
    flipped = {"eval_size": "crop", "eval_flip": True}
    write(tmp_path, "a", "acdc", 70.0, None, testing=flipped, name="flipped")
    robustness = report_on(tmp_path).robustness
    assert {(point.model, point.test) for point in robustness.points} == {
        ("cross_entropy, test eval_flip off", "cityscapes val"),
        ("cross_entropy, test eval_flip off", "acdc val"),
        ("cross_entropy, test eval_flip on", "acdc val"),
    }


def test_members_do_not_count_as_models(tmp_path):
    for tested_on in ("cityscapes", "acdc"):
        write(tmp_path, "ensemble", tested_on, 60.0, None, members=["m1", "m2"])
    assert len(report_on(tmp_path).robustness.models) == 1


def test_networks_of_other_training_data_are_told_apart(tmp_path):
    for trained_on in ("cityscapes", "acdc"):
        for tested_on in ("cityscapes", "acdc"):
            write(tmp_path, "a", tested_on, 60.0, None, trained_on=trained_on)
    assert report_on(tmp_path).robustness.models == [
        "cross_entropy, trained on acdc",
        "cross_entropy, trained on cityscapes",
    ]


def test_other_pixels_are_warned_of(two_models):
    write(two_models, "c", "acdc", 60.0, 1.0, pixels=7)
    text = " ".join(as_text(report_on(two_models)).split())
    assert "Not all models were scored on the same pixels of acdc val." in text


def test_robustness_in_all_forms(two_models):
    report = report_on(two_models)
    text = as_text(report)
    assert "The source is cityscapes val. Networks were trained on cityscapes." in text
    block = text.split("Error relative to the best on cityscapes val")[1]
    assert re.search(r"^  acdc val +1 +60\.00 +2\.00 +16\.00 +16\.00$", block, re.MULTILINE)
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    ratios = [row for row in rows if row["metric"].startswith("relative_")]
    assert len(ratios) == 8
    assert {
        row["metric"]: float(row["mean"])
        for row in ratios
        if "acdc" in row["group"] and row["group"].startswith("b,")
    } == {"relative_miou_error": 2.5, "relative_ece": 8.0}
    assert r"\caption{Error relative to the best on cityscapes val}" in as_latex(report)
    page = as_html(report, report_pictures(report))
    assert "<h2>Robustness</h2>" in page
    assert 'aria-label="Error relative to the best on cityscapes val"' in page


def test_the_axis_is_logarithmic_where_errors_grow_much(two_models):
    picture = next(p for p in report_pictures(report_on(two_models)) if p.name == "robustness")
    miou, ece = picture.figure.axes
    assert (miou.get_xscale(), ece.get_xscale()) == ("linear", "log")
    assert [label.get_text() for label in miou.get_yticklabels()] == [
        "a, cross_entropy",
        "b, cross_entropy",
    ]
    drawn = sorted(
        float(x) for line in ece.lines for x in line.get_xdata() if len(line.get_xdata()) == 2
    )
    assert {1.0, 2.0, 8.0, 16.0} <= set(drawn)
