import logging
from itertools import pairwise

import numpy as np
import pytest
import torch

from tests.uncertainty.calibrators.samples import pixels
from uncertainty.calibrators.pixels import prepare
from uncertainty.calibrators.search import (
    BINS,
    TemperatureGrid,
    calibration,
    constant_calibration,
    least_error,
    search_temperature,
)

COARSE = TemperatureGrid(0.5, 10, 0.05)


def brute_force(logits, labels, grid):
    """The published search: T = 1, then every value of the grid that is strictly better."""
    ready, values = prepare(logits, labels), [1.0, *grid.values]
    errors = [calibration(ready, value).ece for value in values]
    first = int(np.argmin(errors))  # the first of equals
    return values[first], errors[first]


def reference_ece(logits, labels, temperature):
    """ECE in float64 with masks for the bins."""
    known = labels.numpy() != 255
    likely = (logits.double() / temperature).softmax(1).numpy()[known]
    truth = labels.numpy()[known]
    confidence, right = likely.max(1), likely.argmax(1) == truth
    edges = np.linspace(0, 1, BINS + 1)
    gaps = [
        abs((confidence - right)[(confidence > low) & (confidence <= high)].sum())
        for low, high in pairwise(edges)
    ]
    return sum(gaps) / len(truth)


def check(logits, labels, grid=COARSE):
    fit = search_temperature(logits, labels, grid)
    assert (fit.temperature, fit.after) == brute_force(logits, labels, grid)
    assert fit.after <= fit.before
    return fit


def test_the_grid_is_the_published_one():
    values = TemperatureGrid().values
    assert len(values) == 950
    assert values[:2] + values[-1:] == [0.5, 0.51, 9.99]
    assert 1.0 in values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10, 0.01), "the lowest temperature is 0; it must be above 0"),
        ((-1, 10, 0.01), "the lowest temperature is -1; it must be above 0"),
        ((2, 2, 0.01), "is 2 and the end of the grid 2; the first must be below"),
        ((float("nan"), 2, 0.01), "is nan; it must be above 0"),
        ((1, 2, 0), "the step between temperatures is 0; it must be above 0"),
    ],
)
def test_impossible_grids_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TemperatureGrid(*arguments)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.37, 9.99])
def test_the_error_is_that_of_masks_in_float64(temperature):
    logits, labels = pixels(3000)
    ours = calibration(prepare(logits, labels), temperature)
    assert ours.ece == pytest.approx(reference_ece(logits, labels, temperature), abs=1e-6)
    likely = (logits / temperature).softmax(1).amax(1)[labels != 255].double().mean()
    accuracy = (logits.argmax(1) == labels)[labels != 255].double().mean()
    assert ours.bias == pytest.approx(float(likely - accuracy), abs=1e-6)


@pytest.mark.parametrize("seed", range(24))
def test_the_search_finds_what_the_whole_grid_holds(seed):
    generator = np.random.default_rng(seed)
    classes = int(generator.choice([2, 3, 11, 19]))
    scale = float(generator.choice([0.1, 0.7, 1.5, 3, 20]))
    logits, labels = pixels(int(generator.choice([1, 7, 60, 700])), classes, scale=scale, seed=seed)
    if seed % 3 == 0:  # many ties of logits and of errors
        logits = logits.round()
    if seed % 4 == 0:  # labels that the logits know nothing of
        labels = torch.randint(0, classes, labels.shape)
    labels[0] = 0
    grids = (COARSE, TemperatureGrid(1.3, 7, 0.1), TemperatureGrid(0.2, 0.9, 0.02))
    check(logits, labels, grids[seed % 3])


@pytest.mark.parametrize("seed", range(6))
def test_the_search_finds_what_the_whole_grid_holds_where_no_temperature_calibrates(seed):
    # sure and wrong beside unsure and right: a wide range of temperatures is in question
    logits, labels = pixels(600, 4, scale=1 + seed, seed=seed)
    other, _ = pixels(600, 4, scale=0.3, seed=seed + 100)
    labels = torch.cat([(logits.argmax(1) + seed % 2) % 4, other.argmax(1)])
    check(torch.cat([logits, other]), labels)


def test_few_evaluations_suffice_and_find_the_published_grids_optimum():
    logits, labels = pixels(20_000, 8)
    fit = check(logits, labels, TemperatureGrid())
    assert fit.temperature > 1
    assert fit.evaluations < 950 / 12


def test_all_right_gives_the_low_end_and_all_wrong_the_high_one():
    logits, _ = pixels(500)
    right, wrong = logits.argmax(1), logits.argmin(1)
    assert check(logits, right, TemperatureGrid()).temperature == 0.5
    assert check(logits, wrong, TemperatureGrid()).temperature == 9.99


def test_saturated_pixels_take_the_smallest_of_equals_unless_one_is_as_good():
    logits = torch.tensor([[1000.0, 0.0, 0.0]]).repeat(50, 1)
    labels = torch.zeros(50, dtype=torch.uint8)
    assert check(logits, labels) == (1.0, 0.0, 0.0, 1)
    soft = torch.tensor([[30.0, 0.0, 0.0]]).repeat(50, 1)  # exactly sure up to T = 1.7 or so
    assert check(soft, labels).temperature == 1.0
    nearly = torch.tensor([[10.0, 0.0, 0.0]]).repeat(50, 1)
    fit = check(nearly, labels)
    assert (fit.temperature, fit.after) == (0.5, 0.0)
    assert fit.before > 0
    wrong = torch.ones(50, dtype=torch.uint8)
    assert check(logits, wrong).temperature == 1.0
    assert check(nearly, wrong).temperature == 9.95


def test_a_perfect_temperature_is_found():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(60_000, 6, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    fit = search_temperature(2.5 * logits, labels)
    assert fit.temperature == pytest.approx(2.5, abs=0.1)
    assert fit.after < 0.01


def test_void_changes_nothing():
    logits, labels = pixels(300, void=0)
    plain = search_temperature(logits, labels, COARSE)
    more = torch.cat([logits, 50 * torch.randn(100, 5)])
    with_void = torch.cat([labels, torch.full((100,), 255, dtype=torch.uint8)])
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    mixed = search_temperature(more[order], with_void[order], COARSE)
    assert mixed.temperature == plain.temperature
    assert mixed.after == pytest.approx(plain.after, abs=1e-7)


def test_nothing_but_void_keeps_one_and_warns(caplog):
    logits, labels = pixels(20)
    with caplog.at_level(logging.WARNING):
        fit = search_temperature(logits, torch.full_like(labels, 255))
    assert fit == (1.0, None, None, 0)
    assert "no labelled pixel to fit a temperature to" in caplog.text


def test_pixels_that_do_not_fit_are_refused():
    logits, labels = pixels(20, void=0)
    broken = logits.clone()
    broken[3, 1], broken[7, 2] = float("nan"), float("inf")
    with pytest.raises(ValueError, match="the logits of 2 of 20 pixels are not finite"):
        search_temperature(broken, labels)
    unknown = labels.clone()
    unknown[4] = 5
    with pytest.raises(ValueError, match="label 5 at 1 pixels: the network has 5 classes, 0 to 4"):
        search_temperature(logits, unknown)
    with pytest.raises(ValueError, match=r"these are \(20, 5\) and \(19,\)"):
        search_temperature(logits, labels[1:])
    broken_void = labels.clone()
    broken_void[[3, 7]] = 255  # what nobody reads may be anything
    assert search_temperature(broken, broken_void, COARSE).evaluations > 0


def test_chunks_and_half_precision_change_nothing(monkeypatch):
    logits, labels = pixels(1000)
    whole = search_temperature(logits.half().float(), labels, COARSE)
    monkeypatch.setattr("uncertainty.calibrators.pixels.CHUNK", 37)
    parts = search_temperature(logits.half(), labels, COARSE)
    assert parts.temperature == whole.temperature
    assert parts.after == pytest.approx(whole.after, abs=1e-7)


def test_no_temperature_between_two_has_a_smaller_error_than_the_bound():
    tight = []
    for seed in range(8):
        logits, labels = pixels(300, 3 + seed, scale=1 + seed / 2, seed=seed)
        ready = prepare(logits, labels)
        values = np.geomspace(0.2, 20, 60).tolist()
        found = [calibration(ready, value) for value in values]
        limits = [constant_calibration(ready, 1.0), constant_calibration(ready, 1 / (3 + seed))]
        for width in (1, 2, 5, 20, 59):
            for start in range(len(values) - width):
                inside = found[start : start + width + 1]
                bound = least_error(inside[0], inside[-1])
                assert bound <= min(one.ece for one in inside) + 1e-6
                tight.append(bound > 0.8 * min(one.ece for one in inside))
                assert least_error(limits[0], inside[0]) <= found[0].ece + 1e-6
                assert least_error(inside[-1], limits[1]) <= found[-1].ece + 1e-6
    assert np.mean(tight) > 0.2


def test_the_bound_at_one_temperature_is_at_most_the_error_and_at_least_the_bias():
    found = calibration(prepare(*pixels(500)), 1.3)
    bound = least_error(found, found)
    assert abs(found.bias) <= bound <= found.ece + 1e-12


def test_float32_exp_does_not_decrease():
    # the proof of the search needs it; every 16th block of neighbouring numbers from -104 to -0
    first, last = (torch.tensor(edge).view(torch.int32).item() for edge in (-0.0, -104.0))
    block = 1 << 18
    for start in range(first, last, 16 * block):
        below_zero = torch.arange(start, start + block, dtype=torch.int32).view(torch.float32)
        values = below_zero.exp()
        assert (values[1:] <= values[:-1]).all()
