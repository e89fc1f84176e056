import numpy as np
import pytest
import torch

from benchmarks.ranking import (
    Found,
    by_sklearn,
    by_torchmetrics,
    error_rows,
    grown_memory,
    ours,
    pixels,
    run,
)
from benchmarks.report import Settings

QUICK = Settings(torch.device("cpu"), quick=True)


def test_the_ways_agree_on_few_pixels():
    scores, truth = pixels(20_000, bounded=True)
    found, bounds = ours(scores, truth, 1.0)
    assert bounds == Found(0, 0, 0)  # so few are kept exactly
    assert found == pytest.approx(by_sklearn(scores, truth), abs=1e-12)
    assert by_torchmetrics(scores, truth) == pytest.approx(found[:2], abs=1e-5)


def test_scores_are_as_described():
    bounded, truth = pixels(100_000, bounded=True)
    unbounded, same = pixels(100_000, bounded=False)
    assert torch.equal(truth, same)
    assert truth.double().mean() == pytest.approx(0.03, abs=2e-3)
    assert bounded.min() > 0
    assert bounded.max() < 1
    torch.testing.assert_close((unbounded / 5).sigmoid(), bounded)
    assert unbounded[truth == 1].mean() == pytest.approx(5, abs=0.5)


def test_error_rows_name_each_statistic():
    rows = error_rows("few", Found(0.5, 0.25, 1.0), Found(0.5, 0.5, 0.5), Found(0.1, 0.2, 0.3))
    assert [row["statistic"] for row in rows] == ["auroc", "aupr", "fpr95"]
    assert [row["error"] for row in rows] == [0, 0.25, 0.5]
    assert [row["reported bound"] for row in rows] == [0.1, 0.2, 0.3]


def test_memory_of_ours_is_far_below_that_of_the_data():
    assert 0 <= grown_memory(3_000_000) < 20  # the data have 15 MB, sorting them takes 200


def test_a_quick_run_keeps_its_errors_within_the_reported_bounds():
    section = run(QUICK)
    times, errors, memory = section.tables
    assert times.rows[0]["times faster than scikit-learn"].median > 5
    assert {row["scores"] for row in errors.rows} == {"400,000 in [0, 1]", "400,000 unbounded"}
    for row in errors.rows:
        assert 0 < row["reported bound"] < 0.01
        assert row["error"] <= row["reported bound"]
    assert memory.rows[0]["ours, MB beside the data"] < 20
    assert len(section.targets) == 6
    assert np.isfinite([target.value for target in section.targets]).all()
    assert "## Rank statistics" in section.markdown()
