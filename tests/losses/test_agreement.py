import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from scipy.stats import entropy
from torch._subclasses.fake_tensor import FakeTensorMode

from losses.agreement import (
    confidence_weighted_entropy,
    disagreement,
    log_probabilities,
    memory_regularization,
    pixel_divergence,
)

LOSSES = {
    "fused": memory_regularization,
    "symmetric": lambda main, aux: memory_regularization(main, aux, target="symmetric"),
    "entropy": confidence_weighted_entropy,
    "disagreement": lambda main, aux: disagreement(main, aux).mean(),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@pytest.fixture
def heads():
    """Logits (2, 5, 6, 7) of two heads, in double precision."""
    generator = torch.Generator().manual_seed(4)
    return [
        torch.randn(2, 5, 6, 7, generator=generator, dtype=torch.float64).mul_(2).requires_grad_()
        for _ in range(2)
    ]


def distributions(*logits):
    return [softmax(each.detach().numpy(), axis=1) for each in logits]


def test_disagreement_is_scipy_s_divergence_with_the_first_as_reference(heads):
    main, aux = distributions(*heads)
    found = disagreement(*heads)
    assert found.shape == (2, 6, 7)
    np.testing.assert_allclose(found.detach(), entropy(main, aux, axis=1), rtol=1e-10)
    np.testing.assert_allclose(disagreement(*heads[::-1]).detach(), entropy(aux, main, axis=1))


def test_symmetric_regularization_is_scipy_s(heads):
    main, aux = distributions(*heads)
    expected = (rel_entr(main, aux) + rel_entr(aux, main)).sum(1).mean()
    found = memory_regularization(*heads, target="symmetric")
    assert found.item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("fuse_weight", [0.0, 0.5, 1.0])
def test_fused_regularization_is_scipy_s_sum_over_the_number_of_pixels(heads, fuse_weight):
    main, aux = distributions(*heads)
    (teacher,) = distributions(heads[0] + fuse_weight * heads[1])
    expected = (rel_entr(teacher, main) + rel_entr(teacher, aux)).sum() / (2 * 6 * 7)
    found = memory_regularization(*heads, fuse_weight=fuse_weight)
    assert found.item() == pytest.approx(expected, rel=1e-10)


def test_confidence_weighted_entropy_is_scipy_s(heads):
    (fused,) = distributions(heads[0] + 0.5 * heads[1])
    expected = ((fused**2).sum(1) * entropy(fused, axis=1)).mean()
    assert confidence_weighted_entropy(*heads).item() == pytest.approx(expected, rel=1e-10)


def test_the_fused_teacher_has_no_gradient(heads):
    main, aux = heads
    found = torch.autograd.grad(memory_regularization(main, aux), heads)
    teacher = (main + 0.5 * aux).softmax(1).detach()
    for gradient, head in zip(found, heads, strict=True):
        # Of KL(m || S(z)) with m held fast: S(z) - m.
        torch.testing.assert_close(gradient, (head.softmax(1) - teacher) / (2 * 6 * 7))


def test_the_confidence_has_no_gradient(heads):
    main, aux = heads
    found = torch.autograd.grad(confidence_weighted_entropy(main, aux), heads)
    probs = (main + 0.5 * aux).softmax(1)
    confidence = probs.square().sum(1).detach()
    expected = -(confidence * (probs * probs.log()).sum(1)).mean()
    for gradient, wanted in zip(found, torch.autograd.grad(expected, heads), strict=True):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize(
    "loss", [LOSSES["symmetric"], LOSSES["disagreement"]], ids=["symmetric", "disagreement"]
)
def test_gradcheck_of_both_heads(heads, loss):
    assert torch.autograd.gradcheck(loss, heads)


def test_gradcheck_before_the_softmaxes(heads):
    logs = [log_probabilities(head).detach().requires_grad_() for head in heads]
    assert torch.autograd.gradcheck(pixel_divergence, logs)


def test_gradcheck_of_each_head_alone(heads):
    main, aux = heads
    fixed_main, fixed_aux = main.detach(), aux.detach()
    assert torch.autograd.gradcheck(lambda z: disagreement(z, fixed_aux), (main,))
    assert torch.autograd.gradcheck(lambda z: disagreement(fixed_main, z), (aux,))


def test_symmetric_is_zero_where_the_heads_agree_and_only_there(heads):
    main, _ = heads
    same = memory_regularization(main, main + 3.0, target="symmetric")
    assert same.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(same, main)[0].abs().max() < 1e-12
    other = main.detach().clone()
    other[0, 0, 0, 0] += 0.1
    assert memory_regularization(main, other, target="symmetric") > 1e-7


def test_fused_draws_heads_that_agree_to_be_surer(heads):
    both, other = (head.detach() for head in heads)
    agreed = both.clone().requires_grad_()
    loss = memory_regularization(agreed, agreed)
    (sharper,) = distributions(1.5 * both)
    (plain,) = distributions(both)
    assert loss.item() == pytest.approx(2 * rel_entr(sharper, plain).sum(1).mean(), rel=1e-10)
    (step,) = torch.autograd.grad(loss, agreed)
    (surer,) = distributions(both - step)
    assert entropy(surer, axis=1).mean() < entropy(plain, axis=1).mean()
    # A teacher that is no sharper: of one head alone, or of heads that know nothing.
    flat = torch.zeros_like(both)
    assert memory_regularization(both, both + 3.0, fuse_weight=0.0).abs() < 1e-12
    assert memory_regularization(flat, flat + 3.0).abs() < 1e-12
    assert memory_regularization(both, other, fuse_weight=0.0) > 0.01


def test_never_negative_where_heads_almost_agree():
    main = torch.randn(4, 19, 32, 32, generator=torch.Generator().manual_seed(0)) * 20
    almost = main * (1 + 1e-7)
    assert disagreement(main, almost).min() >= 0
    assert disagreement(main, almost).max() < 1e-5
    assert not disagreement(main, main).any()


def test_entropy_lies_between_zero_and_that_of_the_uniform_distribution(heads):
    assert 0 < confidence_weighted_entropy(*heads) < np.log(5)
    flat = torch.zeros(1, 5, 2, 2)
    assert confidence_weighted_entropy(flat, flat).item() == pytest.approx(np.log(5) / 5)


@every_loss
def test_constants_added_to_a_pixel_s_logits_change_nothing(heads, loss):
    main, aux = (head.detach().float() for head in heads)
    shift = torch.linspace(-5, 5, 42).view(1, 1, 6, 7)
    torch.testing.assert_close(
        loss(main + shift, aux - 2 * shift), loss(main, aux), atol=1e-5, rtol=0
    )


@every_loss
def test_bfloat16_is_within_two_percent(heads, loss):
    main, aux = (head.detach().float() for head in heads)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = loss(main.bfloat16(), aux.bfloat16())
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, loss(main, aux), rtol=0.02, atol=0)


@every_loss
def test_logits_up_to_sixty_stay_finite(heads, loss):
    extreme = [(head.detach().float().sign() * 60).requires_grad_() for head in heads]
    found = loss(*extreme)
    assert found.isfinite()
    for gradient in torch.autograd.grad(found, extreme):
        assert gradient.isfinite().all()


def test_log_probabilities_are_wide_and_sum_to_one(heads):
    for logits, wide in ((heads[0].bfloat16(), torch.float32), (heads[0], torch.float64)):
        found = log_probabilities(logits)
        assert found.dtype == wide
        torch.testing.assert_close(found.exp().sum(1), torch.ones(2, 6, 7, dtype=wide))


def test_the_divergence_keeps_only_what_the_softmaxes_keep():
    kept = set()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.add(tensor.untyped_storage().data_ptr()) or tensor, lambda kept: kept
    ):
        main, aux = (torch.randn(1, 5, 6, 7, requires_grad=True) for _ in range(2))
        loss = memory_regularization(main, aux, target="symmetric")
    assert len(kept) == 2
    loss.backward()
    assert main.grad.any()


def test_nothing_depends_on_what_only_the_device_knows():
    with FakeTensorMode() as fakes:  # refuses to read values or to make shapes of them
        main, aux = (torch.randn(2, 5, 6, 7, requires_grad=True) for _ in range(2))
        for loss in LOSSES.values():
            loss(main, aux).backward()
        assert fakes is aux.grad.fake_mode
