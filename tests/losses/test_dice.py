import pytest
import torch
from torch.nn import functional as F

from losses.dice import dice_loss, hybrid_loss

VOID = 255


def test_hand_worked_case():
    # sigmoids 0.5, 0.5 and 0.5 (void); one foreground pixel: 1 - 2 * 0.5 / (1 + 1)
    labels = torch.tensor([[[1, 0, VOID]]], dtype=torch.uint8)
    assert dice_loss(torch.zeros(1, 2, 1, 3), labels).item() == pytest.approx(0.5, abs=1e-6)


def test_reads_the_foreground_channel_alone(two_classes):
    logits, labels, _ = two_classes
    changed = torch.stack([logits[:, 0] + 3, logits[:, 1]], dim=1)
    assert dice_loss(changed, labels) == dice_loss(logits, labels)


def test_agrees_with_segmentation_models_pytorch(two_classes):
    smp = pytest.importorskip("segmentation_models_pytorch")
    logits, labels, _ = two_classes
    reference = smp.losses.DiceLoss("binary", ignore_index=VOID, smooth=1e-6, eps=0)
    expected = reference(logits[:, 1:], labels.float()[:, None])
    torch.testing.assert_close(dice_loss(logits, labels), expected)


def test_perfect_and_opposite_predictions(two_classes):
    _, labels, _ = two_classes
    sure = torch.where(labels == 1, 50.0, -50.0)
    logits = torch.stack([torch.zeros_like(sure), sure], dim=1)
    assert dice_loss(logits, labels).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(-logits, labels).item() == pytest.approx(1, abs=1e-6)


def test_void_and_weightless_pixels_do_not_matter(two_classes):
    logits, labels, _ = two_classes
    expected = dice_loss(logits, labels)
    other = logits.detach().clone()
    other[:, :, 2] = 17  # the void row
    torch.testing.assert_close(dice_loss(other, labels), expected)
    full = torch.where(labels == VOID, 1, labels)
    torch.testing.assert_close(dice_loss(other, full, weight=(labels != VOID).float()), expected)


def test_gradcheck_in_double_precision(two_classes):
    logits, labels, weight = two_classes
    double = logits.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: dice_loss(z, labels, weight=weight.double()), (double,)
    )


def test_hybrid_is_the_mean_of_its_parts(two_classes):
    logits, labels, _ = two_classes
    entropy = F.cross_entropy(logits, labels.long(), ignore_index=VOID)
    torch.testing.assert_close(
        hybrid_loss(logits, labels), 0.5 * entropy + 0.5 * dice_loss(logits, labels)
    )


@pytest.mark.parametrize("loss_function", [dice_loss, hybrid_loss])
def test_no_labelled_pixel_gives_zero_and_zero_gradient(two_classes, loss_function):
    logits, labels, weight = two_classes
    loss = loss_function(logits, torch.full_like(labels, VOID), weight=weight)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_more_than_two_classes_are_refused(five_classes):
    logits, labels, _ = five_classes
    with pytest.raises(ValueError, match="2 classes; this one has 5"):
        dice_loss(logits, labels)
