import json

import numpy as np
import pytest
import torch

from benchmarks.calibration_error import (
    Maps,
    binned_ece,
    exact_ece,
    network_like,
    run,
    torchmetrics_ece,
)
from benchmarks.report import Settings

QUICK = Settings(torch.device("cpu"), quick=True)


def test_the_definition_by_hand():
    maps = Maps(torch.tensor([[[0.1, 0.2], [0.9, 1.0]]]), torch.tensor([[[0, 1], [1, 1]]]).bool())
    # 0.1 and 0.2 lie in two bins, 0.9 and 1.0 as well
    assert exact_ece(maps) == pytest.approx((0.1 + 0.8 + 0.1) / 4)


def test_the_confidences_are_as_the_page_says():
    confidence, right = network_like(2, (300, 300), QUICK.device)
    assert confidence.dtype == torch.float32
    assert (confidence == 1).float().mean() == pytest.approx(0.1, abs=0.01)
    assert (confidence > 0.99).float().mean() == pytest.approx(2 / 3, abs=0.05)
    assert right.float().mean() < confidence.mean()


def test_all_ways_agree_on_few_pixels():
    maps = network_like(2, (40, 50), QUICK.device)
    exact = exact_ece(maps)
    assert binned_ece(maps) == pytest.approx(exact, abs=1e-12)
    assert torchmetrics_ece(maps) == pytest.approx(exact, abs=1e-5)


def test_a_quick_run_has_the_numbers_and_the_targets():
    section = run(QUICK)
    rows = section.tables[0].rows
    assert [row["pixels"] for row in rows] == [2_000, 20_000]
    for row, target in zip(rows, section.targets, strict=True):
        assert row["ours off by, %"] < 1e-9 < row["torchmetrics off by, %"]
        assert target.met
        assert row["times faster"].least > 0
    assert np.isfinite(json.loads(json.dumps(section.plain()))["targets"][0]["value"])
