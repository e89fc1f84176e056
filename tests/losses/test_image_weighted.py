import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from losses.image_weighted import class_shares, image_weighted_cross_entropy
from utils.types import IGNORE_INDEX as VOID


def by_loops(logits, labels, bound, over="image"):
    """Loss of every image, after the formula, pixel by pixel."""
    num_classes = logits.shape[1]
    probabilities = logits.double().softmax(1)
    losses = []
    for image, label in enumerate(labels.numpy()):
        pool = labels.numpy() if over == "batch" else label
        counts = np.bincount(pool[pool != VOID].ravel(), minlength=num_classes)
        share = counts / max(counts.sum(), 1)
        class_weight = np.where(share > 0, 1 + bound * (1 - share), 1)
        total = divisor = 0.0
        for row, column in zip(*np.nonzero(label != VOID), strict=True):
            known = label[row, column]
            total -= class_weight[known] * math.log(probabilities[image, known, row, column])
            divisor += class_weight[known]
        losses.append(total / divisor if divisor else 0.0)
    return losses


@pytest.fixture
def three_images():
    """Logits (3, 5, 6, 7) and labels: of few classes, of all, and void alone."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 5, 6, 7, generator=generator).mul_(3).requires_grad_()
    labels = torch.randint(0, 5, (3, 6, 7), generator=generator)
    labels[0] = labels[0].clamp(max=1)
    labels[:2, 2] = VOID
    labels[2] = VOID
    return logits, labels


@pytest.mark.parametrize("label_type", [torch.uint8, torch.int32, torch.int64])
def test_shares_are_numpy_s(three_images, label_type):
    _, labels = three_images
    found = class_shares(labels.to(label_type), 5)
    assert found.dtype == torch.float32
    for label, shares in zip(labels.numpy(), found, strict=True):
        counts = np.bincount(label[label != VOID], minlength=5)
        np.testing.assert_allclose(shares, counts / max(counts.sum(), 1), rtol=1e-6)
    assert found.sum(1).tolist() == pytest.approx([1, 1, 0])


def test_hand_worked_case():
    # Three pixels of class 0, one of class 1: w = (1 + 6 / 4, 1 + 6 * 3 / 4) = (2.5, 5.5).
    logits = torch.zeros(1, 3, 1, 5)
    logits[0, 1, 0, 3] = math.log(2)
    labels = torch.tensor([[[0, 0, 0, 1, VOID]]], dtype=torch.uint8)
    expected = (3 * 2.5 * math.log(3) + 5.5 * math.log(2)) / (3 * 2.5 + 5.5)
    found = image_weighted_cross_entropy(logits, labels, bound=6.0)
    assert found.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("bound", [1.0, 6.0])
def test_formula_pixel_by_pixel(three_images, over, bound):
    logits, labels = three_images
    losses = by_loops(logits.detach(), labels, bound, over)
    for reduction, expected in (("sum", sum(losses)), ("mean", sum(losses) / 3)):
        found = image_weighted_cross_entropy(
            logits, labels, bound=bound, over=over, reduction=reduction
        )
        assert found.item() == pytest.approx(expected, rel=1e-5)


def test_bound_0_is_the_mean_over_images_of_plain_cross_entropy(three_images):
    logits, labels = three_images
    losses = [
        F.cross_entropy(one[None], label[None], ignore_index=VOID)
        for one, label in zip(logits[:2], labels[:2], strict=True)
    ]
    found = image_weighted_cross_entropy(logits[:2], labels[:2], bound=0.0)
    torch.testing.assert_close(found, (losses[0] + losses[1]) / 2)
    found = image_weighted_cross_entropy(logits[:1], labels[:1], bound=0.0)
    torch.testing.assert_close(found, losses[0])


@pytest.mark.parametrize("over", ["image", "batch"])
def test_the_value_of_void_does_not_matter(three_images, over):
    logits, labels = three_images
    expected = image_weighted_cross_entropy(logits, labels, bound=6.0, over=over)
    for void in (5, -1):
        other = labels.masked_fill(labels == VOID, void)
        found = image_weighted_cross_entropy(logits, other, bound=6.0, over=over, ignore_index=void)
        assert found == expected


@pytest.mark.parametrize("size", [1, 2, 3])
def test_sum_of_a_batch_is_the_sum_of_its_images(three_images, size):
    logits, labels = three_images[0][:size], three_images[1][:size]
    singles = [
        image_weighted_cross_entropy(one[None], label[None], bound=6.0)
        for one, label in zip(logits, labels, strict=True)
    ]
    found = image_weighted_cross_entropy(logits, labels, bound=6.0, reduction="sum")
    torch.testing.assert_close(found, sum(singles))


def test_shares_of_the_batch_weigh_what_is_rare_in_all_images():
    labels = torch.tensor([[[0, 0, 0, 0]], [[0, 0, 0, 1]]])
    logits = torch.zeros(2, 2, 1, 4)
    logits[1, 1] = 2.0  # a loss that differs between the two classes
    weights = {"image": (1.25, 1.75), "batch": (1.125, 1.875)}  # of the second image, bound 1
    nll = F.cross_entropy(logits, labels, reduction="none")
    for over, (common, rare) in weights.items():
        second = (common * nll[1, 0, :3].sum() + rare * nll[1, 0, 3]) / (3 * common + rare)
        found = image_weighted_cross_entropy(logits, labels, over=over, reduction="sum")
        torch.testing.assert_close(found, nll[0].mean() + second)


def test_weight_scales_pixels_and_not_the_divisor(three_images):
    logits, labels = three_images
    plain = image_weighted_cross_entropy(logits, labels, bound=6.0)
    weight = torch.full(labels.shape, 4.0)
    found = image_weighted_cross_entropy(logits, labels, weight=weight, bound=6.0)
    torch.testing.assert_close(found, 4 * plain)
    weight[0] = 0
    rest = image_weighted_cross_entropy(logits[1:2], labels[1:2], bound=6.0, reduction="sum")
    found = image_weighted_cross_entropy(logits, labels, weight=weight, bound=6.0, reduction="sum")
    torch.testing.assert_close(found, 4 * rest)


@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_no_labelled_pixel_gives_zero_and_zero_gradient(three_images, over, reduction):
    logits, labels = three_images
    loss = image_weighted_cross_entropy(
        logits, torch.full_like(labels, VOID), over=over, reduction=reduction
    )
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_an_empty_image_changes_nothing_but_the_divisor_of_the_mean(three_images):
    logits, labels = three_images
    two = image_weighted_cross_entropy(logits[:2], labels[:2])
    torch.testing.assert_close(image_weighted_cross_entropy(logits, labels), two * 2 / 3)


@pytest.mark.parametrize("over", ["image", "batch"])
def test_gradient(three_images, over):
    logits, labels = three_images
    wide = logits.detach()[:, :, :3, :3].double().requires_grad_()
    weight = torch.rand(3, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda given: image_weighted_cross_entropy(
            given, labels[:, :3, :3], weight=weight, bound=6.0, over=over
        ),
        wide,
    )


@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_finite_for_huge_logits(three_images, scale):
    logits = three_images[0].detach().sign().mul_(scale).requires_grad_()
    loss = image_weighted_cross_entropy(logits, three_images[1], bound=6.0)
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    assert logits.grad.isfinite().all()


def test_float32_for_bfloat16_logits_and_under_autocast(three_images):
    low, labels = three_images[0].detach().bfloat16(), three_images[1]
    expected = image_weighted_cross_entropy(low.float(), labels, bound=6.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = image_weighted_cross_entropy(low, labels, bound=6.0)
    assert found.dtype == torch.float32
    assert found == expected
    assert image_weighted_cross_entropy(low.double(), labels).dtype == torch.float64


def test_a_negative_bound_is_refused(three_images):
    with pytest.raises(ValueError, match="class weights is -2; it must be at least 0"):
        image_weighted_cross_entropy(*three_images, bound=-2.0)


@pytest.mark.parametrize("over", ["image", "batch"])
def test_nothing_depends_on_values_that_would_have_to_be_waited_for(three_images, over):
    # The meta device has shapes alone: reading a value, a mask index or a bincount fails there.
    logits = three_images[0].detach().to("meta").requires_grad_()
    loss = image_weighted_cross_entropy(logits, three_images[1].to("meta"), over=over)
    loss.backward()
    assert loss.shape == ()
    assert logits.grad.shape == logits.shape
