from itertools import product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from losses.relaxed_boundary import (
    boundary_pixels,
    relaxed_boundary_loss,
    relaxed_target,
    set_cross_entropy,
)
from utils.types import IGNORE_INDEX as VOID

CLASSES = 5


def target_by_loops(labels, num_classes, window, strict):
    """The target, neighbour by neighbour."""
    images, height, width = labels.shape
    target = np.zeros((images, num_classes + 1, height, width), bool)
    offsets = range(-window, window + 1)
    for image, row, column in np.ndindex(labels.shape):
        own = labels[image, row, column]
        for down, right in [(0, 0)] if own in strict else product(offsets, offsets):
            y, x = row + down, column + right
            inside = 0 <= y < height and 0 <= x < width
            label = labels[image, y, x] if inside else VOID
            target[image, num_classes if label == VOID else label, row, column] = True
    return target


def boundary_by_loops(label):
    """Whether a 4-neighbour inside of one image (H, W) has another label, pixel by pixel."""
    found = np.zeros(label.shape, bool)
    for row, column in np.ndindex(label.shape):
        for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= y < label.shape[0] and 0 <= x < label.shape[1]:
                found[row, column] |= label[row, column] != label[y, x]
    return found


def published_loss(
    logits, label, *, window=1, strict=(), relaxed=True, bound=1.0, boundary_weight=2
):
    """Loss of one image (C, H, W) as published, in probabilities: nan where those underflow."""
    num_classes = len(logits)
    target = target_by_loops(label[None], num_classes, window if relaxed else window // 2, strict)
    target = target[0].astype(float)
    if not relaxed:
        target[:, boundary_by_loops(label)] *= boundary_weight
    share = target.sum((1, 2)) / target.sum()
    omega = np.where(share > 0, 1 + bound * (1 - share), 1)[:-1]
    entries = target[:-1].sum(0)
    ignored = entries == 0
    entries[ignored] = 1
    factor = 1 / entries if relaxed else entries
    members = (target[:-1] > 0).astype(float)
    probabilities = np.exp(logits - logits.max(0))
    probabilities /= probabilities.sum(0)
    q = np.maximum(probabilities, members * (members * probabilities).sum(0))
    assert (q >= probabilities).all()
    pixels = -factor * (members * omega[:, None, None] * np.log(q)).sum(0)
    return pixels[~ignored].sum() / (ignored.size - ignored.sum() + 1)


@pytest.fixture
def three_images():
    """Logits (3, 5, 9, 8) and labels in blobs, with void; the second has void at an edge."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, CLASSES, 9, 8, generator=generator).mul_(3).requires_grad_()
    labels = torch.randint(0, CLASSES, (3, 3, 4), generator=generator)
    labels = labels.repeat_interleave(3, 1).repeat_interleave(2, 2)
    labels[0, 3:8, 2:6] = VOID
    labels[1, :, 5:] = VOID
    labels[2, 4, 4] = (labels[2, 4, 4] + 1) % CLASSES
    return logits, labels.to(torch.uint8)


@pytest.mark.parametrize("strict", [(), (1, 3)])
@pytest.mark.parametrize("window", [0, 1, 2])
@pytest.mark.parametrize("label_type", [torch.uint8, torch.int64])
def test_target_is_the_set_of_the_neighbourhood(three_images, window, strict, label_type):
    labels = three_images[1]
    found = relaxed_target(labels.to(label_type), CLASSES, window=window, strict_classes=strict)
    assert found.dtype == torch.bool
    np.testing.assert_array_equal(found, target_by_loops(labels.numpy(), CLASSES, window, strict))


@pytest.mark.parametrize("num_classes", [65, 255])
def test_target_of_many_classes(num_classes):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, num_classes, (2, 5, 6), generator=generator, dtype=torch.int32)
    labels[0, 2:4, 1:3] = VOID
    labels[1, 0, 0] = num_classes - 1
    found = relaxed_target(labels, num_classes)
    np.testing.assert_array_equal(found, target_by_loops(labels.numpy(), num_classes, 1, ()))


def test_target_of_an_image_smaller_than_the_window():
    found = relaxed_target(torch.tensor([[[2]]]), 3, window=4)
    assert found.flatten().tolist() == [False, False, True, True]


def test_strict_pixels_are_one_hot_and_others_still_see_them(three_images):
    labels = three_images[1]
    target = relaxed_target(labels, CLASSES, strict_classes=(2,))
    strict = labels == 2
    sizes = target.sum(1)
    assert (sizes[strict] == 1).all()
    assert target[:, 2][strict].all()
    assert target[:, 2][~strict].any()


def test_boundary_pixels_have_another_4_neighbour(three_images):
    labels = three_images[1]
    expected = np.stack([boundary_by_loops(label) for label in labels.numpy()])
    np.testing.assert_array_equal(boundary_pixels(labels), expected)
    assert expected.any()
    assert not expected.all()
    corner = torch.tensor([[[0, 0, 0], [0, 0, 0], [0, 0, VOID]]])
    assert boundary_pixels(corner)[0].nonzero().tolist() == [[1, 2], [2, 1], [2, 2]]


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_boundary_pixels_of_thin_images(shape):
    labels = torch.arange(shape[0] * shape[1]).view(1, *shape)
    assert boundary_pixels(labels).all() == (labels.numel() > 1)


def test_set_cross_entropy_is_that_of_the_sets_probability(three_images):
    logits, labels = three_images
    members = relaxed_target(labels, CLASSES)[:, :CLASSES]
    probability = (logits.double().softmax(1) * members).sum(1)
    found = set_cross_entropy(logits, members)
    empty = ~members.any(1)
    torch.testing.assert_close(found, torch.where(empty, 0, -probability.log()).float())
    assert empty.any()
    assert (found[empty] == 0).all()
    assert (found >= 0).all()


def test_set_cross_entropy_of_one_class_is_cross_entropy_and_of_all_is_0(three_images):
    logits, labels = three_images
    known = labels.long() % CLASSES
    members = F.one_hot(known, CLASSES).permute(0, 3, 1, 2).bool()
    expected = F.cross_entropy(logits, known, reduction="none")
    found = set_cross_entropy(logits, members)
    torch.testing.assert_close(found, expected)
    given = torch.autograd.grad(found.square().sum(), logits)
    torch.testing.assert_close(given, torch.autograd.grad(expected.square().sum(), logits))
    everything = set_cross_entropy(logits, torch.ones_like(members))
    assert (everything == 0).all()
    assert torch.autograd.grad(everything.sum(), logits)[0].abs().max() < 1e-6


def test_a_larger_set_never_costs_more(three_images):
    logits, labels = three_images
    members = relaxed_target(labels, CLASSES, window=1)[:, :CLASSES]
    more = relaxed_target(labels, CLASSES, window=2)[:, :CLASSES]
    some = members.any(1)
    less = (set_cross_entropy(logits, members) - set_cross_entropy(logits, more))[some]
    assert (less >= -1e-6).all()
    assert (less > 0.1).any()


@pytest.mark.parametrize("bound", [0.0, 1.0, 6.0])
@pytest.mark.parametrize("strict", [(), (0, 4)])
@pytest.mark.parametrize(
    ("window", "relaxed"), [(1, True), (2, True), (0, True), (1, False), (2, False), (3, False)]
)
def test_the_published_formula(three_images, window, relaxed, strict, bound):
    logits, labels = three_images
    settings = {"window": window, "relaxed": relaxed, "bound": bound}
    losses = [
        published_loss(one.double().detach().numpy(), label.numpy(), strict=strict, **settings)
        for one, label in zip(logits, labels, strict=True)
    ]
    for reduction, expected in (("sum", sum(losses)), ("mean", sum(losses) / 3)):
        found = relaxed_boundary_loss(
            logits, labels, strict_classes=strict, reduction=reduction, **settings
        )
        assert found.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("boundary_weight", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("window", [1, 3])
def test_boundary_pixels_weigh_as_asked_once_relaxation_is_off(
    three_images, boundary_weight, window
):
    logits, labels = three_images[0][:1], three_images[1][:1]
    settings = {"window": window, "relaxed": False, "boundary_weight": boundary_weight}
    expected = published_loss(logits[0].double().detach().numpy(), labels[0].numpy(), **settings)
    found = relaxed_boundary_loss(logits, labels, **settings)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_hand_worked_case():
    # 1 x 2 pixels of classes 0 and 1. Each set is {0, 1, void}: h = 1/3, omega = 1 + 2/3.
    logits = torch.zeros(1, 4, 1, 2)
    labels = torch.tensor([[[0, 1]]])
    nll = np.log(2)  # of half of the probability
    expected = 2 * (2 * (5 / 3) * nll / 2) / (2 + 1)
    assert relaxed_boundary_loss(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    # Off: plain labels, both on the boundary: h = 1/2, omega = 1.5, and each weighs double.
    expected = 2 * (2 * 1.5 * np.log(4)) / (2 + 1)
    found = relaxed_boundary_loss(logits, labels, relaxed=False)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_without_relaxation_and_double_weight_it_is_weighted_cross_entropy(three_images):
    logits, labels = three_images[0][:1], three_images[1][:1]
    counts = torch.bincount(labels.flatten().long(), minlength=VOID + 1)
    share = counts[:CLASSES] / labels.numel()  # void is in the divisor
    omega = torch.where(share > 0, 2 - share, 1.0)
    total = F.cross_entropy(logits, labels.long(), omega, ignore_index=VOID, reduction="sum")
    expected = total / (labels.numel() - counts[VOID] + 1)
    plain = relaxed_boundary_loss(logits, labels, relaxed=False, boundary_weight=1.0)
    torch.testing.assert_close(plain, expected)
    torch.testing.assert_close(relaxed_boundary_loss(logits, labels, window=0), expected)


@pytest.mark.parametrize("relaxed", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_sum_of_a_batch_is_the_sum_of_its_images(three_images, size, relaxed):
    logits, labels = three_images[0][:size], three_images[1][:size]
    singles = [
        relaxed_boundary_loss(one[None], label[None], relaxed=relaxed)
        for one, label in zip(logits, labels, strict=True)
    ]
    found = relaxed_boundary_loss(logits, labels, relaxed=relaxed, reduction="sum")
    torch.testing.assert_close(found, sum(singles))
    assert found > max(singles) or size == 1


@pytest.mark.parametrize("relaxed", [True, False])
def test_the_value_of_void_does_not_matter(three_images, relaxed):
    logits, labels = three_images
    settings = {"relaxed": relaxed, "strict_classes": (1,)}
    expected = relaxed_boundary_loss(logits, labels, **settings)
    for void in (CLASSES, -1):
        other = labels.int().masked_fill(labels == VOID, void)
        assert relaxed_boundary_loss(logits, other, ignore_index=void, **settings) == expected


def test_weight_scales_pixels_and_not_the_divisor(three_images):
    logits, labels = three_images
    plain = relaxed_boundary_loss(logits, labels)
    weight = torch.full(labels.shape, 4.0)
    torch.testing.assert_close(relaxed_boundary_loss(logits, labels, weight=weight), 4 * plain)
    weight[1:] = 0
    first = relaxed_boundary_loss(logits[:1], labels[:1])
    found = relaxed_boundary_loss(logits, labels, weight=weight, reduction="sum")
    torch.testing.assert_close(found, 4 * first)


@pytest.mark.parametrize("relaxed", [True, False])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_finite_for_huge_logits(three_images, relaxed, scale):
    logits = three_images[0].detach().sign().mul_(scale).requires_grad_()
    loss = relaxed_boundary_loss(logits, three_images[1], relaxed=relaxed)
    loss.backward()
    assert loss.isfinite()
    assert loss > 1
    assert logits.grad.isfinite().all()


def test_a_class_of_underflowing_probability_costs_its_distance():
    logits = torch.tensor([1e4, -1e4]).view(1, 2, 1, 1).requires_grad_()
    found = relaxed_boundary_loss(logits, torch.ones(1, 1, 1).long(), window=0)
    assert found.item() == 1e4  # 2e4 nats, one class of all, (1 + 1) in the divisor
    (gradient,) = torch.autograd.grad(found, logits)
    assert gradient.flatten().tolist() == [0.5, -0.5]


@pytest.mark.parametrize("relaxed", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_no_labelled_pixel_gives_zero_and_zero_gradient(three_images, relaxed, reduction):
    logits, labels = three_images
    loss = relaxed_boundary_loss(
        logits, torch.full_like(labels, VOID), relaxed=relaxed, reduction=reduction
    )
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("relaxed", [True, False])
def test_gradient(three_images, relaxed):
    logits, labels = three_images[0][:2], three_images[1][:2, 1:6, 1:4]
    wide = logits.detach()[:, :, 1:6, 1:4].double().requires_grad_()
    weight = torch.rand(2, 5, 3, dtype=torch.float64)
    assert (labels == VOID).any()
    assert torch.autograd.gradcheck(
        lambda given: relaxed_boundary_loss(given, labels, weight=weight, relaxed=relaxed), wide
    )


def test_gradient_of_empty_sets_is_zero(three_images):
    logits = three_images[0]
    members = torch.zeros_like(logits, dtype=torch.bool)
    members[:, 1, ::2] = True
    set_cross_entropy(logits, members).sum().backward()
    assert (logits.grad[:, :, 1::2] == 0).all()
    assert (logits.grad[:, 1, ::2] < 0).all()


def test_only_logits_and_sets_are_kept_for_the_backward_pass(three_images):
    logits, labels = three_images
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor
    ):
        relaxed_boundary_loss(logits, labels)
    whole = [t for t in kept if t.shape == logits.shape]
    assert [t.dtype for t in whole] == [torch.float32, torch.bool]
    assert whole[0].data_ptr() == logits.data_ptr()
    assert sum(t.numel() for t in kept) < 2.7 * logits.numel()


def test_float32_for_bfloat16_logits_and_under_autocast(three_images):
    low, labels = three_images[0].detach().bfloat16().requires_grad_(), three_images[1]
    expected = relaxed_boundary_loss(low.detach().float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        found = relaxed_boundary_loss(low, labels)
    found.backward()
    assert found.dtype == torch.float32
    assert found == expected
    assert low.grad.dtype == torch.bfloat16
    assert relaxed_boundary_loss(low.double(), labels).dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strict_classes": (1, 7)}, "strict class 7 is none of the 5 classes; give ids from 0"),
        ({"strict_classes": (-1,)}, "strict class -1 is none of the 5 classes"),
        ({"window": -2}, "the border window is -2; it must be 0"),
        ({"window": -2, "relaxed": False}, "the border window is -2; it must be 0"),
        ({"boundary_weight": 0.0}, "the boundary weight is 0; it must be above 0"),
        ({"bound": -1.0}, "class weights is -1; it must be at least 0"),
    ],
)
def test_mistakes_are_named(three_images, settings, message):
    with pytest.raises(ValueError, match=message):
        relaxed_boundary_loss(*three_images, **settings)


@pytest.mark.parametrize("relaxed", [True, False])
def test_nothing_depends_on_values_that_would_have_to_be_waited_for(three_images, relaxed):
    # The meta device has shapes alone: reading a value, a mask index or a bincount fails there.
    logits = three_images[0].detach().to("meta").requires_grad_()
    labels = three_images[1].to("meta")
    loss = relaxed_boundary_loss(logits, labels, relaxed=relaxed, strict_classes=(1, 3))
    loss.backward()
    assert loss.shape == ()
    assert logits.grad.shape == logits.shape
