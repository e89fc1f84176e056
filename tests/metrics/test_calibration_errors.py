from fractions import Fraction

import numpy as np
import pytest
import torch

from metrics.calibration_errors import (
    ConfidenceBins,
    GapPath,
    classwise_ece,
    reliability,
)

NUMBERS = (1, 2, 10, 15, 600, 1024)


def near(values):
    """float32 numbers and their neighbours within [0, 1]."""
    values = np.float32(values)
    around = [values, *(np.nextafter(values, np.float32(end)) for end in (-1, 2))]
    return np.unique(np.clip(np.concatenate(around), 0, 1))


def binned(confidence, right, bins):
    """Counts and sums as the metric keeps them, added one by one."""
    codes = bins.codes(torch.from_numpy(confidence)).numpy()
    counts, sums = np.zeros((2, bins.size), np.int64), np.zeros(bins.size)
    np.add.at(counts, (right.astype(int), codes), 1)
    np.add.at(sums, codes, confidence.astype(np.float64))
    return counts, sums


def coarsened(counts, sums, bins):
    joined = [bins.coarsen(torch.from_numpy(values)).numpy() for values in (counts, sums)]
    return *joined, bins.coarse_layout


def ks_by_sorting(confidence, right):
    """Greatest partial sum, equal confidences taken together."""
    values, place = np.unique(confidence.astype(np.float64), return_inverse=True)
    count, hits = np.bincount(place), np.bincount(place, right)
    return np.abs(np.cumsum(values * count - hits)).max() / len(confidence)


def equal_mass_by_sorting(confidence, right, number, *, original=False):
    """The definition, with np.interp over the sorted confidences."""
    values, pixels = np.sort(confidence.astype(np.float64)), len(confidence)
    if original:
        edges = np.interp(np.linspace(0, pixels, number + 1), np.arange(pixels), values)
    else:
        edges = np.quantile(values, np.linspace(0, 1, number + 1))
        edges[0] = -1
    edges[-1] = values[-1]
    place = np.searchsorted(edges, confidence.astype(np.float64), "left")
    gaps = np.bincount(place, confidence.astype(np.float64) - right, minlength=number + 2)
    return np.abs(gaps[1 : number + 1]).sum() / pixels


def sure(pixels, seed=0):
    """Confidences as networks give them: mostly close to 1, many saturated, some equal."""
    rng = np.random.default_rng(seed)
    confidence = 1 - rng.exponential(1, pixels) * 10.0 ** rng.uniform(-8, -0.5, pixels)
    confidence = np.clip(confidence, 0.2, 1).astype(np.float32)
    return confidence, rng.random(pixels) < confidence**3


def even(pixels, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0, 1, pixels).astype(np.float32)
    return confidence, rng.random(pixels) < np.sqrt(confidence)


def tied(pixels, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.choice(np.float32([0, 0.25, 1 / 3, 0.6, 1 - 2**-24, 1]), pixels)
    return confidence, rng.random(pixels) < 0.7


@pytest.mark.parametrize("number", NUMBERS)
def test_the_bins_fit_into_16_bits_and_join_without_gaps(number):
    bins = ConfidenceBins(number)
    lower, upper, starts = bins.layout
    assert len(lower) == len(upper) == bins.size <= 1 << 16
    assert lower[0] == upper[0] == 0
    assert upper[-1] == 1
    assert (np.diff(upper) > 0).all()
    single = lower == upper
    np.testing.assert_array_equal(lower[1:][~single[1:]], upper[:-1][~single[1:]])
    top = np.flatnonzero(single)[1:]  # every float32 number of the last wide bin
    np.testing.assert_array_equal(np.diff(top), 1)
    np.testing.assert_array_equal(np.float32(upper[top]), upper[top])
    assert np.nextafter(np.float32(upper[top[0]]), np.float32(0)) <= 1 - 1 / bins.wide
    np.testing.assert_allclose(lower[starts], np.arange(number) / number, atol=1e-15)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_confidence_lies_within_its_bin(number):
    bins = ConfidenceBins(number)
    lower, upper, _ = bins.layout
    rng = np.random.default_rng(0)
    values = near(
        np.concatenate([upper, rng.random(5000), 1 - 10.0 ** rng.uniform(-8, 0, 5000), [1e-40]])
    )
    codes = bins.codes(torch.from_numpy(values)).numpy()
    exact = values.astype(np.float64)
    assert (exact <= upper[codes]).all()
    assert ((exact > lower[codes]) | (exact == upper[codes])).all()
    assert codes[0] == 0
    assert codes[-1] == bins.size - 1


@pytest.mark.parametrize("number", [2, 10, 15, 60])
def test_confidences_on_an_edge_belong_to_the_bin_below(number):
    bins = ConfidenceBins(number)
    values = near(np.arange(number + 1) / number)
    expected = [
        next((j for j in range(number) if j < Fraction(float(x)) * number <= j + 1), None)
        for x in values
    ]
    for value, bin_index in zip(values, expected, strict=True):
        counts, sums = binned(value[None], np.array([True]), bins)
        found = reliability(counts, sums, bins.layout)
        assert found.pixels == 1
        place = [] if bin_index is None else [bin_index]
        assert np.flatnonzero(found.count).tolist() == place, value


def test_the_diagram_by_hand():
    confidence = np.float32([0, 0.1, 0.25, 0.5, 0.75, 1, 1])
    right = np.array([0, 1, 0, 1, 1, 1, 0], bool)
    bins = ConfidenceBins(4)
    found = reliability(*binned(confidence, right, bins), bins.layout)
    assert found.count.tolist() == [2, 1, 1, 2]
    assert found.right.tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(found.confidence, [0.35, 0.5, 0.75, 2], atol=1e-8)
    assert found.ece() == pytest.approx((0.65 + 0.5 + 0.25 + 1) / 7)
    assert found.mce() == pytest.approx(0.5)


@pytest.mark.parametrize("make", [sure, even])
@pytest.mark.parametrize("pixels", [1, 2, 17, 400, 20_011])
def test_ks_and_equal_mass_agree_with_sorting_within_their_bounds(make, pixels):
    confidence, right = make(pixels)
    bins = ConfidenceBins(15)
    counts, sums = binned(confidence, right, bins)
    fine, coarse = (counts, sums, bins.layout), coarsened(counts, sums, bins)
    for data, widest_ks, widest_mass in ((fine, 2e-4, 2e-3), (coarse, 2e-2, 2e-1)):
        path = GapPath(*data)
        found = path.ks()
        exact = ks_by_sorting(confidence, right)
        assert found.value - 1e-12 <= exact <= found.value + found.error_bound + 1e-12
        assert pixels < 20_000 or found.error_bound < widest_ks
        for original in (False, True):
            found = path.equal_mass(15, original=original)
            exact = equal_mass_by_sorting(confidence, right, 15, original=original)
            assert abs(found.value - exact) <= found.error_bound + 1e-12
            assert pixels < 20_000 or found.error_bound < widest_mass


@pytest.mark.parametrize("pixels", [1, 2, 17, 400, 20_011])
def test_equal_confidences_stay_together(pixels):
    confidence, right = tied(pixels)
    bins = ConfidenceBins(15)
    path = GapPath(*binned(confidence, right, bins), bins.layout)
    assert path.ks().value == pytest.approx(ks_by_sorting(confidence, right), abs=1e-12)
    for original in (False, True):
        exact = equal_mass_by_sorting(confidence, right, 15, original=original)
        found = path.equal_mass(15, original=original)
        assert found.value == pytest.approx(exact, abs=1e-12)


def test_saturated_confidences_leave_no_doubt():
    rng = np.random.default_rng(0)
    confidence = (1 - rng.integers(0, 50, 3001) / 2**24).astype(np.float32)
    right = rng.random(3001) < 0.9
    bins = ConfidenceBins(15)
    path = GapPath(*binned(confidence, right, bins), bins.layout)
    assert path.ks() == (pytest.approx(ks_by_sorting(confidence, right), abs=1e-12), 0)
    for original in (False, True):
        found = path.equal_mass(15, original=original)
        exact = equal_mass_by_sorting(confidence, right, 15, original=original)
        assert found == (pytest.approx(exact, abs=1e-12), 0)


def test_the_original_equal_mass_leaves_the_lowest_pixels_out():
    confidence = np.repeat(np.float32([0.25, 1]), [30, 70])
    right = np.repeat([False, True], [30, 70])
    bins = ConfidenceBins(15)
    path = GapPath(*binned(confidence, right, bins), bins.layout)
    assert path.equal_mass(15, original=True).value == 0
    assert path.equal_mass(15).value == pytest.approx(0.075)


def test_the_bound_of_ks_holds_for_the_worst_order_within_a_bin():
    bins = ConfidenceBins(15)
    low, high = (np.float32(0.5 + step / (bins.wide * 48)) for step in (0.1, 0.9))
    wrong_first = np.repeat([low, high], 50), np.repeat([False, True], 50)
    path = GapPath(*binned(*wrong_first, bins), bins.layout)
    found = path.ks()
    assert found.value == pytest.approx(0, abs=1e-4)
    assert found.value + found.error_bound == pytest.approx(ks_by_sorting(*wrong_first), abs=1e-4)
    assert found.error_bound > 0.24


def test_coarse_bins_keep_all_pixels_and_the_diagram():
    bins = ConfidenceBins(15)
    counts, sums = binned(*sure(5000), bins)
    few, few_sums, layout = coarsened(counts, sums, bins)
    assert few.shape == (2, len(few_sums))
    assert few_sums.size <= 1 << 10
    assert bins.layout_of(few_sums.size) is layout
    np.testing.assert_array_equal(few.sum(1), counts.sum(1))
    whole = reliability(counts, sums, bins.layout)
    joined = reliability(few, few_sums, layout)
    np.testing.assert_array_equal(joined.count, whole.count)
    np.testing.assert_array_equal(joined.right, whole.right)
    np.testing.assert_allclose(joined.confidence, whole.confidence, rtol=1e-12)


def test_class_wise_by_hand():
    sums, hits = np.array([[0.5, 1.5], [2.0, 0.0]]), np.array([[1, 1], [2, 0]])
    assert classwise_ece(sums, hits, 4).tolist() == [0.25, 0.0]
