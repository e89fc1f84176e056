from itertools import permutations
from math import log
from unittest.mock import patch

import numpy as np
import pytest
import torch

from tests.uncertainty.maps import smooth_logits
from uncertainty import dense_crf
from uncertainty.dense_crf import (
    HEAT_MAP_CRF,
    PSEUDO_MASK_CRF,
    RESPONSE_CRF,
    CrfSettings,
    DenseCRF,
    unary_of,
)

PRESETS = pytest.mark.parametrize(
    "settings",
    [RESPONSE_CRF, PSEUDO_MASK_CRF, HEAT_MAP_CRF],
    ids=["response", "pseudo mask", "heat map"],
)
SIZE = (21, 26)


def image_of(seed=0, size=SIZE, noise=4):
    """A smooth colour image with a little noise, (3, H, W), uint8."""
    smooth = smooth_logits(4, num_classes=3, size=size, seed=seed, scale=45)[0]
    grain = torch.randn(3, *size, generator=torch.Generator().manual_seed(seed)) * noise
    return (smooth + grain + 128).clamp(0, 255).to(torch.uint8)


def unaries_of(seed=1, problems=1, classes=4, size=SIZE):
    """Energies (B, C, H, W) of smooth probabilities with noise."""
    logits = smooth_logits(3, num_classes=classes, size=size, images=problems, seed=seed, scale=2)
    generator = torch.Generator().manual_seed(seed)
    return unary_of((logits + torch.randn(logits.shape, generator=generator)).softmax(1))


def gaussian_kernel(image, xy, colour=None):
    """The exact kernel, (N, N), float64, with symmetric normalisation."""
    height, width = image.shape[1:]
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double() / xy
    if colour is not None:
        places = torch.cat([places, image.flatten(1).t().double() / colour], 1)
    kernel = torch.exp(-(torch.cdist(places, places) ** 2) / 2)
    scale = kernel.sum(1).rsqrt()
    return scale[:, None] * kernel * scale


def mean_field(unary, kernel, iterations):
    """Marginals (C, H, W) of one problem (C, H, W) by a dense kernel, in float64."""
    scores = -unary.flatten(1).double()
    marginals = scores.softmax(0)
    for _ in range(iterations):
        marginals = (scores + marginals @ kernel).softmax(0)
    return marginals.view_as(unary)


def agreement(one, other):
    """Share of pixels with the same most likely class."""
    return (one.argmax(-3) == other.argmax(-3)).double().mean()


def test_presets():
    assert CrfSettings() == RESPONSE_CRF == (1, 3, 67, 3, 4, 10)
    assert PSEUDO_MASK_CRF == (3, 10, 80, 13, 10, 10)
    assert HEAT_MAP_CRF == (3, 3, 80, 13, 10, 10)


def test_unary_of_clips():
    probabilities = torch.tensor([0, 1e-6, 1e-5, 0.5, 1])
    expected = torch.tensor([-log(1e-5)] * 3 + [log(2), 0])
    torch.testing.assert_close(unary_of(probabilities), expected)


@PRESETS
def test_mean_field_equals_a_dense_one_with_the_same_kernels(settings):
    image, unary = image_of(), unaries_of()
    crf = DenseCRF(image, settings)
    pixels = torch.eye(unary[0, 0].numel())
    kernel = sum(lattice.filter(pixels) for lattice in crf.kernels).double()
    for iterations in (1, 10):
        marginals = DenseCRF(image, settings._replace(iterations=iterations))(unary)[0]
        expected = mean_field(unary[0], kernel.t(), iterations)
        torch.testing.assert_close(marginals.double(), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize("xy", [1.0, 3.0])
def test_gaussian_kernel_is_near_the_exact_one(xy):
    image, unary = image_of(), unaries_of()
    settings = CrfSettings(gaussian_xy=xy, gaussian_weight=1.5, bilateral_weight=0)
    expected = mean_field(unary[0], 1.5 * gaussian_kernel(image, xy), 10)
    marginals = DenseCRF(image, settings)(unary)[0]
    assert (marginals - expected).abs().max() < 0.05  # measured 0.03
    assert (marginals - expected).abs().mean() < 0.002
    assert agreement(marginals, expected) > 0.99


@pytest.mark.parametrize(
    ("xy", "colour", "bound"),
    [(67.0, 3.0, 0.2), (80.0, 13.0, 0.08), (20.0, 30.0, 0.05)],  # measured 0.13, 0.05, 0.03
)
def test_bilateral_kernel_is_near_the_exact_one(xy, colour, bound):
    image, unary = image_of(), unaries_of()
    settings = CrfSettings(1.0, 0, xy, colour, 1.5)
    expected = mean_field(unary[0], 1.5 * gaussian_kernel(image, xy, colour), 10)
    marginals = DenseCRF(image, settings)(unary)[0]
    assert (marginals - expected).abs().max() < bound
    assert (marginals - expected).abs().mean() < bound / 10
    assert agreement(marginals, expected) > 0.98


@PRESETS
def test_library_agrees(settings):
    library = pytest.importorskip("pydensecrf.densecrf", reason="pydensecrf2 is not installed")
    size = (90, 120)
    image, unary = image_of(3, size), unaries_of(4, 1, 5, size)
    image = image[torch.argsort(image.flatten(1).sum(1), descending=True)]
    crf = library.DenseCRF2D(size[1], size[0], 5)
    crf.setUnaryEnergy(np.ascontiguousarray(unary[0].flatten(1).numpy()))
    crf.addPairwiseGaussian(sxy=settings.gaussian_xy, compat=settings.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=settings.bilateral_xy,
        srgb=settings.bilateral_colour,
        rgbim=np.ascontiguousarray(image.permute(1, 2, 0).numpy()),
        compat=settings.bilateral_weight,
    )
    expected = torch.from_numpy(np.array(crf.inference(settings.iterations))).view(5, *size)
    marginals = DenseCRF(image, settings)(unary)[0]
    assert agreement(marginals, expected) > 0.9995
    torch.testing.assert_close(marginals, expected, atol=5e-3, rtol=0)
    assert (marginals - expected).abs().mean() < 2e-6


@PRESETS
def test_a_constant_for_all_classes_of_a_pixel_changes_nothing(settings):
    crf, unary = DenseCRF(image_of(), settings), unaries_of(problems=2)
    constants = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(5)) * 40 - 20
    torch.testing.assert_close(crf(unary + constants), crf(unary), atol=1e-3, rtol=0)


@PRESETS
def test_the_order_of_the_channels_changes_nothing(settings):
    image, unary = image_of(), unaries_of()
    expected = DenseCRF(image, settings)(unary)
    for order in permutations(range(3)):
        assert torch.equal(DenseCRF(image[list(order)], settings)(unary), expected)


def test_the_order_of_channels_with_equal_sums_changes_nothing():
    plane = image_of()[0]
    image, unary = torch.stack([plane, plane.flip(1), plane.flip(0)]), unaries_of()
    expected = DenseCRF(image)(unary)
    for order in permutations(range(3)):
        assert torch.equal(DenseCRF(image[list(order)])(unary), expected)


@PRESETS
def test_the_order_of_the_classes_changes_nothing(settings):
    crf, unary = DenseCRF(image_of(), settings), unaries_of(classes=5)
    order = [3, 0, 4, 2, 1]
    torch.testing.assert_close(crf(unary[:, order]), crf(unary)[:, order], atol=1e-4, rtol=0)


@pytest.mark.parametrize("classes", [2, 3, 21])
def test_problems_do_not_depend_on_each_other(classes):
    crf, unary = DenseCRF(image_of()), unaries_of(problems=7, classes=classes)
    together = crf(unary)
    alone = torch.cat([crf(problem[None]) for problem in unary])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    with patch.object(dense_crf, "CPU_CHUNK_BYTES", 3 * 4 * unary[0].numel()):
        torch.testing.assert_close(crf(unary), together, atol=1e-5, rtol=0)


def test_memory_bounds_the_problems_at_once():
    crf, unary = DenseCRF(image_of()), unaries_of(problems=7)
    with (
        patch.object(dense_crf, "CPU_CHUNK_BYTES", 3 * 4 * unary[0].numel()),
        patch.object(
            DenseCRF, "_mean_field", autospec=True, side_effect=lambda _, part: part
        ) as step,
    ):
        assert torch.equal(crf(unary), unary)
    assert [len(call.args[1]) for call in step.call_args_list] == [3, 3, 1]


def test_lattices_are_built_once_for_an_image():
    with patch.object(dense_crf, "build_lattice", wraps=dense_crf.build_lattice) as build:
        crf = DenseCRF(image_of())
        for problems in (1, 3):
            crf(unaries_of(problems=problems))
    assert build.call_count == 2
    assert [call.args[0].shape[1] for call in build.call_args_list] == [2, 5]


def test_without_weights_or_iterations_the_unaries_decide():
    image, unary = image_of(), unaries_of(problems=2)
    expected = (-unary).softmax(1)
    for settings in (CrfSettings(iterations=0), CrfSettings(gaussian_weight=0, bilateral_weight=0)):
        torch.testing.assert_close(DenseCRF(image, settings)(unary), expected)


@PRESETS
def test_marginals_are_distributions_and_the_same_each_time(settings):
    image, unary = image_of(), unaries_of(problems=2)
    marginals = DenseCRF(image, settings)(unary)
    assert marginals.shape == unary.shape
    assert marginals.dtype == torch.float32
    assert marginals.min() >= 0
    torch.testing.assert_close(marginals.sum(1), torch.ones(2, *SIZE))
    assert torch.equal(DenseCRF(image, settings)(unary), marginals)


def test_a_speck_is_removed_and_a_border_in_the_image_is_found():
    image = torch.full((3, 24, 32), 60, dtype=torch.uint8)
    image[:, :, 16:] = 200
    foreground = torch.full((24, 32), 0.1)
    foreground[:, 13:] = 0.9  # three columns too wide
    foreground[5:7, 3:5] = 0.7  # a speck
    unary = unary_of(torch.stack([1 - foreground, foreground])[None])
    decoded = DenseCRF(image, PSEUDO_MASK_CRF)(unary)[0].argmax(0)
    assert torch.equal(decoded, (torch.arange(32) >= 16).long().expand(24, 32))


def test_what_is_certain_stays():
    unary = unaries_of()
    unary[0, 1:, 10, 10] = torch.inf
    marginals = DenseCRF(image_of())(unary)
    assert marginals[0, :, 10, 10].tolist() == [1, 0, 0, 0]
    assert marginals.isfinite().all()


def test_other_types_and_layouts():
    image, unary = image_of(), unaries_of(problems=2).double()
    expected = DenseCRF(image)(unary)
    strided = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    channels_last = unary.float().contiguous(memory_format=torch.channels_last)
    assert torch.equal(DenseCRF(strided)(channels_last.requires_grad_()), expected)
    assert not DenseCRF(image)(channels_last).requires_grad


@pytest.mark.parametrize(
    "image",
    [torch.zeros(3, 4, 4), torch.zeros(4, 4, 3, dtype=torch.uint8), torch.zeros(3, 0, 4).byte()],
)
def test_images_of_another_kind_are_refused(image):
    with pytest.raises(ValueError, match=r"needs a uint8 image \(3, H, W\), not torch"):
        DenseCRF(image)


@pytest.mark.parametrize("shape", [(4, *SIZE), (1, 4, *SIZE[::-1]), (1, 4, 5, 5)])
def test_unaries_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(B, C, 21, 26\), not \("):
        DenseCRF(image_of())(torch.zeros(shape))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gaussian_xy": 0}, "gaussian_xy is 0, but must be greater than 0"),
        ({"bilateral_colour": -1}, "bilateral_colour is -1, but must be greater than 0"),
        ({"bilateral_xy": float("nan")}, "bilateral_xy is nan, but must be greater than 0"),
        ({"gaussian_weight": -1}, "gaussian_weight is -1, but must be at least 0"),
        ({"bilateral_weight": float("inf")}, "bilateral_weight is inf, but must be at least 0"),
        ({"iterations": -1}, "iterations is -1, but must be at least 0"),
    ],
)
def test_settings_without_meaning_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        DenseCRF(image_of(), CrfSettings(**changed))


@pytest.mark.gpu
@PRESETS
def test_marginals_of_a_gpu_are_those_of_the_cpu(settings):
    image, unary = image_of(), unaries_of(problems=3)
    expected = DenseCRF(image, settings)(unary)
    found = DenseCRF(image.cuda(), settings)(unary.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-3)
    again = DenseCRF(image.cuda(), settings)(unary.cuda())
    assert torch.equal(again, found)
