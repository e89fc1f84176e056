import numpy as np
import pytest
import torch

from benchmarks.components import (
    VOID,
    Image,
    check_equal,
    noise_image,
    one_siou,
    per_component_loop,
    run,
)
from benchmarks.report import Settings


def test_the_yardstick_on_a_small_example():
    ood = np.zeros((12, 60), np.uint8)
    ood[:10, :10] = ood[:10, 20:30] = 1  # two of 100 pixels
    ood[:2, 50:54] = 1  # one of 8, below the limit
    ood[11] = VOID
    scores = np.zeros(ood.shape, np.float32)
    scores[:10, :25] = 2  # over the first and half of the second
    scores[:7, 50:57] = 2  # 49 pixels, below the limit
    found = per_component_loop(Image(ood, scores))
    assert found.siou.tolist() == [100 / 200, 50 / 200]
    assert found.ppv.tolist() == [150 / 250]
    assert check_equal(Image(ood, scores)) == (2, 1)


def test_one_object_beside_another():
    true_ids, ids = np.array([1, 1, 0, 2, 2]), np.array([0, 1, 1, 1, 0])
    assert one_siou(true_ids, ids, 1) == 1 / 3
    assert one_siou(true_ids, 0 * ids, 1) == 0


def test_ways_that_disagree_are_found(monkeypatch):
    image = noise_image((128, 256))
    assert min(check_equal(image)) > 3
    monkeypatch.setattr("benchmarks.components.SMALLEST_PREDICTION", 1)
    loop = per_component_loop(image)
    monkeypatch.setattr("benchmarks.components.SMALLEST_PREDICTION", 200)
    monkeypatch.setattr("benchmarks.components.per_component_loop", lambda _: loop)
    with pytest.raises(AssertionError, match="the ways disagree"):
        check_equal(image)


def test_a_quick_run_has_its_table_and_its_target():
    section = run(Settings(torch.device("cpu"), quick=True))
    (table,), (target,) = section.tables, section.targets
    (row,) = table.rows
    assert row["predicted components"] > 10
    assert row["times faster"].least > 2
    assert target.value == row["ours, ms"] > 0
    assert "## Component metrics" in section.markdown()
