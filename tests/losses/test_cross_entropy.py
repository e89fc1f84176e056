import math

import pytest
import torch
from torch.nn import functional as F

from losses.cross_entropy import cross_entropy

VOID = 255


def test_mean_over_labelled_pixels_is_torch_s(five_classes):
    logits, labels, _ = five_classes
    expected = F.cross_entropy(logits, labels.long(), ignore_index=VOID)
    torch.testing.assert_close(cross_entropy(logits, labels), expected)


def test_gradient_is_torch_s(five_classes):
    logits, labels, _ = five_classes
    (expected,) = torch.autograd.grad(
        F.cross_entropy(logits, labels.long(), ignore_index=VOID), logits
    )
    (found,) = torch.autograd.grad(cross_entropy(logits, labels), logits)
    torch.testing.assert_close(found, expected)


def test_hand_worked_case():
    logits = torch.zeros(1, 2, 1, 4)
    labels = torch.tensor([[[0, 1, VOID, VOID]]], dtype=torch.uint8)
    assert cross_entropy(logits, labels).item() == pytest.approx(math.log(2))
    assert cross_entropy(logits, labels, normalize="all").item() == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("label_type", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_integer_type(five_classes, label_type):
    logits, labels, _ = five_classes
    assert cross_entropy(logits, labels.to(label_type)) == cross_entropy(logits, labels)


def test_class_weights_divide_by_their_sum_as_torch_does(five_classes):
    logits, labels, _ = five_classes
    class_weights = torch.tensor([0.1, 2.0, 1.0, 0.5, 7.0])
    expected = F.cross_entropy(logits, labels.long(), class_weights, ignore_index=VOID)
    torch.testing.assert_close(cross_entropy(logits, labels, class_weights=class_weights), expected)
    summed = F.cross_entropy(
        logits, labels.long(), class_weights, ignore_index=VOID, reduction="sum"
    )
    torch.testing.assert_close(
        cross_entropy(logits, labels, class_weights=class_weights, normalize="all"),
        summed / labels.numel(),
    )


def test_weight_scales_pixels_and_not_the_divisor(five_classes):
    logits, labels, weight = five_classes
    pixels = F.cross_entropy(logits, labels.long(), ignore_index=VOID, reduction="none")
    valid = (labels != VOID).sum()
    torch.testing.assert_close(
        cross_entropy(logits, labels, weight=weight), (weight * pixels).sum() / valid
    )
    torch.testing.assert_close(
        cross_entropy(logits, labels, weight=torch.full_like(weight, 4.0)),
        4 * cross_entropy(logits, labels),
    )


@pytest.mark.parametrize("normalize", ["valid", "all"])
@pytest.mark.parametrize("class_weights", [None, torch.ones(5)])
def test_no_labelled_pixel_gives_zero_and_zero_gradient(five_classes, normalize, class_weights):
    logits, labels, weight = five_classes
    loss = cross_entropy(
        logits,
        torch.full_like(labels, VOID),
        weight=weight,
        class_weights=class_weights,
        normalize=normalize,
    )
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_float32_for_bfloat16_logits_and_under_autocast(five_classes):
    logits, labels, _ = five_classes
    low = logits.detach().bfloat16()
    expected = cross_entropy(low.float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        found = cross_entropy(low, labels)
    assert found.dtype == torch.float32
    assert found == expected
    assert cross_entropy(logits.double(), labels).dtype == torch.float64
