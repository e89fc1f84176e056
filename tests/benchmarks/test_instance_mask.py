import json

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.instance_mask import (
    CASES,
    NUM_CLASSES,
    check_equal,
    count_components,
    maps,
    per_component_loop,
)
from benchmarks.report import Settings


def test_the_yardstick_joins_over_corners_and_parts_by_class():
    classes = torch.tensor([[0, 1, 0], [1, 0, 1], [1, 2, 2]])
    probabilities = torch.nn.functional.one_hot(classes, 3).permute(2, 0, 1)[None].float()
    entropy = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [9.0, 8.0, 0.0]]])
    expected = [[3.0, 5.25, 3.0], [5.25, 3.0, 5.25], [5.25, 4.0, 4.0]]
    assert per_component_loop(probabilities, entropy).tolist() == expected


def test_ways_that_disagree_are_found():
    logits, probabilities, entropy = maps(CASES[0], Settings(torch.device("cpu"), quick=True))
    check_equal(logits, probabilities, entropy)
    with pytest.raises(AssertionError, match="the ways disagree"):
        check_equal(logits + torch.randn(1, NUM_CLASSES, 1, 1), probabilities, entropy)


def test_a_smaller_sigma_gives_more_components():
    quick = Settings(torch.device("cpu"), quick=True)
    counts = [count_components(maps(case, quick)[1]) for case in CASES]
    assert counts == sorted(counts)
    assert counts[-1] > 20 * counts[0]


def test_a_quick_run_prints_both_tables_and_writes_their_numbers(tmp_path, capsys):
    written = tmp_path / "numbers.json"
    assert main(["instance_mask", "--quick", "--json", str(written)]) == 0
    section = json.loads(written.read_text())["benchmarks"]["instance_mask"]
    assert f"## {section['title']}" in capsys.readouterr().out
    mask, whole = (table["rows"] for table in section["tables"])
    assert len(mask) == len(whole) == len(section["targets"]) == len(CASES)
    assert all(row["times faster"]["median"] > 1 for row in mask)
    assert all(row["times one read"]["median"] > 1 for row in whole)
