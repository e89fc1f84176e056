from collections import defaultdict
from math import sqrt

import numpy as np
import pytest
import torch

from uncertainty.permutohedral import build_lattice, elevate, enclosing_simplices

DIMENSIONS = pytest.mark.parametrize("dimensions", [1, 2, 3, 5])


def points(count, dimensions, spread=3.0, seed=0):
    """Features (N, d) of random points."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimensions, generator=generator) * spread


def corners_of(simplices):
    """Coordinates of all vertices (d + 1, d + 1, N): vertex by vertex, in R^(d+1)."""
    size = len(simplices.ranks)
    vertices = torch.arange(size)[:, None, None]
    wrapped = simplices.ranks[None] + vertices >= size
    return size * (simplices.origins[None] - wrapped.long()) + vertices


def naive_filter(features, values):
    """Splat, blur and slice by dictionaries, point by point, in float64."""
    simplices = enclosing_simplices(elevate(features))
    size, count = simplices.ranks.shape
    keys = corners_of(simplices).permute(2, 0, 1).tolist()
    weights = simplices.weights.double().t().numpy()
    table = defaultdict(float)
    for i in range(count):
        for key, weight in zip(keys[i], weights[i], strict=True):
            table[tuple(key)] += weight * values[i].double().numpy()
    for axis in range(size):
        step = np.ones(size, np.int64)
        step[axis] -= size
        blurred = {}
        for key, value in table.items():
            sides = [
                table.get(tuple((np.array(key) + sign * step).tolist()), 0) for sign in (1, -1)
            ]
            blurred[key] = value + 0.5 * (sides[0] + sides[1])
        table = blurred
    sliced = [
        sum(weight * table[tuple(key)] for key, weight in zip(keys[i], weights[i], strict=True))
        for i in range(count)
    ]
    return torch.from_numpy(np.stack(sliced))


def gaussian(features):
    """exp(-|f_i - f_j|^2 / 2), (N, N), float64."""
    return torch.exp(-(torch.cdist(features.double(), features.double()) ** 2) / 2)


@DIMENSIONS
def test_elevation_keeps_the_ratios_of_distances(dimensions):
    features = points(20, dimensions)
    elevated = elevate(features).t()
    torch.testing.assert_close(elevated.sum(1), torch.zeros(20), atol=1e-4, rtol=0)
    expected = torch.cdist(features, features) * sqrt(2 / 3) * (dimensions + 1)
    torch.testing.assert_close(torch.cdist(elevated, elevated), expected, atol=1e-3, rtol=1e-4)


@DIMENSIONS
def test_each_point_is_the_weighted_mean_of_its_simplex(dimensions):
    elevated = elevate(points(500, dimensions))
    simplices = enclosing_simplices(elevated)
    corners = corners_of(simplices)
    assert (corners.sum(1) == 0).all()
    assert (corners % (dimensions + 1) == torch.arange(dimensions + 1)[:, None, None]).all()
    assert simplices.weights.min() > -1e-5
    torch.testing.assert_close(simplices.weights.sum(0), torch.ones(500))
    mean = (simplices.weights[:, None] * corners).sum(0)
    torch.testing.assert_close(mean, elevated, atol=1e-4, rtol=1e-4)


@DIMENSIONS
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_filter_equals_a_slow_one(dimensions, spread):
    features = points(150, dimensions, spread)
    values = torch.rand(150, 3, generator=torch.Generator().manual_seed(1))
    filtered = build_lattice(features).filter(values)
    expected = naive_filter(features, values)
    torch.testing.assert_close(filtered.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dimensions", "step", "side"), [(1, 0.1, 121), (2, 0.25, 41)])
def test_kernel_approximates_a_gaussian_of_unit_deviation(dimensions, step, side):
    features = torch.cartesian_prod(*[torch.arange(side) * step] * dimensions).view(-1, dimensions)
    # Around points in the middle, whose neighbours are all there.
    middle = ((features - features.mean(0)).abs().amax(1) < 1).nonzero().squeeze(1)
    impulses = torch.zeros(len(features), len(middle))
    impulses[middle, torch.arange(len(middle))] = 1
    kernels = build_lattice(features).filter(impulses).double()
    exact = gaussian(features)[:, middle]
    scale = (kernels * exact).sum() / exact.square().sum()
    assert (kernels / scale - exact).abs().max() < 0.16  # of a peak of 1; measured 0.09 and 0.14
    shifts = (features[:, None] - features[middle]).double()
    moments = torch.einsum("nm,nmi,nmj->mij", kernels, shifts, shifts)
    covariances = (moments / kernels.sum(0)[:, None, None]).mean(0)
    torch.testing.assert_close(covariances, torch.eye(dimensions).double(), atol=0.03, rtol=0)


def test_equal_points_share_everything():
    features = points(1, 5).repeat(7, 1)
    filtered = build_lattice(features).filter(torch.arange(7.0)[:, None])
    torch.testing.assert_close(filtered, filtered[:1].expand_as(filtered))
    alone = build_lattice(features[:1]).filter(torch.full((1, 1), 21.0))
    torch.testing.assert_close(filtered[:1], alone)


def test_scaled_multiplies_before_and_after():
    lattice = build_lattice(points(60, 3))
    factors, values = torch.rand(60) + 0.5, torch.rand(60, 4)
    expected = factors[:, None] * lattice.filter(factors[:, None] * values)
    torch.testing.assert_close(lattice.scaled(factors).filter(values), expected)


def test_same_bytes_each_time_and_with_any_number_of_threads():
    features, values = points(4000, 5), torch.rand(4000, 5)
    first = build_lattice(features).filter(values)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(build_lattice(features).filter(values), first)
    finally:
        torch.set_num_threads(threads)


def test_columns_do_not_depend_on_each_other():
    lattice, values = build_lattice(points(500, 5)), torch.rand(500, 19)
    alone = torch.cat([lattice.filter(column.contiguous()) for column in values.split(1, 1)], 1)
    torch.testing.assert_close(lattice.filter(values), alone, atol=0, rtol=1e-6)


@pytest.mark.parametrize(
    "features", [points(9, 2, 1e9), points(9, 5, 1e5), torch.full((9, 2), torch.nan)]
)
def test_too_wide_a_spread_is_refused(features):
    with pytest.raises(ValueError, match="cells of the permutohedral lattice.*greater standard"):
        build_lattice(features)


def test_vertices_far_apart_stay_apart():
    features = points(40, 5, 0.5)
    features[::2] += torch.tensor([2500.0, -10, 2500, 0, 2500])
    values = torch.rand(40, 1)
    filtered = build_lattice(features).filter(values).double()
    torch.testing.assert_close(filtered, naive_filter(features, values), atol=0, rtol=1e-5)
