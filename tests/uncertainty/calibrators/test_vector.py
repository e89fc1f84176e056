import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.nn import functional as F

from tests.uncertainty.calibrators.samples import pixels, prediction
from uncertainty.calibrators import Vector, fit_temperature_by_nll, fit_vector
from uncertainty.calibrators.vector import RIDGE, objective


def value_and_gradient(parameters, logits, labels):
    leaf = torch.tensor(parameters, dtype=torch.float64, requires_grad=True)
    weight, bias = leaf.chunk(2)
    away = torch.cat([weight - 1, bias])
    value = F.cross_entropy(logits.double() * weight + bias, labels.long(), ignore_index=255)
    value = value + RIDGE / 2 * away.square().sum()
    value.backward()
    return value.item(), leaf.grad.numpy()


@pytest.mark.parametrize("seed", range(5))
def test_the_optimum_is_that_of_scipy(seed):
    logits, labels = pixels(600, 4 + seed, scale=1.0 + seed, seed=seed)
    logits[:, 1] += 1.5  # a class that is favoured too much
    ours = fit_vector(logits, labels)
    start = np.concatenate([np.ones(4 + seed), np.zeros(4 + seed)])
    found = minimize(
        value_and_gradient,
        start,
        (logits, labels),
        method="L-BFGS-B",
        jac=True,
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000},
    )
    parameters = torch.cat([ours.weight, ours.bias]).numpy()
    assert value_and_gradient(parameters, logits, labels)[0] <= found.fun + 1e-9
    assert np.abs(value_and_gradient(parameters, logits, labels)[1]).max() < 1e-6
    assert np.allclose(parameters, found.x, atol=2e-3)


def test_derivatives_are_those_of_autograd():
    logits, labels = pixels(60, 3)
    parameters = torch.tensor([0.7, 1.2, 0.9, 0.3, -0.1, 0.2], dtype=torch.float64)
    found = objective(logits, labels, parameters)

    def function(leaf):
        scaled = logits.double() * leaf[:3] + leaf[3:]
        ridge = (leaf - torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)).square().sum()
        nll = F.cross_entropy(scaled, labels.long(), ignore_index=255)
        return nll + RIDGE / 2 * ridge

    assert torch.allclose(found.value, function(parameters))
    gradient = torch.autograd.functional.jacobian(function, parameters)
    assert torch.allclose(found.gradient, gradient)
    hessian = torch.autograd.functional.hessian(function, parameters)
    assert torch.allclose(found.hessian, hessian)


def test_it_is_at_least_as_likely_as_one_temperature():
    logits, labels = pixels(900)
    logits[:, 0] += 2
    fitted = fit_vector(logits, labels)
    scaled = logits * fitted.weight + fitted.bias
    after = F.cross_entropy(scaled, labels.long(), ignore_index=255)
    assert float(after) < fit_temperature_by_nll(logits, labels).after - 0.01
    assert abs(float(fitted.bias.sum())) < 1e-4


def test_it_is_deterministic_and_bounded_where_all_pixels_are_right():
    logits, _ = pixels(300)
    first, second = (fit_vector(logits, logits.argmax(1)) for _ in range(2))
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)
    assert torch.isfinite(first.weight).all()
    assert first.weight.mean() > 1


def test_nothing_but_void_changes_nothing(caplog):
    logits, labels = pixels(20)
    fitted = fit_vector(logits, torch.full_like(labels, 255))
    assert torch.equal(fitted.weight, torch.ones(5))
    assert torch.equal(fitted.bias, torch.zeros(5))
    assert "no labelled pixel to fit vector scaling to" in caplog.text


def test_logits_that_are_not_finite_are_refused():
    logits, labels = pixels(20, void=0)
    logits[2, 2] = float("-inf")
    with pytest.raises(ValueError, match="the logits of 1 of 20 pixels are not finite"):
        fit_vector(logits, labels)


def test_it_scales_classes_and_may_change_the_prediction():
    before, images = prediction()
    weight, bias = torch.tensor([1.0, 0.5, 2, 1, 1]), torch.tensor([0.0, 100, 0, 0, 0])
    after = Vector(weight, bias)(before, images)
    expected = before.logits * weight.view(1, 5, 1, 1) + bias.view(1, 5, 1, 1)
    assert torch.equal(after.logits, expected)
    assert (after.logits.argmax(1) == 1).all()
    assert after.aux_logits is before.aux_logits


def test_members_are_scaled_and_the_ensemble_normalised():
    before, images = prediction(members=2)
    after = Vector(torch.full((5,), 0.5), torch.arange(5.0))(before, images)
    expected = before.member_logits / 2 + torch.arange(5.0).view(5, 1, 1)
    assert torch.allclose(after.member_logits, expected)
    assert after.logits.logsumexp(1).abs().max() < 1e-6


def test_another_number_of_classes_is_refused():
    before, images = prediction(classes=4)
    with pytest.raises(ValueError, match="fitted on 5 classes, the network has 4"):
        Vector(torch.ones(5), torch.zeros(5))(before, images)
