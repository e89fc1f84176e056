from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from network.heads import CosineHead, LinearHead
from tests.uncertainty.toys import ToyNetwork, predictor, statistics_of
from uncertainty import ScoreSettings, StatisticsCollector, build_score

STD = (0.229, 0.224, 0.225)


@pytest.fixture
def images():
    return torch.randn(4, 3, 16, 20, generator=torch.Generator().manual_seed(1))


def single(head=None):
    torch.manual_seed(0)
    network = ToyNetwork()
    if head is not None:
        network.head = head(8, 4)
    return network.eval()


def several():
    torch.manual_seed(5)
    return nn.ModuleList(ToyNetwork() for _ in range(3)).eval()


NETWORKS = {
    "toy": single,
    "linear": lambda: single(LinearHead),
    "cosine": lambda: single(CosineHead),
    "ensemble": several,
}


@torch.no_grad()
def settings_of(network, images, **more):
    collector = StatisticsCollector(network)
    with collector.attached():
        for batch in images.split(2):
            collector.update({}, predictor(network)(batch))
    return ScoreSettings(statistics=collector.statistics(), std=STD, **more)


def run(name, network, images, settings):
    """The prediction of a score's variant."""
    with torch.no_grad():
        return build_score(name, settings).variant.run(predictor(network), network, images)


def members(network):
    return list(network) if isinstance(network, nn.ModuleList) else [network]


def logits_of(prediction):
    return [prediction.logits] if prediction.member_logits is None else prediction.member_logits


@pytest.mark.parametrize("name", NETWORKS)
def test_react_is_the_head_of_clipped_features(name, images):
    network = NETWORKS[name]()
    settings = settings_of(network, images)
    found = run("react", network, images, settings)
    plain = logits_of(predictor(network)(images))
    for place, member in enumerate(members(network)):
        features = member.features(images).detach()
        limit = settings.statistics.heads[place].percentile(90)
        assert limit == pytest.approx(np.percentile(features.numpy(), 90), rel=2**-8)
        expected = member.head(features.clamp(max=limit), images.shape[-2:])
        torch.testing.assert_close(logits_of(found)[place], expected)
        assert not torch.allclose(expected, plain[place])


@pytest.mark.parametrize("name", NETWORKS)
def test_dice_keeps_the_weights_that_contribute_most(name, images):
    network = NETWORKS[name]()
    found = run("dice", network, images, settings_of(network, images))
    for place, member in enumerate(members(network)):
        features = member.features(images).detach()
        weights = member.head.weight.detach().flatten(1)
        if name == "cosine":
            weights = weights / (weights.norm(dim=1, keepdim=True) + 1e-4)
            mean = (features / (features.norm(dim=1, keepdim=True) + 1e-4)).mean((0, 2, 3))
        else:
            mean = features.mean((0, 2, 3))
        contributions = (weights * mean).double().numpy()
        kept = contributions > np.percentile(contributions, 90)
        assert 0 < kept.sum() <= 4
        sparse = weights * torch.from_numpy(kept)
        if name == "cosine":
            continue  # the division by the norm follows; checked by its sparse columns below
        bias = getattr(member.head, "bias", None)
        small = F.conv2d(features, sparse[..., None, None], bias)
        expected = F.interpolate(small, size=images.shape[-2:], mode="bilinear")
        torch.testing.assert_close(logits_of(found)[place], expected, atol=1e-5, rtol=1e-5)


def test_dice_of_a_cosine_head_scales_nothing_but_drops_terms(images):
    network = single(CosineHead)
    settings = settings_of(network, images, dice_percentile=97.0)
    found = run("dice", network, images, settings).logits
    weights = network.head.class_weights().detach().double()
    contributions = weights * settings.statistics.heads[0].mean_features
    kept = contributions > np.percentile(contributions.numpy(), 97)
    empty = ~kept.any(1)
    assert empty.any()
    assert (found[:, empty] == 0).all()
    features = network.features(images)[:1, :, :1, :1].detach().expand(1, 8, 3, 3)
    network.head.weight_mask = kept
    everywhere = network.head(features, (3, 3))[0, :, 1, 1]
    one = network.head.class_features(features)[0, :, 0, 0].detach().double()
    torch.testing.assert_close(everywhere.double(), (weights * kept) @ one, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("percentile", [50.0, 99.0])
def test_other_percentiles(percentile, images):
    network = single()
    settings = settings_of(network, images)
    settings = replace(settings, react_percentile=percentile, dice_percentile=percentile)
    with torch.no_grad():
        for name, attribute in (("react", "activation_limit"), ("dice", "weight_mask")):
            seen = []
            hook = network.head.register_forward_pre_hook(
                lambda head, _, seen=seen, attribute=attribute: seen.append(
                    getattr(head, attribute)
                )
            )
            run(name, network, images, settings)
            hook.remove()
            if name == "react":
                expected = np.percentile(network.features(images).numpy(), percentile)
                assert seen == [pytest.approx(expected, rel=2**-8)]
            else:
                assert seen[0].sum() == round(4 * 8 * (1 - percentile / 100) + 0.49)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("score", ["react", "dice", "odin"])
def test_the_network_is_as_before_also_after_an_error(name, score, images):
    network = NETWORKS[name]()
    settings = settings_of(network, images)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    plain = predictor(network)(images).logits
    run(score, network, images, settings)

    def breaks(images, needs=frozenset()):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        build_score(score, settings).variant.run(breaks, network, images)
    for member in members(network):
        assert member.head.activation_limit is None
        assert member.head.weight_mask is None
        assert all(parameter.grad is None for parameter in member.parameters())
        assert all(parameter.requires_grad for parameter in member.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(predictor(network)(images).logits, plain)
    assert torch.is_grad_enabled()


def hand_written_step(network, image, epsilon):
    """The sign step of one image by central differences in float64."""

    def likelihood(pixels):
        wide = [member(pixels) for member in members(network)]
        mean = torch.stack([logits.softmax(1) for logits in wide]).mean(0)
        return mean.amax(1).log().sum()

    wide = image.double()
    gradient = torch.zeros_like(wide)
    for index in np.ndindex(*wide.shape):
        up, down = wide.clone(), wide.clone()
        up[index] += 1e-6
        down[index] -= 1e-6
        gradient[index] = (likelihood(up) - likelihood(down)) / 2e-6
    sure = gradient.abs() > 1e-4
    step = torch.tensor([epsilon / std for std in STD]).view(-1, 1, 1)
    return image + step * gradient.sign().float(), sure


@pytest.mark.parametrize("name", ["toy", "cosine", "ensemble"])
@torch.no_grad()
def test_odin_against_a_hand_written_step(name):
    network = NETWORKS[name]()
    images = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(3))
    seen = []

    def spies(images, needs=frozenset()):
        seen.append(images.detach().clone())
        return predictor(network)(images)

    score = build_score("odin", ScoreSettings(epsilon=0.01, std=STD))
    assert score.variant.name == "odin-0.01"
    found = score.variant.run(spies, network, images)
    assert not found.logits.requires_grad
    assert [len(batch) for batch in seen] == [1, 1, 2]  # a gradient at a time, then all
    assert torch.equal(found.logits, predictor(network)(seen[-1]).logits)
    network.double()
    for image, moved in zip(images, seen[-1], strict=True):
        expected, sure = hand_written_step(network, image[None], 0.01)
        assert sure.float().mean() > 0.9
        torch.testing.assert_close(moved[None][sure], expected[sure], atol=1e-6, rtol=0)


@torch.no_grad()
def test_odin_makes_the_prediction_surer(images):
    network = several()
    score = build_score("odin", ScoreSettings(epsilon=0.002, std=STD))
    perturbed = score.function(score.variant.run(predictor(network), network, images))
    plain = score.function(predictor(network)(images))
    assert perturbed.mean() < plain.mean()


def test_odin_without_a_step_is_the_plain_pass(images):
    network = single()
    settings = ScoreSettings(epsilon=0.0, std=STD)
    assert torch.equal(run("odin", network, images, settings).logits, network(images))


@pytest.mark.parametrize("name", ["react", "dice", "odin"])
def test_scores_of_one_modifier_share_their_variant(name, images):
    settings = settings_of(single(), images)
    variants = {build_score(f"{name}+{score}", settings).variant for score in ("abet", "msp")}
    assert len(variants) == 1
    other = replace(settings, epsilon=0.1, react_percentile=80.0, dice_percentile=80.0)
    variants.add(build_score(f"{name}+abet", other).variant)
    assert len(variants) == 2


@pytest.mark.parametrize("name", ["react", "dice"])
def test_statistics_of_other_heads_are_refused(name, images):
    settings = settings_of(single(), images)
    score = build_score(name, settings)
    with pytest.raises(
        ValueError, match=rf"{name} are of .* \[8\] channels, this network has \[8, 8"
    ):
        score.variant.run(predictor(several()), several(), images)
    with pytest.raises(ValueError, match=f"{name} changes the class head .* this one has none"):
        score.variant.run(predictor(None), nn.Conv2d(3, 4, 1), images)
    with pytest.raises(ValueError, match="these have only those of logits"):
        build_score(name, ScoreSettings(statistics=statistics_of(1, classes=4)))


def test_a_clipped_score_is_not_the_plain_one(images):
    network = single()
    settings = settings_of(network, images)
    clipped = build_score("react+energy", settings)
    assert clipped.name == "react+energy"
    plain = clipped.function(predictor(network)(images))
    found = clipped.function(run("react+energy", network, images, settings))
    assert found.isfinite().all()
    assert not torch.allclose(found, plain)
