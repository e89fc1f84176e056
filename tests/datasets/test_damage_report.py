import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from datasets.camvid import CamVid
from datasets.damage import DamagedLabels
from datasets.damage_report import report_damage
from main import main
from tests.datasets import layouts


@pytest.fixture
def data(tmp_path):
    return layouts.camvid(tmp_path)


def test_damage_is_compared_with_the_files_as_scikit_learn_does(data):
    dataset, damage = CamVid(data, "train"), DamagedLabels(0.5, seed=3)
    report = report_damage(dataset, damage)
    clean = [dataset.read(index)[1] for index in range(len(dataset))]
    damaged = [damage(label, item.id) for label, item in zip(clean, dataset.items, strict=True)]
    before, after = (np.concatenate([part.numpy().ravel() for part in x]) for x in (clean, damaged))
    known = before != 255
    seen = sorted(set(before[known]) | set(after[known]))
    jaccard = jaccard_score(before[known], after[known], labels=seen, average="macro")
    assert report.miou == pytest.approx(100 * jaccard)
    assert report.changed == pytest.approx(100 * (before != after)[known].mean())


def test_no_radius_changes_nothing(data):
    report = report_damage(CamVid(data, "train"), DamagedLabels(dilate=0, erode=0))
    assert report == (0, 100)


def test_the_check_of_the_data_tells_what_the_flag_does(data, capsys):
    argv = ["--check_data", "--dataset", "camvid", "--data_root", str(data)]
    assert main([*argv, "--label_damage", "0.5"]) == 0
    expected = report_damage(CamVid(data, "train"), DamagedLabels(0.5, seed=1))
    assert str(expected) in capsys.readouterr().out
    assert main(argv) == 0
    assert "damaged" not in capsys.readouterr().out
