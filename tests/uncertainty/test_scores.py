import math

import numpy as np
import pytest
import torch
from scipy import special, stats

from uncertainty import SCORES, instance_uncertainty
from utils.types import Prediction

NAMES = {
    "entropy",
    "expected_entropy",
    "mutual_information",
    "msp",
    "margin",
    "energy",
    "member_variance",
    "instance",
}
OF_MEMBERS = {"expected_entropy", "mutual_information", "member_variance"}


def ensemble(members):
    """What an ensemble predicts: the log of the mean softmax, and its members."""
    log_mean = members.log_softmax(2).logsumexp(0) - math.log(len(members))
    return Prediction(log_mean, member_logits=members)


@pytest.fixture
def members():
    return torch.randn(3, 2, 5, 12, 17, generator=torch.Generator().manual_seed(0)) * 3


@pytest.fixture
def prediction(members):
    return ensemble(members)


@pytest.fixture
def softmaxes(members):
    """Members' probabilities (M, N, C, H, W), float64, by scipy."""
    return special.softmax(members.double().numpy(), axis=2)


def score(name, prediction):
    return SCORES[name].function(prediction)


def test_the_names_and_what_they_need():
    assert SCORES.keys() == NAMES
    for name, entry in SCORES.items():
        assert entry.name == name
        assert entry.needs == (frozenset({"member_logits"}) if name in OF_MEMBERS else frozenset())
        assert entry.function.__doc__
        assert entry.function.__doc__.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_map_for_each_image_in_float32_and_outside_the_graph(name, members):
    found = score(name, ensemble(members.bfloat16().requires_grad_()))
    assert found.shape == (2, 12, 17)
    assert found.dtype == torch.float32
    assert not found.requires_grad


def test_entropies_and_mutual_information_against_scipy(prediction, softmaxes):
    total = stats.entropy(softmaxes.mean(0), axis=1)
    expected = stats.entropy(softmaxes, axis=2).mean(0)
    np.testing.assert_allclose(score("entropy", prediction), total, atol=3e-6)
    np.testing.assert_allclose(score("expected_entropy", prediction), expected, atol=3e-6)
    information = score("mutual_information", prediction)
    np.testing.assert_allclose(information, total - expected, atol=5e-6)
    assert information.max() <= math.log(3)


def test_probability_scores_against_numpy(prediction, softmaxes):
    ordered = np.sort(softmaxes.mean(0), axis=1)
    np.testing.assert_allclose(score("msp", prediction), 1 - ordered[:, -1], atol=1e-6)
    lead = ordered[:, -1] - ordered[:, -2]
    np.testing.assert_allclose(score("margin", prediction), 1 - lead, atol=1e-6)
    variance = softmaxes.var(axis=0).mean(axis=1)
    np.testing.assert_allclose(score("member_variance", prediction), variance, atol=1e-6)


def test_energy_of_a_model_and_of_an_ensemble(members, prediction):
    logsumexp = special.logsumexp(members.double().numpy(), axis=2)
    for index, member in enumerate(members):
        found = score("energy", Prediction(member))
        np.testing.assert_allclose(found, -logsumexp[index], atol=1e-5)
    np.testing.assert_allclose(score("energy", prediction), -logsumexp.mean(0), atol=1e-5)


def test_one_member_has_the_energy_of_the_model_bit_for_bit(members):
    alone = ensemble(members[:1])
    assert torch.equal(score("energy", alone), score("energy", Prediction(members[0])))


def test_instance_is_the_instance_mask(prediction):
    assert torch.equal(score("instance", prediction), instance_uncertainty(prediction.logits))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_identical_members_do_not_disagree(members, count):
    identical = ensemble(members[:1].expand(count, -1, -1, -1, -1))
    information = score("mutual_information", identical)
    assert information.min() >= 0
    assert information.max() < 2e-6
    assert score("member_variance", identical).max() < 1e-12
    torch.testing.assert_close(
        score("expected_entropy", identical), score("entropy", identical), atol=3e-6, rtol=0
    )


def test_the_order_of_the_members_does_not_matter(members, prediction):
    turned = ensemble(members.flip(0))
    for name in NAMES:
        torch.testing.assert_close(
            score(name, turned), score(name, prediction), atol=5e-6, rtol=0, msg=name
        )


def test_certain_members_that_contradict_each_other():
    logits = torch.full((2, 1, 2, 1, 1), -torch.inf)
    logits[0, 0, 0] = logits[1, 0, 1] = 0
    prediction = ensemble(logits)
    expected = {
        "entropy": math.log(2),
        "expected_entropy": 0.0,
        "mutual_information": math.log(2),
        "msp": 0.5,
        "margin": 1.0,
        "member_variance": 0.25,
        "instance": math.log(2),
    }
    for name, value in expected.items():
        assert score(name, prediction).item() == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("name", sorted(NAMES - OF_MEMBERS))
def test_flatter_logits_are_more_uncertain(name):
    logits = torch.zeros(1, 4, 1, 3)
    logits[0, 0, 0] = torch.tensor([8.0, 2.0, 0.5])
    logits[0, 1, 0, 1] = 0.1
    # one class per pixel, so that every pixel is its own instance
    for pixel in range(3):
        logits[0, :, 0, pixel] = logits[0, :, 0, pixel].roll(pixel)
    low, middle, high = score(name, Prediction(logits)).flatten().tolist()
    assert low < middle < high


def test_one_class_is_certain():
    prediction = Prediction(torch.randn(1, 1, 3, 4))
    for name in ("entropy", "msp", "margin", "instance"):
        assert (score(name, prediction) == 0).all(), name


@pytest.mark.gpu
def test_the_gpu_agrees(prediction):
    moved = Prediction(prediction.logits.cuda(), prediction.member_logits.cuda())
    for name in NAMES:
        found = score(name, moved)
        assert found.is_cuda
        torch.testing.assert_close(
            found.cpu(), score(name, prediction), atol=1e-5, rtol=0, msg=name
        )
