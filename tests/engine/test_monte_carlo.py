"""Monte Carlo dropout: samples that depend on nothing but the image."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engine.monte_carlo import MonteCarloDropout
from methods import METHODS
from options import parse
from utils.types import FEATURES

CLASSES = 4


@pytest.fixture(scope="module")
def method():
    torch.manual_seed(0)
    opts = parse(["--pretrained_backbone", "none", "--crop_size", "40x56", "--dropout", "0.3"])
    return METHODS["supervised"](opts, CLASSES).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 40, 56, generator=torch.Generator().manual_seed(1))


def monte_carlo(method, samples=3, seed=5):
    return MonteCarloDropout(method, method.deployable(), samples, seed)


@torch.no_grad()
def test_samples_differ_and_their_mean_softmax_is_the_prediction(method, images):
    found = monte_carlo(method).predict(images)
    assert found.member_logits.shape == (3, 3, CLASSES, 40, 56)
    assert not torch.equal(found.member_logits[0], found.member_logits[1])
    mean = found.member_logits.softmax(2).mean(0)
    torch.testing.assert_close(found.logits.softmax(1), mean, rtol=0, atol=1e-6)


@torch.no_grad()
def test_batch_order_and_earlier_draws_do_not_matter(method, images):
    together = monte_carlo(method).predict(images).member_logits
    torch.manual_seed(99)
    turned = monte_carlo(method).predict(images.flip(0)).member_logits
    assert torch.equal(turned.flip(1), together)
    assert torch.equal(monte_carlo(method).predict(images[1:2]).member_logits, together[:, 1:2])
    other = monte_carlo(method, seed=50).predict(images).member_logits
    assert not torch.equal(other, together)


@torch.no_grad()
def test_generators_and_modes_are_left_as_they_were(method, images):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    monte_carlo(method).predict(images)
    assert torch.equal(torch.rand(3), expected)
    assert not any(module.training for module in method.network.modules())
    after = method.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@torch.no_grad()
def test_features_come_along(method, images):
    features = monte_carlo(method).predict(images, frozenset({FEATURES})).features
    assert features.shape == (3, 320)


@torch.no_grad()
def test_members_of_an_ensemble_are_sampled_one_after_the_other(images):
    torch.manual_seed(0)
    argv = ["--model", "ensemble", "--num_models", "2", "--backbone", "mobilenet"]
    opts = parse(["--pretrained_backbone", "none", "--crop_size", "40x56", *argv])
    method = METHODS["ensemble"](opts, CLASSES).eval()
    for number, member in enumerate(method.members().values()):
        member.classifier.classifier[-1].bias.data.fill_(
            number
        )  # random weights say next to nothing
    plain = method.predict(images).member_logits
    sampled = monte_carlo(method, samples=2).predict(images).member_logits.unflatten(0, (2, 2))
    assert sampled.shape == (2, 2, *plain.shape[1:])
    distance = (sampled[:, :, None] - plain[None, None]).abs().mean((3, 4, 5, 6))  # (M, S, M)
    assert torch.equal(distance.argmin(2), torch.tensor([[0, 0], [1, 1]]))


def test_a_network_without_dropout_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Dropout(0.0))
    with pytest.raises(ValueError, match="draws from dropout, and this network has none"):
        MonteCarloDropout(SimpleNamespace(predict=None), network, 3, 0)
