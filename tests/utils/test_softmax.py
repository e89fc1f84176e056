import gc

import pytest
import torch

from utils.softmax import _softmax, probabilities, top_class


@pytest.fixture
def logits():
    return torch.randn(3, 5, 7, 9, generator=torch.Generator().manual_seed(0)) * 5


def test_probabilities_are_the_softmax(logits):
    assert torch.allclose(probabilities(logits), logits.softmax(1))
    assert probabilities(logits.bfloat16()).dtype == torch.float32


def test_top_class_is_the_first_highest_logit_with_its_probability(logits):
    logits[0, 1] = logits[0, 3] = 20.0
    classes, confidence = top_class(logits)
    assert classes.dtype == torch.uint8
    assert torch.equal(classes.long()[1:], logits[1:].argmax(1))
    assert (classes[0] == 1).all()
    assert torch.equal(confidence, probabilities(logits).amax(1))


def test_the_same_logits_are_computed_once(logits):
    assert probabilities(logits) is not probabilities(logits.clone())
    assert probabilities(logits).data_ptr() == probabilities(logits).data_ptr()
    part = probabilities(logits[1:3])
    assert part.data_ptr() == probabilities(logits)[1:3].data_ptr()
    assert torch.equal(part, logits[1:3].softmax(1))


def test_a_part_of_the_classes_is_a_tensor_of_its_own(logits):
    probabilities(logits)
    few = logits[:, :2]
    assert torch.allclose(probabilities(few), few.softmax(1))
    every_other = logits[::2]
    assert torch.allclose(probabilities(every_other), every_other.softmax(1))


def test_a_change_in_place_is_seen(logits):
    before = probabilities(logits)
    logits[0, 0] += 3
    assert torch.allclose(probabilities(logits), logits.softmax(1))
    assert not torch.equal(before, probabilities(logits))


def test_results_go_with_their_logits():
    kept = len(_softmax.results)
    maps = torch.zeros(1, 2, 3, 3)
    probabilities(maps)
    assert len(_softmax.results) == kept + 1
    del maps
    gc.collect()
    assert len(_softmax.results) == kept


def test_results_are_outside_the_graph(logits):
    logits.requires_grad_()
    assert not probabilities(logits).requires_grad
    assert not top_class(logits).confidence.requires_grad
