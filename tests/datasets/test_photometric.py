import colorsys
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision import tv_tensors

import datasets.photometric
from datasets.photometric import (
    PhotometricDistortion,
    adjust_colours,
    bilateral_blur,
    change_saturation,
    gaussian_blur,
    scale_levels,
    turn_hue,
)
from datasets.samples import Sample


def noise(size, seed=0, high=256):
    pixels = np.random.default_rng(seed).integers(0, high, (*size, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


@pytest.mark.parametrize("sigma", [0.15, 0.4, 0.9, 1.3])
def test_the_gaussian_is_scipys(sigma):
    image = noise((23, 31))
    expected = [ndimage.gaussian_filter(c, sigma, mode="nearest") for c in image.double().numpy()]
    found = gaussian_blur(image, sigma)
    assert found.dtype == torch.uint8
    difference = np.abs(found.numpy() - np.array(expected))
    assert difference.max() < 2  # on white noise: weights of eight bits
    assert difference.mean() < 0.45  # rounding alone makes 0.25


@pytest.mark.parametrize("sigma", [0.05, 0.3, 0.75])
def test_the_bilateral_filter_is_its_formula(sigma):
    image = noise((12, 14), 1, 120)
    pixels = image.permute(1, 2, 0).double().numpy()
    spread = pixels.std()
    around = np.pad(pixels, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    total, weights = np.zeros_like(pixels), np.zeros(pixels.shape[:2])
    for y in range(-2, 3):
        for x in range(-2, 3):
            if x * x + y * y > 4:
                continue
            other = around[2 + y : 14 + y, 2 + x : 16 + x]
            apart = np.abs(other - pixels).sum(2)
            weight = np.exp(-(x * x + y * y) / (2 * sigma**2) - apart**2 / (2 * spread**2))
            total += weight[..., None] * other
            weights += weight
    expected = total / weights[..., None]
    found = bilateral_blur(image, sigma).permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 0.6
    if sigma == 0.75:
        assert np.abs(found - pixels).max() > 5


def test_blurring_leaves_a_plain_image_and_the_input_alone():
    plain, image = torch.full((3, 7, 9), 77, dtype=torch.uint8), noise((7, 9))
    before = image.clone()
    for blur in (gaussian_blur, bilateral_blur):
        assert torch.equal(blur(plain, 0.7), plain)
        assert blur(image, 0.7).shape == image.shape
        assert torch.equal(image, before)


def test_colours_are_adjusted_in_the_given_order():
    image = noise((6, 8))
    assert torch.equal(adjust_colours(image, (1.0, 1.0, 1.0), (0, 1, 2)), image)
    first = adjust_colours(image, (1.8, 0.5, 1.0), (0, 1))
    assert not torch.equal(first, adjust_colours(image, (1.8, 0.5, 1.0), (1, 0)))
    turned = adjust_colours(image, (0.0, 0.0, 0.0, 1 / 3), (3,))  # red takes blue's place
    assert (turned.int() - image[[2, 0, 1]].int()).abs().max() <= 2


def hsv_of(pixels):
    """Hue in degrees, saturation and value in [0, 1] of each pixel of an image (3, H, W)."""
    colours = pixels.flatten(1).T.tolist()
    return np.array([colorsys.rgb_to_hsv(*(v / 255 for v in one)) for one in colours]) * (360, 1, 1)


def test_levels_are_scaled_cut_and_rounded_down():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for factor, offset in ((1.0, -31.7), (1.0, 31.2), (0.5, 0.0), (1.37, 0.0), (1.5, 0.0)):
        found = scale_levels(values, factor, offset)
        exact = [min(255.0, max(0.0, int(v) * factor + offset)) for v in values.ravel()]
        assert found.dtype == np.uint8
        assert (found.ravel() == np.floor(np.array(exact) + 1e-5)).all()


def test_saturation_and_hue_are_those_of_hsv():
    image = noise((9, 11), 3)
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    before = hsv_of(image)
    half = hsv_of(torch.from_numpy(change_saturation(pixels, 0.5)).permute(2, 0, 1))
    assert np.abs(half[:, 1] - before[:, 1] / 2)[before[:, 2] > 0.2].max() < 0.03
    assert np.abs(half[:, 2] - before[:, 2]).max() < 1e-9
    grey = change_saturation(pixels, 0.0)
    assert (grey == pixels.max(2, keepdims=True)).all()
    vivid = (before[:, 1] > 0.4) & (before[:, 2] > 0.4)
    for steps in (-18, 17):
        turned = hsv_of(torch.from_numpy(turn_hue(pixels, steps)).permute(2, 0, 1))
        moved = (turned[:, 0] - before[:, 0] - 2 * steps + 180) % 360 - 180
        assert np.abs(moved[vivid]).max() < 4
        assert np.abs(turned[:, 2] - before[:, 2]).max() < 1e-9
    assert turn_hue(np.array([[[250, 0, 0]]], np.uint8), -60).tolist() == [[[0, 0, 250]]]


def test_the_distortion_draws_each_change_with_a_coin(monkeypatch):
    """Which changes are made, in which order, by which amounts."""
    calls = []

    def note(name):
        def keep(pixels, *amounts):
            shifted = len(amounts) == 2  # a factor of 1 and an offset
            calls[-1].append(("brightness" if shifted else name, amounts[-1]))
            return pixels

        return keep

    for name, function in (
        ("contrast", "scale_levels"),
        ("saturation", "change_saturation"),
        ("hue", "turn_hue"),
    ):
        monkeypatch.setattr(datasets.photometric, function, note(name))
    draw, image = np.random.default_rng(0), noise((3, 4))
    sample = Sample(image=image, label=image[0])
    for _ in range(3000):
        calls.append([])
        out = PhotometricDistortion()(sample, draw)
        assert torch.equal(out["image"], image)
    orders = Counter(tuple(name for name, _ in each) for each in calls)
    limits = {
        **{"brightness": (-32, 32), "contrast": (0.5, 1.5), "saturation": (0.5, 1.5)},
        "hue": (-18, 17),
    }
    for name, (low, high) in limits.items():
        amounts = [amount for each in calls for key, amount in each if key == name]
        assert 1380 < len(amounts) < 1620
        span = high - low
        assert low <= min(amounts) < low + 0.01 * span
        assert high - 0.01 * span < max(amounts) <= high
    everything = ("brightness", "saturation", "hue")
    first, last = ("brightness", "contrast", "saturation", "hue"), (*everything, "contrast")
    assert {first, last} <= set(orders)
    assert 60 < orders[first] < 130  # 1/2^5 of 3000
    assert 60 < orders[last] < 130
    assert all(order[0] == "brightness" for order in orders if "brightness" in order)


def test_the_distortion_changes_the_image_alone_and_by_its_generator_alone():
    image, label = noise((12, 15), 5), torch.zeros(12, 15, dtype=torch.uint8)
    sample, before = Sample(image=tv_tensors.Image(image), label=label), image.clone()
    state = torch.random.get_rng_state()
    found = [PhotometricDistortion()(sample, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(found[0]["image"], found[1]["image"])
    assert not torch.equal(found[0]["image"], found[2]["image"])
    assert found[0]["image"].dtype == torch.uint8
    assert found[0]["image"].shape == image.shape
    assert found[0]["label"] is label
    assert torch.equal(image, before)
    assert torch.equal(state, torch.random.get_rng_state())
