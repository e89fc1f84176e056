import time
from argparse import ArgumentParser, Namespace

import pytest

from engine.reporting import CAMVID_MINORITY, ROAD_MINORITY, add_report_flags, run_report
from tests.utils.result_files import write_result

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
