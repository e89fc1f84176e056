import math

import numpy as np
import pytest
import torch
from scipy import stats

from tests.uncertainty.maps import published_entropy, smooth_logits
from uncertainty.entropy import softmax_entropy
from utils.class_map import BLOCK_PIXELS


@pytest.mark.parametrize("num_classes", [1, 2, 19, 255])
def test_entropy_agrees_with_scipy_and_with_the_published_form(num_classes):
    logits = torch.randn(2, num_classes, 11, 13, generator=torch.Generator().manual_seed(0)) * 4
    found = softmax_entropy(logits).entropy
    assert found.dtype == torch.float32
    probabilities = logits.double().softmax(1).numpy()
    np.testing.assert_allclose(found, stats.entropy(probabilities, axis=1), atol=2e-6, rtol=0)
    np.testing.assert_allclose(found, published_entropy(logits), atol=2e-6, rtol=0)
    assert found.min() >= 0
    assert found.max() <= math.log(num_classes) + 1e-6


def test_classes_are_the_most_likely_ones():
    logits = smooth_logits(3, images=2)
    assert torch.equal(softmax_entropy(logits).classes.long(), logits.argmax(1))


@pytest.mark.parametrize("size", [(301, 253), (2, BLOCK_PIXELS + 3)])
def test_maps_of_several_blocks(size):
    logits = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 3
    found = softmax_entropy(logits)
    assert torch.equal(found.classes.long(), logits.argmax(1))
    np.testing.assert_allclose(found.entropy, published_entropy(logits), atol=2e-6, rtol=0)


def test_impossible_classes_and_large_logits_stay_finite():
    logits = torch.tensor([[0.0, 0.0, -torch.inf], [1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]])
    found = softmax_entropy(logits.T[None, :, None]).entropy.flatten()
    expected = torch.tensor([math.log(2), 0.0, math.log(3)])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_shift_of_the_logits_changes_nothing():
    logits = smooth_logits(3)
    shifted = softmax_entropy(logits + 7).entropy
    torch.testing.assert_close(shifted, softmax_entropy(logits).entropy, atol=5e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_any_floating_type_and_layout_is_computed_in_float32(dtype, memory_format):
    logits = smooth_logits(3, images=2).to(dtype)
    expected = softmax_entropy(logits.float())
    found = softmax_entropy(logits.contiguous(memory_format=memory_format))
    assert torch.equal(found.classes, expected.classes)
    assert torch.equal(found.entropy, expected.entropy)


def test_the_result_is_outside_the_graph():
    assert not softmax_entropy(torch.zeros(1, 3, 2, 2, requires_grad=True)).entropy.requires_grad


@pytest.mark.gpu
def test_the_gpu_agrees():
    logits = smooth_logits(3, images=2)
    logits[0, 3] = -torch.inf
    expected, found = softmax_entropy(logits), softmax_entropy(logits.cuda())
    assert torch.equal(found.classes.cpu(), expected.classes)
    torch.testing.assert_close(found.entropy.cpu(), expected.entropy, atol=5e-6, rtol=0)
