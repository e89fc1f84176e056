"""Pretended under-fitting against its formula, and re-weighting, which comes before it."""

import math

import pytest
import torch
from torch.nn import functional as F

from losses import LOSSES, LossSettings, build_loss
from losses.cross_entropy import cross_entropy, pixel_cross_entropy
from losses.focal import focal_loss
from losses.underfitting import Underfitting, pretended_underfitting
from utils.types import IGNORE_INDEX

KINDS = ("clamp", "pow", "ignore")
PIXELS = torch.tensor(12.0)


@pytest.fixture
def losses():
    """Twelve losses from 0 to 2.2, mean 1.1."""
    return (torch.arange(12, dtype=torch.float64) / 5).view(1, 3, 4).requires_grad_()


def gradient(value, losses):
    return torch.autograd.grad(value, losses)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", [0.0, 0.7, "mean"])
def test_a_mean_of_beta_or_more_is_left_alone(losses, kind, beta):
    limit = losses.mean().item() if beta == "mean" else beta
    found = pretended_underfitting(losses, kind=kind, beta=limit, k=0.5, divisor=PIXELS)
    assert found == losses.mean()
    assert torch.equal(gradient(found, losses), torch.full_like(losses, 1 / 12))


@pytest.mark.parametrize("k", [0.3, 0.4, 1.0, 2.15])
def test_the_clamp_keeps_the_gradient_up_to_k_and_none_above(losses, k):
    found = pretended_underfitting(losses, kind="clamp", beta=1.2, k=k, divisor=PIXELS)
    values = losses.flatten().tolist()
    assert found.item() == pytest.approx(sum(min(value, k) for value in values) / 12, rel=1e-12)
    expected = torch.tensor([1 / 12 * (value <= k) for value in values], dtype=torch.float64)
    torch.testing.assert_close(gradient(found, losses).flatten(), expected)


def test_the_power_and_the_cut_are_their_formulas(losses):
    values = losses.flatten().tolist()
    for k in (0.5, 0.8, 2.0):
        found = pretended_underfitting(losses, kind="pow", beta=1.2, k=k, divisor=PIXELS)
        assert found.item() == pytest.approx(sum((one + 1e-9) ** k for one in values) / 12)
        assert gradient(found, losses).isfinite().all()
        found = pretended_underfitting(losses, kind="ignore", beta=1.2, k=k, divisor=PIXELS)
        assert found.item() == pytest.approx(sum(one for one in values if one <= k) / 12)
        assert (gradient(found, losses).flatten() > 0).tolist() == [one <= k for one in values]


def test_a_large_k_and_a_power_of_one_change_nothing(losses):
    for kind, k in (("clamp", 1e3), ("ignore", 1e3), ("pow", 1.0)):
        found = pretended_underfitting(losses, kind=kind, beta=9.0, k=k, divisor=PIXELS)
        torch.testing.assert_close(found, losses.mean(), rtol=0, atol=2e-9)
        torch.testing.assert_close(gradient(found, losses), torch.full_like(losses, 1 / 12))


def test_void_lowers_the_mean_unless_the_labelled_pixels_alone_count(losses):
    """The mean is 1.0 over all and 1.5 over the last eight."""
    labelled = torch.arange(12).view(1, 3, 4) >= 4
    given = losses * labelled  # 0 where there is no label
    chosen = {"kind": "clamp", "beta": 1.2, "k": 0.5}
    everywhere = pretended_underfitting(given, **chosen, divisor=PIXELS)
    assert everywhere.item() == pytest.approx(8 * 0.5 / 12)
    few = {"labelled": labelled, "divisor": torch.tensor(8.0)}
    assert pretended_underfitting(given, **chosen, **few) == given.sum() / 8
    low = {**chosen, "beta": 2.0}
    assert pretended_underfitting(given, **low, **few).item() == pytest.approx(0.5)
    power = pretended_underfitting(given, kind="pow", beta=9, k=0.5, **few)
    assert power.item() == pytest.approx(sum(math.sqrt(n / 5) for n in range(4, 12)) / 8)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_labelled_pixel_the_loss_and_its_gradient_are_zero(losses, kind):
    nowhere = torch.zeros_like(losses, dtype=torch.bool)
    none = {"labelled": nowhere, "divisor": torch.tensor(1.0)}
    found = pretended_underfitting(losses, kind=kind, beta=0.5, k=0.5, **none)
    assert found == 0
    assert (gradient(found, losses) == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_read_back_from_the_device(kind):
    """Values on the meta device cannot be read at all."""
    logits = torch.empty(2, 5, 6, 7, device="meta", requires_grad=True)
    labels = torch.empty(2, 6, 7, dtype=torch.uint8, device="meta")
    for normalize in ("all", "valid"):
        settings = LossSettings(normalize=normalize, underfit=kind)
        loss = build_loss("cross_entropy", settings)(logits, labels)
        loss.backward()
        assert loss.device == logits.grad.device == logits.device


PIXELWISE = (
    *("cross_entropy", "class_weighted_cross_entropy", "focal_loss"),
    *("uncertainty_cross_entropy", "uce"),
)
CLASS_WEIGHTS = torch.tensor([0.1, 2.0, 1.0, 0.5, 7.0])


def both(name, case, normalize, **underfitting):
    """The loss with and without it, each with its gradient."""
    logits, labels, pixels = case
    common = {
        **{"class_weights": CLASS_WEIGHTS, "normalize": normalize},
        **{"focal_gamma": 1.5, "focal_alpha": 0.5, "alpha": 3.0},
    }
    found = []
    for settings in (LossSettings(**common, **underfitting), LossSettings(**common)):
        value = build_loss(name, settings)(logits, labels, pixels)
        found.append((value, gradient(value, logits)))
    return found


def test_it_is_for_losses_of_pixels():
    assert tuple(name for name, entry in LOSSES.items() if entry.pixelwise) == PIXELWISE
    for name in LOSSES.keys() - set(PIXELWISE):
        with pytest.raises(ValueError, match=f"of which {name} is no mean: it goes with cross_ent"):
            build_loss(name, LossSettings(underfit="clamp"))


@pytest.mark.parametrize("name", PIXELWISE)
@pytest.mark.parametrize("normalize", ["valid", "all"])
def test_every_loss_of_pixels_has_it(five_classes, name, normalize):
    for kind in KINDS:
        same, plain = both(name, five_classes, normalize, underfit=kind, underfit_beta=0.0)
        assert same[0] == plain[0]
        assert torch.equal(same[1], plain[1])
        low = {"underfit": kind, "underfit_beta": 1e6, "underfit_k": 0.3}
        other, plain = both(name, five_classes, normalize, **low)
        assert (other[0] < plain[0]) or kind == "pow"
        assert other[0] != plain[0]
    large = {"underfit": "clamp", "underfit_beta": 1e6, "underfit_k": 1e6}
    same, plain = both(name, five_classes, normalize, **large)
    assert same[0] == plain[0]
    torch.testing.assert_close(same[1], plain[1])


def test_weights_come_first(five_classes):
    logits, labels, weight = five_classes
    weighted = weight * pixel_cross_entropy(logits, labels)
    mean = weighted.mean().item()
    for beta in (0.99 * mean, 1.01 * mean):  # the test is on the weighted mean, too
        how = Underfitting("clamp", beta, 0.5)
        found = cross_entropy(logits, labels, weight=weight, normalize="all", underfit=how)
        expected = weighted.clamp(max=0.5).mean() if mean < beta else weighted.mean()
        torch.testing.assert_close(found, expected)


def test_void_has_no_power_where_labelled_pixels_alone_count(five_classes):
    """The published mean over all pixels has (0 + 1e-9)^k of them, another k shows them."""
    logits, labels, _ = five_classes
    pixels = pixel_cross_entropy(logits, labels)
    how = Underfitting("pow", 1e6, 0.1)
    power = (pixels + 1e-9) ** 0.1
    found = cross_entropy(logits, labels, normalize="all", underfit=how)
    torch.testing.assert_close(found, power.mean())
    found = cross_entropy(logits, labels, normalize="valid", underfit=how)
    torch.testing.assert_close(found, power[labels != IGNORE_INDEX].mean())


def test_the_factor_of_the_focal_loss_comes_first(five_classes):
    logits, labels, _ = five_classes
    plain = pixel_cross_entropy(logits, labels).mean()
    how = Underfitting("clamp", 0.75 * plain.item(), 0.1)
    found = focal_loss(logits, labels, alpha=0.5, underfit=how)  # half of the mean is below beta
    expected = (0.5 * pixel_cross_entropy(logits, labels)).clamp(max=0.1).mean()
    torch.testing.assert_close(found, expected)


def test_reweighting_is_a_mean_over_all_pixels(five_classes):
    """Weights of 1 change nothing; a flagged pixel has that share of its own gradient."""
    logits, labels, _ = five_classes
    labels = labels.clone()
    loss = build_loss("cross_entropy", LossSettings(normalize="all"))
    pixels = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE_INDEX, reduction="none")
    plain = loss(logits, labels, torch.ones(labels.shape))
    torch.testing.assert_close(plain, pixels.sum() / labels.numel())
    assert plain == loss(logits, labels)
    weight = torch.ones(labels.shape)
    weight[0, 4] = 0.05
    value = loss(logits, labels, weight)
    torch.testing.assert_close(value, (weight * pixels).sum() / labels.numel())
    share = gradient(value, logits) / gradient(plain, logits)
    assert share[0, :, 4].sub(0.05).abs().max() < 1e-7
    assert (share[1, :, 3:] == 1).all()
    assert (gradient(loss(logits, labels, weight), logits)[:, :, 2] == 0).all()  # void
