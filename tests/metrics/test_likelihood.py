"""The likelihood of whole images: by hand, by a formula in float64, merged, without labels."""

import pytest
import torch
from torch.nn import functional as F

from metrics.likelihood import ImageLikelihood, image_nll
from tests.metrics.conftest import make_batch, part
from utils.types import Prediction


def scored(*parts):
    metric = ImageLikelihood()
    for batch, prediction in parts:
        metric.update(batch, prediction)
    metric.all_reduce()
    return metric.compute()


def test_by_hand():
    logits = torch.tensor([[[[0.0, 2.0]], [[0.0, 0.0]]]])
    right = torch.log(1 + torch.exp(torch.tensor(-2.0)))
    even = torch.log(torch.tensor(2.0))
    assert image_nll(logits, torch.tensor([[[1, 0]]])).item() == pytest.approx(
        ((even + right) / 2).item()
    )
    assert image_nll(logits, torch.tensor([[[1, 255]]])).item() == pytest.approx(even.item())


def test_an_image_without_labels_gives_zero_and_no_gradient():
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    labels = torch.zeros(2, 4, 5, dtype=torch.uint8)
    labels[1] = 255
    losses = image_nll(logits, labels)
    losses.sum().backward()
    assert losses[1] == 0
    assert torch.equal(logits.grad[1], torch.zeros(3, 4, 5))
    assert logits.grad[0].abs().sum() > 0


def test_the_mean_is_over_images_not_pixels(six_images):
    batch, prediction = six_images
    batch["label"][0, 1:] = 255  # an image of one row counts as much as the others
    means = [
        F.cross_entropy(logits[None].double(), label[None].long(), ignore_index=255)
        for logits, label in zip(prediction.logits, batch["label"], strict=True)
    ]
    assert scored(six_images)["total"]["nll"] == pytest.approx(torch.stack(means).mean().item())


def test_parts_add_up_to_the_whole_and_to_their_groups(six_images):
    whole = scored(six_images)
    parts = scored(*(part(*six_images, [index]) for index in (5, 0, 3, 1, 4, 2)))
    assert parts["total"]["nll"] == pytest.approx(whole["total"]["nll"], rel=1e-12)
    fog = scored(part(*six_images, [0, 3]))
    assert whole["condition"]["fog"]["nll"] == pytest.approx(fog["total"]["nll"], rel=1e-12)


def test_images_without_labels_change_nothing_and_alone_give_none(six_images):
    batch, prediction = make_batch(2, seed=5)
    batch["label"][:] = 255
    assert scored(six_images, (batch, prediction))["total"] == scored(six_images)["total"]
    assert scored((batch, prediction))["total"] == {"nll": None}


def test_another_size_is_refused(six_images):
    batch, prediction = six_images
    with pytest.raises(ValueError, match="image0: the label has 9x11 pixels"):
        scored((batch, Prediction(prediction.logits[..., 1:])))
