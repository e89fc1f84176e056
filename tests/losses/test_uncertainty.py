import pytest
import torch
from torch.nn import functional as F

from losses import LOSSES, LossSettings, build_loss
from losses.cross_entropy import cross_entropy
from losses.uncertainty import uce, uncertainty_cross_entropy


def both(five_classes, **options):
    logits, labels, uncertainty = five_classes
    return uncertainty_cross_entropy(logits, labels, uncertainty=uncertainty, **options)


@pytest.mark.parametrize("normalize", ["all", "valid"])
@pytest.mark.parametrize(("value", "factor"), [(0.0, 1), (1.0, 4), (0.5, 2.25)])
def test_a_constant_uncertainty_is_a_factor(five_classes, normalize, value, factor):
    logits, labels, _ = five_classes
    constant = torch.full(labels.shape, value)
    loss = uncertainty_cross_entropy(logits, labels, uncertainty=constant, normalize=normalize)
    expected = factor * cross_entropy(logits, labels, normalize=normalize)
    torch.testing.assert_close(loss, expected)
    if value == 0:
        assert loss == expected


def test_the_published_mean_is_over_all_pixels(five_classes):
    logits, labels, uncertainty = five_classes
    pixels = F.cross_entropy(logits, labels.long(), ignore_index=255, reduction="none")
    weighted = (1 + uncertainty) ** 2 * pixels
    torch.testing.assert_close(both(five_classes), weighted.mean())
    valid = weighted.sum() / (labels != 255).sum()
    torch.testing.assert_close(both(five_classes, normalize="valid"), valid)
    assert both(five_classes) < both(five_classes, normalize="valid")


def test_no_gradient_flows_into_the_uncertainty(five_classes):
    logits, labels, uncertainty = five_classes
    uncertainty = uncertainty.clone().requires_grad_()
    uncertainty_cross_entropy(logits, labels, uncertainty=uncertainty).backward()
    assert uncertainty.grad is None
    assert logits.grad.abs().sum() > 0
    logits.grad = None


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0, 10.0])
def test_alpha_is_the_exponent(five_classes, alpha):
    logits, labels, sigma = five_classes
    pixels = F.cross_entropy(logits, labels.long(), ignore_index=255, reduction="none")
    expected = ((1 + sigma) ** alpha * pixels).mean()
    torch.testing.assert_close(uce(logits, labels, uncertainty=sigma, alpha=alpha), expected)
    built = build_loss("uce", LossSettings(alpha=alpha))(logits, labels, sigma)
    torch.testing.assert_close(built, expected)
    if alpha == 2:
        assert uce(logits, labels, uncertainty=sigma, alpha=2) == both(five_classes)


def test_both_read_an_uncertainty_and_cannot_do_without(five_classes):
    reading = [name for name, entry in LOSSES.items() if entry.reads == "uncertainty"]
    assert reading == ["uncertainty_cross_entropy", "uce"]
    with pytest.raises(AssertionError, match="needs the uncertainty"):
        build_loss("uncertainty_cross_entropy")(*five_classes[:2])


def test_half_precision_logits_are_summed_in_float32(five_classes):
    logits, labels, uncertainty = five_classes
    half = uncertainty_cross_entropy(logits.bfloat16(), labels, uncertainty=uncertainty)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(both(five_classes).item(), rel=1e-2)
