from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from losses.cross_entropy import cross_entropy
from tests.uncertainty.maps import literal_response
from uncertainty import build_score
from uncertainty.response_decoders import argmax_decoder
from uncertainty.response_scaling import ResponseScaling, cyclic_labels
from uncertainty.response_variance import PRESETS, argmax_wins, response_uncertainty
from utils.types import Prediction
from utils.weight_levels import pixel_weights, weight_levels

VOC = PRESETS["voc"]


def random_probabilities(classes=5, size=(23, 31), *, spread=1.5, seed=0):
    """Of which about half the pixels are flipped by some scale."""
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(classes, *size, generator=generator)).softmax(0)


def random_image(size=(23, 31), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scales", [VOC, PRESETS["coco"], (0.3, 2.5, 7.0), (0.5,)])
@pytest.mark.parametrize("reduce", ["max", "mean"])
@pytest.mark.parametrize("normalize", ["image", "absolute"])
def test_the_closed_form_is_the_literal_procedure(seed, scales, reduce, normalize):
    probabilities = random_probabilities(2 + 2 * seed, spread=0.5 + seed, seed=seed)
    found = ResponseScaling(scales, argmax_decoder, reduce, normalize)(probabilities)
    label, values, levels = literal_response(
        probabilities.double().numpy(), scales, reduce=reduce, normalize=normalize
    )
    assert found.label.dtype == torch.uint8
    assert found.uncertainty.dtype == torch.float32
    np.testing.assert_array_equal(found.label, label)
    np.testing.assert_allclose(found.uncertainty, values, atol=1e-6)
    # a whole number may be rounded to either side
    assert np.abs(weight_levels(found.uncertainty).numpy() - levels).max() <= (reduce == "mean")


@pytest.mark.parametrize("scale", [0.15, 0.5, 0.999, 1.0, 1.001, 2.0, 6.0])
def test_masks_by_loops_over_pixels(scale):
    probabilities = random_probabilities(4, (6, 7))
    wins = argmax_wins(probabilities, [scale])
    heights = -np.log(probabilities.double().numpy())
    for k, y, x in product(range(4), range(6), range(7)):
        others = min(heights[j, y, x] for j in range(4) if j != k)
        assert wins[k, y, x] == (scale * heights[k, y, x] < others)


def test_more_scales_above_a_pixel_mean_fewer_wins():
    probabilities = random_probabilities(6, (40, 50), spread=2)
    scales = (0.01, 0.15, 0.2, 0.7, 1.0, 1.3, 4.0, 6.0, 50.0)
    masks = [argmax_wins(probabilities, [scale]).bool() for scale in scales]
    for wide, narrow in pairwise(masks):
        assert not (narrow & ~wide).any()
        assert (wide & ~narrow).any()
    plain = torch.stack([probabilities.argmax(0) == index for index in range(6)])
    for scale, mask in zip(scales, masks, strict=True):
        assert not (plain & ~mask).any() or scale > 1
        assert not (mask & ~plain).any() or scale < 1


@pytest.mark.parametrize("scales", [(1,), (1, 1.0), (1,) * 7])
def test_ones_change_nothing(scales):
    found = ResponseScaling(scales, argmax_decoder)(random_probabilities())
    assert (found.uncertainty == 0).all()
    assert (weight_levels(found.uncertainty) == 255).all()


def test_pixels_by_hand():
    """n a_k < a_j with a = -log p: 0.6 holds up to n = 1.79, 0.75 to 4.82, 0.78 to 6.09."""
    first = torch.tensor([0.6, 0.4, 0.75, 0.25, 0.78, 0.9, 0.1])
    wins = argmax_wins(torch.stack([first, 1 - first])[:, None], VOC)
    assert wins[:, 0].tolist() == [[3, 3, 4, 2, 6, 6, 0], [3, 3, 2, 4, 1, 0, 6]]
    values = response_uncertainty(wins, 6, normalize="absolute")[0] / 4
    assert [Fraction(float(v)).limit_denominator(36) * 36 for v in values] == [9, 9, 8, 8, 5, 0, 0]


def test_six_scales_leave_four_levels():
    for seed, spread in product(range(3), (0.5, 1.5, 4.0)):
        probabilities = random_probabilities(3, (40, 50), spread=spread, seed=seed)
        found = ResponseScaling(VOC, argmax_decoder, normalize="absolute")(probabilities)
        ninths = found.uncertainty * 9
        assert set(ninths.round().int().unique().tolist()) <= {0, 5, 8, 9}
        torch.testing.assert_close(ninths, ninths.round(), atol=1e-5, rtol=0)
        found = ResponseScaling(VOC, argmax_decoder)(probabilities)
        levels = weight_levels(found.uncertainty)
        assert set(levels.unique().tolist()) == {255, 113, 28, 0}
        weights = pixel_weights(levels, 0.05)
        assert torch.equal(weights == 0.05, found.uncertainty == found.uncertainty.max())
        assert torch.equal(weights == 0.05, ninths.round() == 9)


@pytest.mark.parametrize(
    ("first", "expected"), [((0.75, 0.99), {255, 0}), ((0.75, 0.78, 0.99), {255, 95, 0})]
)
def test_levels_where_the_greatest_variance_is_less(first, expected):
    first = torch.tensor([*first, 0.01])
    found = ResponseScaling(VOC, argmax_decoder)(torch.stack([first, 1 - first])[:, None])
    assert set(weight_levels(found.uncertainty).unique().tolist()) == expected


def test_order_of_classes_and_scales_does_not_matter():
    probabilities = random_probabilities(7)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    for reduce in ("max", "mean"):
        plain = ResponseScaling(VOC, argmax_decoder, reduce)(probabilities)
        permuted = ResponseScaling(VOC, argmax_decoder, reduce)(probabilities[order])
        assert torch.equal(permuted.uncertainty, plain.uncertainty)
        assert torch.equal(order[permuted.label.long()], plain.label.long())
        shuffled = ResponseScaling((4, 0.25, 6, 0.15, 5, 0.2), argmax_decoder, reduce)
        assert torch.equal(shuffled(probabilities).uncertainty, plain.uncertainty)


def test_a_single_class_is_certain_everywhere():
    probabilities = random_probabilities()
    probabilities[2] += 5
    found = ResponseScaling(VOC, argmax_decoder)(probabilities / probabilities.sum(0))
    assert (found.label == 2).all()
    assert (weight_levels(found.uncertainty) == 255).all()


def test_repetition_gives_the_same():
    scaling = ResponseScaling(VOC, argmax_decoder)
    probabilities = random_probabilities()
    kept = probabilities.clone()
    for first, second in zip(scaling(probabilities), scaling(probabilities), strict=True):
        assert torch.equal(first, second)
    assert torch.equal(probabilities, kept)


def test_zeros_and_ones():
    probabilities = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 0.5, 1e-30]])[:, None]
    probabilities = torch.cat([probabilities, 1 - probabilities.sum(0, keepdim=True)])
    wins = argmax_wins(probabilities, VOC)
    assert wins[:, 0].tolist() == [[6, 0, 3, 0], [0, 6, 3, 0], [0, 0, 0, 6]]


def test_a_probability_that_rounding_put_above_one_wins_at_every_scale():
    probabilities = torch.tensor([1.0 + 2**-20, 2**-20]).view(2, 1, 1)
    assert argmax_wins(probabilities, VOC)[:, 0, 0].tolist() == [6, 0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_precision(dtype):
    probabilities = random_probabilities().to(dtype)
    found = ResponseScaling(VOC, argmax_decoder)(probabilities)
    expected = ResponseScaling(VOC, argmax_decoder)(probabilities.float())
    assert torch.equal(found.label, expected.label)
    assert torch.equal(found.uncertainty, expected.uncertainty)


def test_block_by_block(monkeypatch):
    probabilities = random_probabilities()
    whole = argmax_wins(probabilities, VOC)
    monkeypatch.setattr("uncertainty.response_variance.BLOCK_PIXELS", 70)
    assert torch.equal(argmax_wins(probabilities, VOC), whole)


def test_absent_classes_do_not_take_part():
    """A class that is nowhere the most likely is no rival of the scaled one."""
    pixels = torch.tensor([(0.55, 0.05, 0.40), (0.1, 0.8, 0.1)])
    probabilities = pixels.t()[:, None]
    found = ResponseScaling(VOC, argmax_decoder, normalize="absolute")(probabilities)
    two = response_uncertainty(argmax_wins(probabilities[:2], VOC), 6, normalize="absolute")
    three = response_uncertainty(argmax_wins(probabilities, VOC), 6, normalize="absolute")
    assert torch.equal(found.uncertainty, two)
    assert not torch.equal(two, three)


def test_only_known_image_labels_appear():
    probabilities = random_probabilities(6)
    present = torch.tensor([1, 0, 0, 1, 1, 0], dtype=torch.float32)
    for labels in (present, present.bool()):
        found = ResponseScaling(VOC, argmax_decoder)(probabilities, None, labels)
        kept = torch.tensor([0, 3, 4])
        label, values, _ = literal_response(probabilities[kept].double().numpy(), VOC)
        np.testing.assert_array_equal(found.label, kept[label])
        np.testing.assert_allclose(found.uncertainty, values, atol=1e-6)
    every = ResponseScaling(VOC, argmax_decoder)(probabilities, None, torch.ones(6))
    free = ResponseScaling(VOC, argmax_decoder)(probabilities)
    assert torch.equal(every.label, free.label)
    assert torch.equal(every.uncertainty, free.uncertainty)
    only = ResponseScaling(VOC, argmax_decoder)(probabilities, None, torch.eye(6)[4])
    assert (only.label == 4).all()
    assert (only.uncertainty == 0).all()
    assert torch.equal(cyclic_labels(probabilities, argmax_decoder(), present), found.label)


@pytest.mark.parametrize(
    ("scales", "words"),
    [
        ((), "0 response scales are given; it takes 1 to 255, such as 0.15 0.2 0.25 4 5 6"),
        ((1.0,) * 256, "256 response scales"),
        ((0.5, 0.0), "response scale 0 must be a finite number above 0"),
        ((-2,), "response scale -2"),
        ((float("nan"),), "response scale nan"),
        ((float("inf"),), "response scale inf"),
    ],
)
def test_scales_that_mean_nothing_are_refused(scales, words):
    with pytest.raises(ValueError, match=words):
        ResponseScaling(scales, argmax_decoder)


@pytest.mark.parametrize(
    ("change", "image", "labels", "words"),
    [
        (float("nan"), None, None, "probabilities reach from nan to nan; expected"),
        (-0.5, None, None, "probabilities reach from -0.5"),
        (float("inf"), None, None, "to inf; expected"),
        (0.5, (23, 30), None, "the image has 23x30 pixels .* probabilities 23x31"),
        (0.5, None, torch.ones(4), "image labels are of 4 classes and the probabilities of 5"),
        (0.5, None, torch.zeros(5), "the image labels name no class"),
    ],
)
def test_input_that_does_not_fit_is_refused(change, image, labels, words):
    probabilities = random_probabilities()
    probabilities[1, 2, 3] = change
    given = None if image is None else random_image(image)
    with pytest.raises(ValueError, match=words):
        ResponseScaling(VOC, argmax_decoder)(probabilities, given, labels)


def test_weights_from_stored_levels():
    levels = torch.arange(256).to(torch.uint8)
    weights = pixel_weights(levels, 0.05)
    assert weights.dtype == torch.float32
    assert (weights[:13] == np.float32(0.05)).all()
    assert (weights[13:] == 1).all()
    assert (pixel_weights(levels, 1.0) == 1).all()
    assert torch.equal(pixel_weights(levels, 0.0), (levels > 0).float())
    assert torch.equal(pixel_weights(levels, 0.05, "linear"), levels.float() / 255)
    for threshold in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"outside 0\.\.1"):
            pixel_weights(levels, threshold)


@pytest.fixture
def training():
    """Logits that ask for a gradient, labels with void, stored weights."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 8, 9, generator=generator).requires_grad_()
    labels = torch.randint(0, 4, (2, 8, 9), generator=generator)
    labels[torch.rand(2, 8, 9, generator=generator) < 0.2] = 255
    levels = torch.randint(0, 256, (2, 8, 9), generator=generator).to(torch.uint8)
    return logits, labels, levels


def gradient(logits, labels, weight):
    loss = cross_entropy(logits, labels, weight=weight, normalize="all")
    return loss, torch.autograd.grad(loss, logits)[0]


def test_training_with_weights(training):
    logits, labels, levels = training
    plain, slopes = gradient(logits, labels, None)
    expected = F.cross_entropy(logits, labels, ignore_index=255, reduction="sum") / labels.numel()
    torch.testing.assert_close(plain, expected)
    for same in (torch.full_like(levels, 255), levels):
        threshold = 0.05 if same is not levels else 1.0
        loss, others = gradient(logits, labels, pixel_weights(same, threshold))
        assert torch.equal(loss, plain)
        assert torch.equal(others, slopes)
    _, weighed = gradient(logits, labels, pixel_weights(levels, 0.05))
    flagged = (levels <= 12)[:, None].expand_as(slopes)
    assert torch.equal(weighed[~flagged], slopes[~flagged])
    torch.testing.assert_close(weighed[flagged], 0.05 * slopes[flagged], rtol=1e-6, atol=0)
    assert (weighed[(labels == 255)[:, None].expand_as(weighed)] == 0).all()


def test_the_score_is_the_uncertainty_of_each_image():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 6, 20, 24, generator=generator)
    logits[1] -= 50 * torch.eye(6)[0][:, None, None]  # another set of classes
    values = build_score("response_scaling").function(Prediction(logits))
    assert values.shape == (3, 20, 24)
    assert not values.requires_grad
    scaling = ResponseScaling(VOC, argmax_decoder)
    for own, image in zip(values, logits, strict=True):
        assert torch.equal(own, scaling(image.softmax(0)).uncertainty)
    assert values.min() == 0
    assert 0.99 < values.max() <= 1
    assert build_score("response_scaling").highest(6) == 1


def test_classes_of_probability_zero_change_nothing():
    probabilities = random_probabilities(4)
    padded = torch.cat([torch.zeros(2, 23, 31), probabilities, torch.zeros(1, 23, 31)])
    expected = response_uncertainty(argmax_wins(probabilities, VOC), 6)
    assert torch.equal(response_uncertainty(argmax_wins(padded, VOC), 6), expected)


@pytest.mark.gpu
def test_the_score_on_a_gpu():
    logits = 2 * torch.randn(2, 6, 20, 24, generator=torch.Generator().manual_seed(0))
    logits[:, 2] -= 4
    score = build_score("response_scaling").function
    expected = score(Prediction(logits))
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = score(Prediction(logits.cuda()))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (found.cpu() != expected).float().mean() < 0.01  # softmaxes differ in the last bit
