import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from tests.uncertainty.maps import (
    batch_means,
    per_component_means,
    published_entropy,
    smooth_logits,
)
from uncertainty import instance_mean, instance_uncertainty
from uncertainty.instance import means_by_merging, merge_runs

WAYS = pytest.mark.parametrize("mean", [instance_mean, means_by_merging])


def spiral(size):
    """A path one pixel wide that winds inward, and the path between its windings."""
    path = np.zeros((size, size), np.int64)
    y = x = 0
    path[0, 0] = 1
    lengths = [size - 1] + [side for side in range(size - 1, 0, -2) for _ in range(2)]
    for turn, length in enumerate(lengths):
        dy, dx = ((0, 1), (1, 0), (0, -1), (-1, 0))[turn % 4]
        for _ in range(length):
            y, x = y + dy, x + dx
            path[y, x] = 1
    return path


def hard_maps():
    """Class maps (H, W) whose components are long, thin, nested, or many."""
    generator = np.random.default_rng(0)
    rows, columns = np.arange(61)[:, None], np.arange(80)[None]
    return {
        "noise of two classes": generator.integers(0, 2, (61, 80)),
        "noise near percolation": (generator.random((61, 80)) < 0.41).astype(np.int64),
        "noise of 19 classes": generator.integers(0, 19, (61, 80)),
        "checkerboard": (rows + columns) % 2,
        "spiral": spiral(41),
        "spiral that begins below": spiral(41)[::-1].T.copy(),
        "comb": ((columns % 2 == 0) | (rows == 60)).astype(np.int64),
        "comb that hangs": ((columns % 2 == 0) | (rows == 0)).astype(np.int64),
        "diagonals": (rows + columns) % 5,
        "other diagonals": (rows - columns) % 5,
        "one row": generator.integers(0, 3, (1, 80)),
        "one column": generator.integers(0, 3, (61, 1)),
        "one pixel": np.zeros((1, 1), np.int64),
        "greatest class": np.full((3, 4), 254),
    }


def scipy_means(classes, values):
    """Means over components that scipy labels class by class."""
    means = np.zeros(classes.shape)
    for index in np.unique(classes):
        components, number = ndimage.label(classes == index, np.ones((3, 3)))
        inside = components > 0
        by_component = ndimage.mean(values, components, np.arange(1, number + 1))
        means[inside] = np.asarray(by_component)[components[inside] - 1]
    return means


@WAYS
@pytest.mark.parametrize("name", hard_maps())
def test_means_agree_with_scipy_on_hard_maps(name, mean):
    classes = hard_maps()[name]
    values = np.random.default_rng(1).random(classes.shape)
    found = mean(torch.from_numpy(classes)[None], torch.from_numpy(values)[None])
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found[0], scipy_means(classes, values), atol=1e-7, rtol=0)


@pytest.mark.parametrize(
    ("num_classes", "sigma", "components"),
    [(2, 60, 2), (2, 4, 15), (2, 0.9, 126), (19, 60, 3), (19, 4, 305), (19, 2, 1024)],
)
def test_uncertainty_agrees_with_the_per_component_loop(num_classes, sigma, components):
    logits = smooth_logits(sigma, num_classes=num_classes)
    expected, found = per_component_means(
        logits.argmax(1)[0].numpy(), published_entropy(logits)[0].numpy()
    )
    assert found == pytest.approx(components, rel=0.1), "the maps are not what was meant"
    np.testing.assert_allclose(instance_uncertainty(logits)[0], expected, atol=2e-6, rtol=0)


def test_thousands_of_components():
    logits = smooth_logits(2, size=(256, 256))
    classes, entropy = logits.argmax(1), published_entropy(logits)
    expected, components = per_component_means(classes[0].numpy(), entropy[0].numpy())
    assert components > 5000
    for mean in (instance_mean, means_by_merging):
        np.testing.assert_allclose(mean(classes, entropy)[0], expected, atol=1e-6, rtol=0)


def test_a_map_of_one_class_gives_the_global_mean():
    logits = smooth_logits(4, images=2)
    logits[:, 7] += 100  # the most likely class everywhere, with almost no entropy
    uncertainty = instance_uncertainty(logits)
    values = torch.rand(2, 96, 128)
    means = instance_mean(torch.full((2, 96, 128), 7), values)
    for index in range(2):
        assert uncertainty[index].unique().numel() == 1
        assert means[index].unique().numel() == 1
        assert means[index, 0, 0].item() == pytest.approx(values[index].double().mean().item())


def test_equal_logits_give_log_c_and_certain_ones_zero():
    assert instance_uncertainty(torch.zeros(1, 19, 4, 5)).numpy() == pytest.approx(math.log(19))
    certain = torch.full((1, 3, 4, 5), -torch.inf)
    certain[:, 1] = 0
    assert (instance_uncertainty(certain) < 1e-30).all()


@WAYS
def test_flips_and_renamed_classes_change_nothing(mean):
    logits = smooth_logits(3, images=2)
    classes, entropy = logits.argmax(1), published_entropy(logits)
    expected = mean(classes, entropy)
    for dims in ([1], [2], [1, 2]):
        flipped = mean(classes.flip(dims), entropy.flip(dims))
        torch.testing.assert_close(flipped.flip(dims), expected, atol=1e-6, rtol=0)
    names = torch.randperm(19, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean(names[classes], entropy), expected, atol=0, rtol=0)


def test_uncertainty_is_invariant_to_flips_and_to_the_order_of_classes():
    logits = smooth_logits(3, images=2)
    expected = instance_uncertainty(logits)
    assert expected.unique().numel() > 20
    for dims in ([2], [3], [2, 3]):
        flipped = instance_uncertainty(logits.flip(dims)).flip([dim - 1 for dim in dims])
        torch.testing.assert_close(flipped, expected, atol=1e-6, rtol=0)
    order = torch.randperm(19, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(instance_uncertainty(logits[:, order]), expected, atol=1e-6, rtol=0)


def test_the_mean_over_the_image_is_kept():
    logits = smooth_logits(2, images=3)
    uncertainty, entropy = instance_uncertainty(logits), published_entropy(logits)
    torch.testing.assert_close(
        uncertainty.double().mean((1, 2)), entropy.mean((1, 2)), atol=1e-6, rtol=0
    )
    assert (uncertainty.double().var((1, 2)) < entropy.var((1, 2))).all()


@WAYS
def test_components_end_at_the_border_of_an_image(mean):
    classes = torch.zeros(3, 4, 5, dtype=torch.uint8)
    values = torch.arange(3.0)[:, None, None].expand(3, 4, 5)
    assert torch.equal(mean(classes, values), values)


@WAYS
def test_a_batch_equals_its_images(mean):
    logits = smooth_logits(2, images=3)
    classes, values = logits.argmax(1), published_entropy(logits)
    together = mean(classes, values)
    for index in range(3):
        alone = mean(classes[index : index + 1], values[index : index + 1])
        torch.testing.assert_close(together[index : index + 1], alone, atol=1e-7, rtol=0)
    torch.testing.assert_close(together.double(), batch_means(classes, values), atol=1e-6, rtol=0)


@WAYS
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_type_and_any_strides(mean, dtype):
    classes = torch.randint(0, 4, (2, 9, 14)).to(dtype)
    values = torch.rand(2, 9, 14)
    expected = mean(classes, values)
    strided = torch.stack((classes, classes + 1), -1)[..., 0]
    turned = values.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(mean(strided, turned), expected)
    columns = classes.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(mean(columns, values), expected)


@WAYS
def test_void_255_is_a_class_of_its_own(mean):
    classes = torch.tensor([[[255, 0, 255]]], dtype=torch.uint8)
    values = torch.tensor([[[1.0, 2.0, 3.0]]])
    assert torch.equal(mean(classes, values), values)


@WAYS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_values_of_any_floating_type_in_and_out_of_the_graph(mean, dtype):
    values = torch.ones(1, 3, 4, dtype=dtype, requires_grad=True)
    means = mean(torch.zeros(1, 3, 4, dtype=torch.uint8), values.detach())
    assert means.dtype == torch.float32
    assert (means == 1).all()
    assert not instance_mean(torch.zeros(1, 3, 4, dtype=torch.uint8), values).requires_grad


def test_sums_are_exact_over_large_components():
    """A running float32 sum of 2^20 + small values would lose them."""
    values = torch.full((1, 1024, 1024), 0.1)
    means = instance_mean(torch.zeros(1, 1024, 1024, dtype=torch.uint8), values)
    assert (means == values).all()


@pytest.mark.parametrize("size", [(0, 4, 5), (2, 0, 5), (2, 4, 0)])
def test_nothing_in_nothing_out(size):
    means = instance_mean(torch.zeros(size, dtype=torch.uint8), torch.zeros(size))
    assert means.shape == size
    assert means.dtype == torch.float32
    uncertainty = instance_uncertainty(torch.zeros(size[0], 3, *size[1:]))
    assert uncertainty.shape == size


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"classes \(1, 4, 5\) and values \(1, 4, 6\) must both"):
        instance_mean(torch.zeros(1, 4, 5, dtype=torch.uint8), torch.zeros(1, 4, 6))
    with pytest.raises(ValueError, match=r"must both be \(N, H, W\)"):
        instance_mean(torch.zeros(4, 5, dtype=torch.uint8), torch.zeros(4, 5))


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
def test_a_long_chain_is_merged_whatever_its_order(order):
    nodes = {
        "forward": torch.arange(5000),
        "backward": torch.arange(5000).flip(0),
        "shuffled": torch.randperm(5000, generator=torch.Generator().manual_seed(0)),
    }[order]
    labels = merge_runs(5001, nodes[:-1], nodes[1:])
    assert (labels[:5000] == labels[0]).all()
    assert labels[5000] == 5000


@pytest.mark.gpu
def test_the_gpu_agrees_and_nothing_leaves_it():
    logits = smooth_logits(2, images=2)
    expected = instance_uncertainty(logits)
    found = instance_uncertainty(logits.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=0)
