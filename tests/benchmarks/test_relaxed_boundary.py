import pytest
import torch

from benchmarks.relaxed_boundary import (
    QUICK_SIZE,
    check_equal,
    kept_bytes,
    maps,
    one_hot,
    published_target,
    run,
)
from benchmarks.report import Settings
from losses.cross_entropy import cross_entropy

QUICK = Settings(torch.device("cpu"), quick=True)


def test_the_yardstick_lists_the_neighbours_and_void_outside():
    label = torch.tensor([[[0, 0, 1, 255], [0, 0, 5, 1]]], dtype=torch.uint8)
    target = published_target(label, 19, QUICK.device)[0].permute(1, 2, 0)
    sets = [[pixel.nonzero().flatten().tolist() for pixel in row] for row in target]
    # 5 is strict; all others touch the edge.
    assert sets[0] == [[0, 19], [0, 1, 5, 19], [0, 1, 5, 19], [1, 5, 19]]
    assert sets[1] == [[0, 19], [0, 1, 5, 19], [5], [1, 5, 19]]


def test_one_hot_has_the_class_last():
    assert one_hot(torch.tensor([[2, 0]]).byte().numpy(), 3).tolist() == [[[0, 0, 1], [1, 0, 0]]]


def test_ways_that_disagree_are_found(monkeypatch):
    label, logits = maps(19, QUICK)
    check_equal(label, logits)
    monkeypatch.setattr("benchmarks.relaxed_boundary.relaxed_boundary_loss", cross_entropy_of)
    with pytest.raises(AssertionError, match="losses disagree"):
        check_equal(label, logits)
    yardstick = published_target(label, 19, QUICK.device)
    monkeypatch.setattr("benchmarks.relaxed_boundary.published_target", lambda *_: 1 - yardstick)
    with pytest.raises(AssertionError, match="targets disagree"):
        check_equal(label, logits)


def cross_entropy_of(logits, labels, **_):
    return cross_entropy(logits, labels)


def test_kept_bytes_count_each_storage_once_and_no_logits():
    logits = torch.ones(10, requires_grad=True)
    assert kept_bytes(lambda: (logits * logits).sum(), logits) == 0
    assert kept_bytes(lambda: logits.exp().square().sum(), logits) == 40


def test_a_quick_run_has_both_tables():
    section = run(QUICK)
    (target,), (loss,) = (table.rows for table in section.tables)
    assert target["classes"] == loss["classes"] == 19
    assert target["times faster"].median > 1
    assert len(section.targets) == 2
    assert target["ours, MB sent"] == pytest.approx(target["published way, MB sent"] / 20)
    one_float_map = 4 * 19 * QUICK_SIZE**2 / 1e6
    assert loss["ours, MB kept"] < one_float_map < loss["published way, MB kept"]
    assert "| classes | published way, ms |" in section.markdown()
