import pytest
import torch

from benchmarks import temperature_search
from benchmarks.report import Settings
from benchmarks.temperature_search import CASES, compare, draw, pixels, plain_seconds
from uncertainty.calibrators.pixels import prepare
from uncertainty.calibrators.search import search_temperature

CPU = torch.device("cpu")


def test_labels_are_drawn_from_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(60_000, 3)
    labels = draw(logits, torch.Generator().manual_seed(0))
    shares = torch.bincount(labels, minlength=3) / len(labels)
    assert torch.allclose(shares, logits[0].softmax(0), atol=0.01)


def test_the_pixels_are_overconfident_and_partly_void():
    for shifted in CASES.values():
        logits, labels = pixels(20_000, shifted, CPU)
        assert float((labels == 255).float().mean()) == pytest.approx(0.05, abs=0.01)
        known = labels != 255
        confidence = logits.softmax(1).amax(1)[known].mean()
        accuracy = (logits.argmax(1) == labels)[known].float().mean()
        assert float(confidence - accuracy) > 0.03


def test_searches_that_disagree_are_found():
    logits, labels = pixels(500, 0.0, CPU)
    fit = search_temperature(logits, labels)
    with pytest.raises(AssertionError, match="the two searches disagree"):
        plain_seconds(prepare(logits, labels), fit._replace(temperature=fit.temperature + 0.01))


def test_a_row_says_what_was_searched():
    logits, labels = pixels(2000, 0.0, CPU)
    row = compare("one domain", logits, labels, Settings(CPU, quick=True), in_full=True)
    assert row["pixels"] == 2000
    assert row["times faster"] > 1
    assert row["evaluations"] < 950
    assert row["temperature"] == search_temperature(logits, labels).temperature


def test_a_quick_run_gives_both_sizes_and_the_targets(monkeypatch):
    monkeypatch.setattr(temperature_search, "QUICK", 300)
    section = temperature_search.run(Settings(CPU, quick=True))
    assert [row["case"] for row in section.tables[0].rows] == [case for case in CASES for _ in "ab"]
    assert len(section.targets) == 4
    assert "## Temperature search" in section.markdown()
