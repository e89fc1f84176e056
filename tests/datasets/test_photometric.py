import numpy as np
import pytest
import torch
from scipy import ndimage

from datasets.photometric import adjust_colours, bilateral_blur, gaussian_blur


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
