"""The slow way that response scaling is compared with, and a quick run."""

import pytest
import torch

from benchmarks.report import Settings
from benchmarks.response_scaling import CLASSES, check_equal, literal, run, smooth_probabilities
from uncertainty.response_decoders import argmax_decoder
from uncertainty.response_scaling import ResponseScaling
from uncertainty.response_variance import PRESETS


@pytest.mark.parametrize("present", [1, 3, CLASSES])
def test_both_ways_agree_on_the_classes_that_are_asked_for(present):
    probabilities = smooth_probabilities((96, 160), present)
    slow = literal(probabilities)
    assert len(slow.label.unique()) <= present
    assert (slow.uncertainty.max() > 0.9) == (present > 1)
    check_equal(ResponseScaling(PRESETS["voc"], argmax_decoder)(probabilities), slow)


def test_ways_that_disagree_are_noticed():
    first, second = (literal(smooth_probabilities((64, 64), present)) for present in (3, 4))
    with pytest.raises(AssertionError, match="disagree"):
        check_equal(first, second)


def test_a_quick_run():
    section = run(Settings(torch.device("cpu"), True, 1, 2, None))
    (row,) = section.tables[0].rows
    assert row["literal, ms"] > 0
    assert section.targets[0].bound == 200
