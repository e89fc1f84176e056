import logging

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from tests.uncertainty.calibrators.samples import pixels, prediction
from uncertainty.calibrators import Temperature, fit_temperature_by_nll


def nll(logits, labels, temperature):
    return float(F.cross_entropy(logits.double() / temperature, labels.long(), ignore_index=255))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [0.3, 2.0, 9.0])
def test_the_optimum_is_that_of_scipy_and_flat(seed, scale):
    logits, labels = pixels(500, 3 + seed, scale=scale, seed=seed)
    fit = fit_temperature_by_nll(logits, labels)
    found = minimize_scalar(
        lambda log: nll(logits, labels, 2.718281828459045**log),
        bounds=(-3, 3),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert fit.temperature == pytest.approx(2.718281828459045**found.x, rel=1e-5)
    assert fit.after == pytest.approx(found.fun, abs=1e-7)
    assert fit.before == pytest.approx(nll(logits, labels, 1.0), abs=1e-7)
    assert fit.after <= fit.before
    temperature = torch.tensor(fit.temperature, dtype=torch.float64, requires_grad=True)
    F.cross_entropy(logits.double() / temperature, labels.long(), ignore_index=255).backward()
    assert abs(float(temperature.grad)) < 1e-6
    assert fit.evaluations <= 15


@pytest.mark.parametrize("factor", [0.25, 2.0, 4.0])
def test_the_optimum_scales_with_the_logits(factor):
    logits, labels = pixels(800)
    plain = fit_temperature_by_nll(logits, labels)
    scaled = fit_temperature_by_nll(factor * logits, labels)
    assert scaled.temperature == pytest.approx(factor * plain.temperature, rel=1e-6)
    assert scaled.after == pytest.approx(plain.after, abs=1e-9)


def test_a_constant_added_to_a_pixel_and_void_change_nothing():
    logits, labels = pixels(800)
    plain = fit_temperature_by_nll(logits, labels)
    shifted = fit_temperature_by_nll(logits + torch.arange(800.0)[:, None] / 100, labels)
    assert shifted.temperature == pytest.approx(plain.temperature, rel=1e-5)
    known = labels != 255
    without = fit_temperature_by_nll(logits[known], labels[known])
    assert without.temperature == pytest.approx(plain.temperature, rel=1e-9)


def test_likelihood_that_grows_without_end_stops_at_the_bound_and_says_so(caplog):
    logits, _ = pixels(100)
    with caplog.at_level(logging.WARNING):
        fit = fit_temperature_by_nll(logits, logits.argmax(1))
    assert fit.temperature == 0.05
    assert "still grows at temperature 0.05, an end of the range searched" in caplog.text
    assert "accuracy is 100.00 %" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert fit_temperature_by_nll(logits, logits.argmin(1)).temperature == 20
    assert "still grows at temperature 20" in caplog.text


def test_an_optimum_outside_the_bounds_gives_the_nearer_one():
    logits, labels = pixels(500, scale=4)
    best = fit_temperature_by_nll(logits, labels).temperature
    assert best > 1.2
    assert fit_temperature_by_nll(logits, labels, (best * 2, best * 3)).temperature == best * 2
    assert fit_temperature_by_nll(logits, labels, (0.1, best / 2)).temperature == best / 2


def test_void_only_keeps_one(caplog):
    logits, labels = pixels(20)
    assert fit_temperature_by_nll(logits, torch.full_like(labels, 255)) == (1.0, None, None, 0)
    assert "no labelled pixel" in caplog.text


@pytest.mark.parametrize("bounds", [(0, 1), (2, 1), (1, 1), (-1, 2)])
def test_impossible_bounds_are_refused(bounds):
    with pytest.raises(ValueError, match="they must be above 0, the first below the second"):
        fit_temperature_by_nll(*pixels(20), bounds)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_temperature_is_above_0(value):
    with pytest.raises(ValueError, match="it must be above 0"):
        Temperature(value, 3)


def test_logits_are_divided_and_nothing_else_is_touched():
    before, images = prediction()
    after = Temperature(1.7, 5)(before, images)
    assert torch.equal(after.logits, before.logits / torch.tensor([1.7]))
    assert torch.equal(after.logits.argmax(1), before.logits.argmax(1))
    for name in ("temperature", "aux_logits", "features"):
        assert getattr(after, name) is getattr(before, name)
    assert after.member_logits is None


def test_an_ensemble_stays_a_distribution_and_its_members_are_divided():
    before, images = prediction(members=3)
    after = Temperature(2.0, 5)(before, images)
    assert torch.equal(after.member_logits, before.member_logits / 2)
    assert after.logits.logsumexp(1).abs().max() < 1e-6
    assert torch.allclose(after.logits.softmax(1), (before.logits / 2).softmax(1), atol=1e-6)


def test_half_precision_is_calibrated_in_float32():
    before, images = prediction()
    after = Temperature(1.7, 5)(before._replace(logits=before.logits.bfloat16()), images)
    assert after.logits.dtype == torch.float32
    expected = before.logits.bfloat16().float() / torch.tensor([1.7])
    assert torch.equal(after.logits, expected)


def test_another_number_of_classes_is_refused():
    before, images = prediction(classes=19)
    message = "the calibrator was fitted on 11 classes, the network has 19"
    with pytest.raises(ValueError, match=message):
        Temperature(1.5, 11)(before, images)
