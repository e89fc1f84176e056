import numpy as np
import pytest
import torch
from scipy import special

from uncertainty.logit_maps import log_sum_exp, top_logit


@pytest.fixture
def logits():
    return torch.randn(2, 19, 33, 70, generator=torch.Generator().manual_seed(0)) * 5


def test_against_scipy(logits):
    found = log_sum_exp(logits)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(
        found, special.logsumexp(logits.double().numpy(), axis=1), atol=4e-6, rtol=0
    )
    top = top_logit(logits)
    assert torch.equal(top.highest, logits.amax(1))
    assert torch.equal(top.classes.long(), logits.argmax(1))


@pytest.mark.parametrize("change", ["channels_last", "double", "bfloat16", "sliced", "graph"])
def test_any_layout_and_type(logits, change):
    changed = {
        "channels_last": lambda: logits.contiguous(memory_format=torch.channels_last),
        "double": lambda: logits.double(),
        "bfloat16": lambda: logits.bfloat16(),
        "sliced": lambda: logits[1:, :, 3:, ::2],
        "graph": lambda: logits.clone().requires_grad_(),
    }[change]()
    expected = changed.detach().float().logsumexp(1)
    found = log_sum_exp(changed)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected, atol=4e-6, rtol=0)
    assert torch.equal(top_logit(changed).highest, changed.detach().amax(1).float())


def test_extreme_logits():
    logits = torch.tensor([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [5, -torch.inf, -torch.inf]])
    found = log_sum_exp(logits.T.view(1, 3, 1, 3)).flatten().tolist()
    assert found == pytest.approx([1e4, -1e4 + np.log(3), 5])


def test_equal_logits_take_the_first_class():
    assert (top_logit(torch.zeros(1, 7, 2, 2)).classes == 0).all()


def test_changed_logits_are_read_again(logits):
    before = log_sum_exp(logits).clone()
    logits += 1
    torch.testing.assert_close(log_sum_exp(logits), before + 1, atol=4e-6, rtol=0)


@pytest.mark.gpu
def test_the_gpu_agrees(logits):
    torch.testing.assert_close(
        log_sum_exp(logits.cuda()).cpu(), log_sum_exp(logits), atol=4e-6, rtol=0
    )
    for found, expected in zip(top_logit(logits.cuda()), top_logit(logits), strict=True):
        assert torch.equal(found.cpu(), expected)
