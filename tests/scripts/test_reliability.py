"""The scripts of the reliability study run from the first training to the report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_runs import write_data

SCRIPTS = Path(__file__).parents[2] / "scripts" / "reliability"


def run(name, **environment):
    kept = {key: value for key, value in os.environ.items() if key not in ("DATA_ROOT", "CKPTS")}
    return subprocess.run(
        [str(SCRIPTS / name)],
        env={**kept, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("name", "environment", "message"),
    [
        ("camvid.sh", {}, "DATA_ROOT is not set: DATA_ROOT=DIR "),
        ("relis.sh", {}, "DATA_ROOT is not set: DATA_ROOT=DIR "),
        ("relis.sh", {"DATA_ROOT": "x"}, 'CKPTS is not set: CKPTS="A.pth B.pth" '),
        ("camvid.sh", {"DATA_ROOT": "x", "CALIBRATORS": "best"}, "no calibrator is called best"),
    ],
)
def test_a_script_says_what_it_needs(name, environment, message):
    done = run(name, **environment)
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.slow
def test_every_calibrator_from_nothing_to_the_report_and_again(tmp_path):
    """The second time nothing is trained, fitted or tested."""
    data = tmp_path / "data"
    data.mkdir()
    write_data(data)
    settings = {
        "DATA_ROOT": str(data),
        "OUT": str(tmp_path / "out"),
        "MEMBERS": "mobilenet:1 mobilenet:2",
        "CALIBRATORS": "temperature vector local",
        "EXTRA": "--crop_size 40x56 --infer_size 40x56 --total_itrs 2 --val_interval 2"
        " --batch_size 2 --num_workers 0 --pretrained_backbone none --amp off",
        "TEST_FLAGS": "--num_workers 0 --samples_per_image 300 --batch_size 4 --accumulate 4",
    }
    done = run("camvid.sh", **settings)
    assert done.returncode == 0, done.stderr
    results = {path.stem for path in (tmp_path / "out" / "results").glob("*.json")}
    kinds = ("", "_temperature", "_vector", "_local")
    assert results == {f"{model}{kind}" for model in ("single", "ensemble") for kind in kinds}
    report = tmp_path / "out" / "reports" / "reliability_camvid" / "report.txt"
    assert "calibrator local (camvid val" in report.read_text()
    again = run("camvid.sh", **settings)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("the calibrator is there") == 6
    assert again.stdout.count("is there") == 8
