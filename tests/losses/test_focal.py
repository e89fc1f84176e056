import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from losses.focal import focal_loss

VOID = 255


def test_published_defaults_are_cross_entropy_over_all_pixels(five_classes):
    logits, labels, _ = five_classes
    summed = F.cross_entropy(logits, labels.long(), ignore_index=VOID, reduction="sum")
    torch.testing.assert_close(focal_loss(logits, labels), summed / labels.numel())


def test_hand_worked_case():
    # p of the label is 3/4: (1 - 3/4)^2 (-log 3/4), times alpha
    logits = torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1)
    labels = torch.zeros(1, 1, 1, dtype=torch.uint8)
    found = focal_loss(logits, labels, gamma=2.0, alpha=0.5)
    assert found.item() == pytest.approx(0.5 * 0.0625 * math.log(4 / 3), rel=1e-6)


def test_two_classes_agree_with_torchvision(two_classes):
    logits, labels, _ = two_classes
    valid = labels != VOID
    margin = (logits[:, 1] - logits[:, 0])[valid]  # the sigmoid of it is the softmax
    expected = sigmoid_focal_loss(margin, labels[valid].float(), alpha=-1, gamma=2, reduction="sum")
    found = focal_loss(logits, labels, gamma=2.0)
    torch.testing.assert_close(found, expected / labels.numel())
    torch.testing.assert_close(
        focal_loss(logits, labels, gamma=2.0, normalize="valid"), expected / valid.sum()
    )


def test_weight_scales_pixels(five_classes):
    logits, labels, _ = five_classes
    left = torch.zeros(labels.shape)
    left[..., :3] = 1
    halves = focal_loss(logits, labels, gamma=2.0, weight=left) + focal_loss(
        logits, labels, gamma=2.0, weight=1 - left
    )
    torch.testing.assert_close(halves, focal_loss(logits, labels, gamma=2.0))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradcheck_in_double_precision(five_classes, gamma):
    logits, labels, weight = five_classes
    double = logits.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: focal_loss(z, labels, gamma=gamma, weight=weight.double()), (double,)
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_certain_pixels_have_finite_gradients(gamma):
    logits = torch.tensor([200.0, 0.0, -200.0]).view(1, 3, 1, 1).expand(1, 3, 1, 3).clone()
    logits.requires_grad_()
    loss = focal_loss(logits, torch.tensor([[[0, 2, VOID]]]), gamma=gamma)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[..., 1].abs().sum() > 0


@pytest.mark.parametrize("normalize", ["valid", "all"])
def test_no_labelled_pixel_gives_zero_and_zero_gradient(five_classes, normalize):
    logits, labels, weight = five_classes
    void = torch.full_like(labels, VOID)
    loss = focal_loss(logits, void, gamma=0.5, weight=weight, normalize=normalize)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()
