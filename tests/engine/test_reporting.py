import time
from argparse import ArgumentParser, Namespace

import pytest
from PIL import Image

from engine.reporting import CAMVID_MINORITY, ROAD_MINORITY, add_report_flags, run_report
from options import parse
from tests.utils.result_files import reliability_of, search_of, write_result
from utils.report.facts import IMPLIED

FILES = ("report.txt", "report.csv", "report.tex", "report.html")
UCE = "uncertainty_cross_entropy"


def options(tmp_path, *arguments, **others):
    parser = ArgumentParser()
    add_report_flags(parser.add_argument_group())
    shared = {"report": [str(tmp_path / "results")], "output_dir": tmp_path, "run_name": None}
    opts = parser.parse_args(arguments)
    return Namespace(**{**vars(opts), **shared, "random_seed": 1, **others})


@pytest.fixture
def results(tmp_path):
    for seed in (1, 2):
        for loss in ("cross_entropy", UCE):
            write_result(tmp_path / "results", loss=loss, seed=seed)
    return tmp_path


def test_the_minority_classes():
    assert ROAD_MINORITY == ("traffic light", "person", "rider", "motorcycle", "bicycle")
    assert set(CAMVID_MINORITY) == {
        "sign or symbol",
        "pedestrian",
        "bicyclist",
        "pole",
        "fence",
    }


def test_what_older_results_are_taken_for_are_the_defaults():
    defaults = vars(parse([]))
    assert defaults | IMPLIED == defaults


def test_a_report_is_printed_and_written(results, capsys):
    assert run_report(options(results)) == 0
    folder = results / "reports" / "acdc_val"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert capsys.readouterr().out == (folder / "report.txt").read_text()
    before = {name: (folder / name).read_bytes() for name in FILES}
    assert run_report(options(results)) == 0
    assert {name: (folder / name).read_bytes() for name in FILES} == before


def test_where_a_report_goes(results):
    run_report(options(results, run_name="table1"))
    run_report(options(results, "--report_dir", str(results / "elsewhere")))
    assert (results / "reports" / "table1" / "report.html").is_file()
    assert (results / "elsewhere" / "report.csv").is_file()


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_report_stays(results, name):
    folder = results / "mine"
    folder.mkdir()
    (folder / name).write_text("my own notes")
    with pytest.raises(ValueError, match=rf"{name} is not a report: move it"):
        run_report(options(results, "--report_dir", str(folder)))
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "my own notes"


def test_flags_reach_the_report(results, capsys):
    run_report(options(results, "--minority", "bus", "--baseline", "uncertainty"))
    out = capsys.readouterr().out
    assert "over the 1 class tested: bus" in " ".join(out.split())
    assert "cross_entropy (n=2) against uncertainty_cross_entropy (n=2)" in out


def test_two_hundred_results_take_seconds(tmp_path):
    for model in range(10):
        for seed in range(10):
            for loss in ("cross_entropy", UCE):
                write_result(tmp_path / "results", loss=loss, seed=seed, model=f"model{model}")
    began = time.process_time()
    run_report(options(tmp_path))
    assert time.process_time() - began < 10


@pytest.fixture
def reliability(tmp_path):
    for seed in (1, 2):
        for tested_on in ("acdc", "cityscapes"):
            own = reliability_of(seed)
            write_result(tmp_path / "results", seed=seed, tested_on=tested_on, reliability=own)
    return tmp_path


def test_pictures_lie_beside_the_page(reliability):
    run_report(options(reliability))
    folder = reliability / "reports" / "acdc_val_cityscapes_val"
    pictures = sorted(path.name for path in folder.glob("*.png"))
    kinds = ("confidence_histogram_msp", "reliability_diagram", "risk_coverage_msp", "roc_pr_msp")
    assert pictures == sorted(
        [
            "robustness.png",
            *(
                f"{kind}_acdc_on_{test}_val.png"
                for kind in kinds
                for test in ("acdc", "cityscapes")
            ),
        ]
    )
    for name in pictures:
        with Image.open(folder / name) as image:
            assert min(image.size) > 300
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run_report(options(reliability))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_picture_of_somebody_else_stays(reliability):
    folder = reliability / "mine"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "robustness.png")
    before = (folder / "robustness.png").read_bytes()
    with pytest.raises(ValueError, match=r"robustness\.png is not a report: move it"):
        run_report(options(reliability, "--report_dir", str(folder)))
    assert [path.name for path in folder.iterdir()] == ["robustness.png"]
    assert (folder / "robustness.png").read_bytes() == before


def test_the_source_of_the_robustness_is_a_flag(reliability, capsys):
    run_report(options(reliability))
    assert "The source is acdc val. Networks were trained on acdc." in capsys.readouterr().out
    run_report(options(reliability, "--robustness_source", "cityscapes"))
    assert "The source is cityscapes val. cityscapes was asked for." in capsys.readouterr().out
    with pytest.raises(ValueError, match="--robustness_source nowhere is none of the test sets"):
        run_report(options(reliability, "--robustness_source", "nowhere"))


def test_a_report_without_reliability_has_no_pictures(results):
    run_report(options(results))
    assert not list((results / "reports").rglob("*.png"))


def test_searches_for_unknown_objects_are_reported_with_pictures(tmp_path, capsys):
    for seed in (1, 2):
        part = search_of(seed, ("abet", "odin+msp"))
        write_result(
            tmp_path / "results",
            seed=seed,
            tested_on="road_anomaly",
            segmented=False,
            reliability=part,
        )
    run_report(options(tmp_path))
    folder = tmp_path / "reports" / "road_anomaly_val"
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert pictures == ["ood_histogram.png", "ood_roc_pr.png"]
    assert "Unknown objects by score on road_anomaly val" in capsys.readouterr().out
    assert "<svg" in (folder / "report.html").read_text().split("<h2>Unknown objects")[1]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run_report(options(tmp_path))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
