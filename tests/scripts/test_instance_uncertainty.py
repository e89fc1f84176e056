"""The scripts of the paper's experiments run from the first training to the report."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from datasets.streets import write_layout

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts" / "instance_uncertainty"
EXTRA = (
    "--crop_size 48 --total_itrs 2 --val_interval 2 --num_workers 0 --pretrained_backbone none"
    " --val_batch_size 4"
)


def run(name, **environment):
    done = subprocess.run(
        [str(SCRIPTS / name)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", ["acdc.sh", "cityscapes.sh", "domain_shift.sh", "camvid.sh"])
def test_a_script_without_data_says_what_it_needs(name):
    environment = {key: value for key, value in os.environ.items() if key != "DATA_ROOT"}
    done = subprocess.run(
        [str(SCRIPTS / name)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("DATA_ROOT is not set: DATA_ROOT=DIR ")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_domain_shift_from_nothing_to_its_report_and_again(tmp_path):
    """It runs the other two scripts first; the second time nothing is trained."""
    data = tmp_path / "data"
    write_layout("cityscapes", data / "cityscapes", images_per_split=3, size=(64, 128))
    write_layout("acdc", data / "ACDC", images_per_split=1, size=(64, 128))
    settings = {
        "DATA_ROOT": str(data),
        "OUT": str(tmp_path / "out"),
        "SEEDS": "1 2",
        "MEMBERS": "mobilenet:8 mobilenet:9",
        "BACKBONES": "mobilenet",
        "EXTRA": EXTRA,
    }
    status, out, errors = run("domain_shift.sh", **settings)
    assert status == 0, errors
    for name in ("acdc", "cityscapes"):
        assert (tmp_path / "out" / name / "reports" / name / "report.html").is_file()
    assert (tmp_path / "out" / "reports" / "domain_shift" / "report.tex").is_file()
    assert "domain_shift" in out or "cityscapes" in out
    status, _, errors = run("domain_shift.sh", **settings)
    assert status == 0, errors
    assert errors.count("is finished") == 2 * (2 + 2 * 2)
    assert "finished: " not in errors.replace("is finished: ", "")
