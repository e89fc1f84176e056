import json

import numpy as np
import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.confusion_matrix import MaskedBincount
from benchmarks.report import Settings, Table, Target
from benchmarks.timing import Ratio, Samples, interleave, ratio


def test_candidates_take_turns_and_warmup_is_not_counted():
    order = []
    samples = interleave(
        {name: lambda name=name: order.append(name) for name in "ab"}, repeats=2, warmup=1, calls=2
    )
    assert order == ["a", "a", "b", "b"] * 3
    assert [len(samples[name].cost) for name in "ab"] == [2, 2]
    assert all(len(samples[name].wall) == 2 for name in "ab")


def test_a_busy_call_costs_more_than_an_idle_one():
    busy = np.arange(300_000)
    samples = interleave(
        {"busy": lambda: np.sort(busy[::-1] % 1009), "idle": lambda: None}, repeats=3
    )
    assert ratio(samples["busy"], samples["idle"]).least > 2


def test_ratios_are_taken_within_a_round():
    found = ratio(Samples(cost=[2.0, 30.0, 8.0]), Samples(cost=[1.0, 10.0, 1.0]))
    assert found == Ratio(median=3.0, least=2.0, greatest=8.0)


@pytest.mark.parametrize(
    ("value", "at_most", "met"), [(0.9, True, True), (1.1, True, False), (1.1, False, True)]
)
def test_a_target_says_whether_it_is_met(value, at_most, met):
    target = Target("time", value, 1.0, at_most)
    assert target.met is met
    assert ("missed" in str(target)) is not met


def test_a_table_is_markdown():
    rows = [{"name": "a", "s": 0.012345, "ratio": Ratio(1.5, 1.0, 2.0)}]
    lines = Table("Seconds:", rows).markdown().splitlines()
    assert lines[0] == "Seconds:"
    assert lines[2:] == [
        "| name | s | ratio |",
        "| --- | --- | --- |",
        "| a | 0.0123 | 1.5 (1 to 2) |",
    ]


def test_the_yardstick_counts_labelled_pixels_only():
    counter = MaskedBincount(3)
    counter.update(np.array([[[0, 1, 255]]]), np.array([[[0, 2, 1]]]))
    assert counter.matrix.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_quick_overrides_the_number_of_rounds():
    cpu = torch.device("cpu")
    assert Settings(cpu, quick=True, repeats=9).rounds(5) == 2
    assert Settings(cpu, repeats=9).rounds(5) == 9
    assert Settings(cpu).rounds(5) == 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["training_step", "startup", "mask_files"])
def test_the_longer_ones_run(name, tmp_path, capsys):
    if name == "training_step":
        pytest.importorskip("segmentation_models_pytorch")
    file = tmp_path / "numbers.json"
    assert main([name, "--quick", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    section = json.loads(file.read_text())["benchmarks"][name]
    assert f"## {section['title']}" in printed
    for table in section["tables"]:
        for row in table["rows"]:
            assert all(value > 0 for value in row.values() if isinstance(value, float))
    assert all(target["what"] in printed for target in section["targets"])
