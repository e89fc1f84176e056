"""Losses of activation maps: against torch's own, against plain loops, symmetries, gradients."""

import pytest
import torch
from torch.nn import functional as F

from losses.image_labels import (
    background_loss,
    classification_loss,
    cross_loss,
    equivariance_loss,
    normalised_maps,
)

CLASSES = 5


@pytest.fixture
def maps():
    """Raw maps (2, 5, 6, 8) and labels (2, 5) whose class 0 is the background."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(2, CLASSES, 6, 8, generator=generator)
    labels = torch.tensor([[1.0, 1, 0, 0, 1], [1.0, 0, 1, 0, 0]])
    return raw, labels


def views():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(2, CLASSES, 6, 8, generator=generator) for _ in range(4)]


def test_classification_is_torchs_multilabel_soft_margin_over_the_foreground(maps):
    raw, labels = maps
    expected = F.multilabel_soft_margin_loss(raw.mean((2, 3))[:, 1:], labels[:, 1:])
    torch.testing.assert_close(classification_loss(raw, labels, 0), expected)
    everything = F.multilabel_soft_margin_loss(raw.mean((2, 3)), labels)
    torch.testing.assert_close(classification_loss(raw, labels, None), everything)


def test_the_background_has_no_part_in_classification(maps):
    raw, labels = maps
    raw.requires_grad_()
    classification_loss(raw, labels, 0).backward()
    assert not raw.grad[:, 0].any()
    assert raw.grad[:, 1:].all()


def test_classification_of_certain_and_right_maps_is_zero(maps):
    _, labels = maps
    raw = (200 * labels - 100)[..., None, None].expand(-1, -1, 6, 8)
    assert classification_loss(raw, labels, 0) < 1e-30
    assert classification_loss(-raw, labels, 0) == 100


def test_the_background_loss_is_the_mean_of_the_lowest_quarter(maps):
    raw, labels = maps
    expected = []
    for image, label in zip(raw, labels, strict=True):
        present = [image[c] for c in range(1, CLASSES) if label[c]]
        absent = [torch.zeros(6, 8)]
        highest = torch.stack(present + absent).amax(0).flatten()
        expected.append(highest.sort().values[:12].clamp(min=0).mean())
    torch.testing.assert_close(background_loss(raw, labels, 0), torch.stack(expected).mean())


def test_the_background_loss_leaves_the_shown_three_quarters_alone():
    shown = torch.zeros(1, 2, 4, 4)
    shown[:, 1, 1:] = 0.7
    labels = torch.ones(1, 2)
    assert background_loss(shown, labels, 0) == 0
    shown[:, 1, 0, :2] = 0.5
    torch.testing.assert_close(background_loss(shown, labels, 0), torch.tensor(0.25))


def test_normalised_maps_span_their_range_and_absent_classes_are_empty(maps):
    raw, labels = maps
    normalised = normalised_maps(raw, labels)
    present = labels[..., None, None].bool().expand_as(raw)
    assert not normalised[~present].any()
    assert not normalised.amin((2, 3)).any()
    highest = normalised.amax((2, 3))[labels.bool()]
    torch.testing.assert_close(highest, torch.ones(5), rtol=0, atol=1e-4)
    positive = raw[0, 1].clamp(min=0)
    expected = (positive - 1e-5).clamp(min=0) / (positive.max() + 1e-5)  # its least value is 0
    torch.testing.assert_close(normalised[0, 1], expected)


def test_flat_maps_are_empty_and_their_gradient_is_finite():
    flat = torch.full((1, 2, 3, 3), 4.0, requires_grad=True)
    normalised = normalised_maps(flat, torch.ones(1, 2))
    assert not normalised.any()
    normalised.sum().backward()
    assert flat.grad.isfinite().all()


def test_equivariance_is_zero_for_equal_maps_and_else_the_mean_difference():
    first, second, *_ = views()
    assert equivariance_loss(first, first.clone(), 0) == 0
    expected = (first[:, 1:] - second[:, 1:]).abs().mean()
    torch.testing.assert_close(equivariance_loss(first, second, 0), expected)
    other_background = torch.cat([first[:, :1] + 3, first[:, 1:]], 1)
    assert equivariance_loss(first, other_background, 0) == 0


def one_way(claimed, answer):
    """|one(c) - r|, mean over the largest fifth, one image and pixel at a time."""
    values = []
    for c, r in zip(claimed, answer, strict=True):
        distances = []
        for row in range(c.shape[1]):
            for column in range(c.shape[2]):
                pixel = c[1:, row, column]
                target = torch.where(pixel == pixel.max(), pixel, 0.0)
                target = torch.cat([1 - pixel.max()[None], target])
                distances.append((target - r[:, row, column]).abs())
        largest = torch.cat(distances).sort(descending=True).values
        values.append(largest[: int(0.2 * len(largest))].mean())
    return torch.stack(values).mean()


def test_the_cross_loss_is_its_definition():
    c1, c2, r1, r2 = views()
    expected = one_way(c2, r1) + one_way(c1, r2)
    torch.testing.assert_close(cross_loss((c1, c2), (r1, r2), 0), expected)


def test_the_cross_loss_trains_the_refined_maps_alone():
    c1, c2, r1, r2 = (view.requires_grad_() for view in views())
    cross_loss((c1, c2), (r1, r2), 0).backward()
    assert c1.grad is None
    assert c2.grad is None
    for refined in (r1, r2):
        assert refined.grad.count_nonzero() == 2 * int(0.2 * CLASSES * 6 * 8)


def test_the_cross_loss_is_zero_where_the_refined_maps_are_the_claims():
    claim = torch.zeros(1, 3, 2, 2)
    claim[0, 1, 0] = 0.75
    answer = claim.clone()
    answer[:, 0] = 1 - claim[:, 1]
    assert cross_loss((claim, claim), (answer, answer), 0) == 0


def all_losses(c1, c2, r1, r2, labels, background):
    return torch.stack(
        [
            classification_loss(c1 - 0.5, labels, background),
            background_loss(r1, labels, background),
            equivariance_loss(c1, c2, background),
            cross_loss((c1, c2), (r1, r2), background),
        ]
    )


@pytest.mark.parametrize(
    ("order", "background"), [([0, 3, 1, 4, 2], 0), ([4, 0, 2, 1, 3], 1), ([1, 2, 3, 4, 0], 4)]
)
def test_permuted_channels_leave_every_loss(maps, order, background):
    _, labels = maps
    expected = all_losses(*views(), labels, 0)
    permuted = [view[:, order] for view in views()]
    torch.testing.assert_close(all_losses(*permuted, labels[:, order], background), expected)


def test_without_background_every_channel_counts(maps):
    _, labels = maps
    c1, c2, r1, _ = views()
    torch.testing.assert_close(equivariance_loss(c1, c2, None), (c1 - c2).abs().mean())
    kept = torch.where(c1 == c1.amax(1, keepdim=True), c1, 0.0)
    loss = cross_loss((c1, c1), (kept, kept), None)
    assert loss == 0
    lowest = (r1 * labels[..., None, None]).amax(1).flatten(1).sort().values[:, :12].mean()
    torch.testing.assert_close(background_loss(r1, labels, None), lowest)
