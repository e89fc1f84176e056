import math

import numpy as np
import pytest
import torch
from scipy import stats

from tests.uncertainty.maps import published_entropy, smooth_logits
from uncertainty.entropy import mean_softmax_entropy, softmax_entropy
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


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("size", [(11, 13), (301, 253)])
def test_entropy_of_the_mean_softmax_agrees_with_scipy(count, size):
    members = [smooth_logits(2, images=2, size=size, seed=seed) for seed in range(count)]
    found = mean_softmax_entropy(members)
    mean = torch.stack(members).double().softmax(2).mean(0)
    assert torch.equal(found.classes.long(), mean.argmax(1))
    assert found.entropy.dtype == torch.float32
    np.testing.assert_allclose(found.entropy, stats.entropy(mean, axis=1), atol=2e-6, rtol=0)


def test_members_without_doubt_have_the_entropy_of_their_votes():
    votes = torch.tensor([[0.0, 1e4, 0.0], [0.0, 1e4, -torch.inf], [1e4, 0.0, -1e4]])
    found = mean_softmax_entropy([vote[None, :, None, None] for vote in votes])
    assert found.classes.item() == 1
    assert found.entropy.item() == pytest.approx(math.log(3) - 2 / 3 * math.log(2), abs=1e-6)
    certain = mean_softmax_entropy([votes[:1, :, None, None]] * 3)
    assert certain.entropy.item() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_members_of_any_type_and_layout_are_computed_in_float32(dtype):
    members = [smooth_logits(3, images=2, seed=seed).to(dtype) for seed in range(2)]
    expected = mean_softmax_entropy([member.float() for member in members])
    last = members[1].contiguous(memory_format=torch.channels_last).requires_grad_()
    found = mean_softmax_entropy([members[0], last])
    assert torch.equal(found.classes, expected.classes)
    assert torch.equal(found.entropy, expected.entropy)
    assert not found.entropy.requires_grad


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_softmax_agrees_on_the_gpu(dtype):
    members = [smooth_logits(3, images=2, seed=seed).to(dtype) for seed in range(3)]
    members[0][0, 3] = -torch.inf
    expected = mean_softmax_entropy(members)
    found = mean_softmax_entropy([member.cuda() for member in members])
    assert (found.classes.cpu() != expected.classes).float().mean() < 1e-3  # equal to rounding
    torch.testing.assert_close(found.entropy.cpu(), expected.entropy, atol=5e-6, rtol=0)


@pytest.mark.gpu
def test_the_gpu_agrees():
    logits = smooth_logits(3, images=2)
    logits[0, 3] = -torch.inf
    expected, found = softmax_entropy(logits), softmax_entropy(logits.cuda())
    assert torch.equal(found.classes.cpu(), expected.classes)
    torch.testing.assert_close(found.entropy.cpu(), expected.entropy, atol=5e-6, rtol=0)
