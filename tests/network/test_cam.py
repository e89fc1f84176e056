"""Activation maps: shapes, refinement against its definition, gradients, symmetries, bounds."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.mismatch import last_layer
from network import build_model, cam, from_published
from network.cam import CamNetwork, PixelCorrelation
from tests.network.cam_toy import TinyBackbone, cam_network


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 44, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return cam_network(classes=4).eval()


def certain(raw):
    """What the refinement spreads, class by class, for a background 0."""
    scaled = []
    for map_ in raw[:, 1:].unbind(1):
        positive = map_.clamp(min=0)
        highest = positive.flatten(1).max(1).values[:, None, None] + 1e-5
        scaled.append((positive - 1e-5).clamp(min=0) / highest)
    largest = torch.stack(scaled).max(0).values
    kept = [torch.where(each < largest, torch.zeros(()), each) for each in scaled]
    return torch.stack([1 - largest, *kept], 1)


def refined_by_definition(network, images):
    """The whole (h w)^2 matrix, columns that sum to one."""
    features = network.backbone(images)
    raw = network.classifier(features["out"])
    size = raw.shape[-2:]
    parts = [F.interpolate(images, size=size, mode="bilinear", align_corners=True)]
    parts += [network.correlation.sides[name](features[name]).relu() for name in ("middle", "aux")]
    joint = network.correlation.joint(torch.cat(parts, 1)).flatten(2)
    joint = joint / (joint.norm(dim=1, keepdim=True) + 1e-5)
    affinity = torch.einsum("ndi,ndj->nij", joint, joint).relu()
    affinity = affinity / (affinity.sum(1, keepdim=True) + 1e-5)
    return (certain(raw).flatten(2) @ affinity).unflatten(2, size)


def test_the_maps_have_the_stride_of_the_last_feature_or_the_size_that_is_asked_for(
    network, images
):
    small, full = network.maps(images), network.maps(images, images.shape[-2:])
    assert small.raw.shape == small.refined.shape == (2, 4, 8, 11)
    assert full.raw.shape == full.refined.shape == (2, 4, 32, 44)
    for at_stride, resized in zip(small, full, strict=True):
        torch.testing.assert_close(
            resized, F.interpolate(at_stride, size=(32, 44), mode="bilinear", align_corners=True)
        )


def test_the_refinement_is_its_definition(network, images):
    with torch.no_grad():
        expected = refined_by_definition(network, images)
        torch.testing.assert_close(network.maps(images).refined, expected)


def test_without_refinement_the_maps_are_normalised_and_each_pixel_keeps_one_class(images):
    torch.manual_seed(0)
    network = cam_network(classes=4, correlation=False).eval()
    out = network.maps(images)
    torch.testing.assert_close(out.refined, certain(out.raw))
    assert (out.refined[:, 1:] > 0).sum(1).max() == 1
    assert not any(name.startswith("correlation") for name in network.state_dict())


@pytest.mark.parametrize("values", [2 * 88 * 30, 200, 1])
def test_blocks_change_neither_values_nor_gradients(network, images, monkeypatch, values):
    def run():
        network.zero_grad()
        refined = network.maps(images).refined
        refined.square().sum().backward()
        return refined, network.correlation.joint.weight.grad.clone()

    whole, gradient = run()
    monkeypatch.setattr(cam, "AFFINITIES", values)
    in_blocks, gradient_of_blocks = run()
    torch.testing.assert_close(in_blocks, whole)
    torch.testing.assert_close(gradient_of_blocks, gradient)


def test_no_more_weights_than_the_limit_are_made_at_once(network, images, monkeypatch):
    made = []

    def counted(sources, features, targets):
        made.append(features.shape[0] * features.shape[2] * targets.shape[2])
        return sources[:, :-1, : targets.shape[2]]

    monkeypatch.setattr(cam, "_block_of", counted)
    monkeypatch.setattr(cam, "AFFINITIES", 2 * 88 * 30)
    with torch.no_grad():
        network.maps(images)
    assert max(made) == 2 * 88 * 30
    assert sum(made) == 2 * 88 * 88


def test_the_refinement_trains_its_own_layers_alone(network, images):
    network.maps(images).refined.square().sum().backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None}
    assert reached == {
        f"correlation.{name}.weight" for name in ("sides.middle", "sides.aux", "joint")
    }


def test_the_raw_maps_train_backbone_and_class_head_alone(network, images):
    network.maps(images).raw.sum().backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None}
    expected = {name for name, _ in network.named_parameters() if "correlation" not in name}
    assert reached == expected


@pytest.mark.parametrize("size", [None, (32, 44), (5, 6)])
def test_the_raw_maps_alone_are_those_beside_the_refined_ones(network, images, size):
    assert torch.equal(network.raw_maps(images, size), network.maps(images, size).raw)


def test_permuted_classes_give_permuted_maps(network, images):
    order = torch.tensor([0, 3, 1, 2])
    with torch.no_grad():
        before = network.maps(images)
        network.classifier.weight.copy_(network.classifier.weight[order].clone())
        after = network.maps(images)
    torch.testing.assert_close(after.raw, before.raw[:, order])
    torch.testing.assert_close(after.refined, before.refined[:, order])


def test_the_channel_of_the_background_is_free(images):
    torch.manual_seed(0)
    first = cam_network(classes=4, background=0).eval()
    last = cam_network(classes=4, background=3).eval()
    order = [1, 2, 3, 0]
    state = first.state_dict()
    own = {"classifier.weight": state["classifier.weight"][order]}
    last.load_state_dict({**state, **own, "background_channel": torch.tensor(3)})
    with torch.no_grad():
        for a, b in zip(first.maps(images), last.maps(images), strict=True):
            torch.testing.assert_close(b, a[:, order])
        torch.testing.assert_close(last(images).logits, first(images).logits[:, order])


def test_features_of_other_sizes_are_resized(images):
    """As of backbones whose ``middle`` has a smaller stride than ``out``."""
    refine = PixelCorrelation({"middle": 5, "aux": 6})
    features = {"middle": torch.randn(2, 5, 16, 22), "aux": torch.randn(2, 6, 8, 11)}
    maps = torch.rand(2, 4, 8, 11)
    refined = refine(maps, images, features)
    assert refined.shape == maps.shape
    highest, least = maps.amax((2, 3), keepdim=True), maps.amin((2, 3), keepdim=True)
    assert (refined <= highest + 1e-6).all()
    assert (refined >= 0.9 * least).all()


def test_the_segmentation_shows_present_classes_scaled_to_their_range(network, images):
    with torch.no_grad():
        network.classifier.weight[2] = -network.classifier.weight[1].abs()  # never there
        network.classifier.weight[1] = network.classifier.weight[1].abs()
        logits = network(images, at_stride=True).logits
        refined = network.maps(images).refined
    probs = logits.exp()
    assert logits.shape == (2, 4, 8, 11)
    least, most = (f(refined[:, 1], (1, 2), True) for f in (torch.amin, torch.amax))
    scaled = (refined[:, 1] - least - 1e-5).clamp(min=0) / (most - least + 1e-5)
    torch.testing.assert_close(probs[:, 1], scaled.clamp(1e-5))
    torch.testing.assert_close(probs[:, 2], torch.full((2, 8, 11), 1e-5))
    highest = probs[:, 1:].amax(1)
    torch.testing.assert_close(probs[:, 0], (1 - highest).clamp(1e-5), rtol=1e-3, atol=2e-5)


def test_a_data_set_without_background_has_foreground_alone(images):
    torch.manual_seed(0)
    network = cam_network(classes=4, background=None, correlation=False).eval()
    with torch.no_grad():
        network.classifier.weight.abs_()
        probs = network(images).logits.exp()
        refined = network.maps(images).refined
    assert probs.shape == (2, 4, 32, 44)
    assert ((refined > 0).sum(1) <= 1).all()
    assert (probs.amax((2, 3)) > 0.99).any()


def test_logits_are_finite_where_every_map_is_flat_or_empty(images):
    network = cam_network(classes=4).eval()
    with torch.no_grad():
        network.classifier.weight.zero_()
        logits = network(images).logits
    torch.testing.assert_close(logits[:, 0].exp(), torch.ones(2, 32, 44))
    torch.testing.assert_close(logits[:, 1:].exp(), torch.full((2, 3, 32, 44), 1e-5))


def test_pooled_features_are_the_mean_of_the_last_feature(network, images):
    with torch.no_grad():
        assert network(images).features is None
        pooled = network(images, pooled_features=True).features
        torch.testing.assert_close(pooled, network.backbone(images)["out"].mean((2, 3)))


def test_dropout_takes_whole_channels_in_training_mode(images):
    torch.manual_seed(0)
    network = CamNetwork(TinyBackbone(), 3, background=0, dropout=0.5)
    assert isinstance(network.dropout, nn.Dropout2d)
    network.eval()
    features = network.backbone(images)["out"]
    assert torch.equal(network.dropout(features), features)
    dropped = network.dropout.train()(features)
    assert set((dropped == 0).flatten(2).all(2).unique().tolist()) == {False, True}


def test_autocast_leaves_the_maps_in_float32(network, images):
    with torch.no_grad():
        plain = network.maps(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = network.maps(images)
    assert half.raw.dtype == half.refined.dtype == torch.float32
    torch.testing.assert_close(half.raw, plain.raw, rtol=0.1, atol=0.05)


def test_compiling_concerns_what_the_maps_are_made_by(network, images):
    plain = network.maps(images)
    network.compile(backend="eager")
    assert network.backbone._compiled_call_impl is not None
    for compiled, eager in zip(network.maps(images), plain, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_the_class_head_is_the_last_convolution_of_a_state(network):
    assert list(network.state_dict())[-1] == "classifier.weight"


def test_the_parameter_groups_hold_every_parameter_once(network):
    groups = network.parameter_groups()
    listed = [parameter for group in groups.values() for parameter in group]
    assert {id(each) for each in listed} == {id(each) for each in network.parameters()}
    assert len(listed) == len(list(network.parameters()))
    assert any(each is network.correlation.joint.weight for each in groups["classifier"])


def test_images_that_are_too_small_are_refused(network):
    with pytest.raises(ValueError, match="of 3x9 pixels: this backbone needs at least 4"):
        network.maps(torch.zeros(1, 3, 3, 9))
    with pytest.raises(ValueError, match="at least 4 on each side"):
        network(torch.zeros(1, 3, 3, 9))


@pytest.mark.parametrize("background", [0, None])
def test_a_state_brings_the_background_of_its_classes(background):
    saved = CamNetwork(TinyBackbone(), 4, background=background)
    other = CamNetwork(TinyBackbone(), 4, background=2)
    other.load_state_dict(saved.state_dict())
    assert other.background == background
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(saved.eval()(images).logits, other.eval()(images).logits)


def test_published_classifiers_load_under_our_names():
    with torch.device("meta"):
        ours = build_model("cam_resnet38d", 21, background=0).state_dict()
    behind = {"classifier": "fc8", "correlation.sides.middle": "f8_3",
              "correlation.sides.aux": "f8_4", "correlation.joint": "f9"}  # fmt: skip
    theirs = {}
    for name, value in ours.items():
        module, _, parameter = name.rpartition(".")
        if module.startswith("backbone."):
            theirs[f"{module.removeprefix('backbone.')}.{parameter}"] = value
    for module, published in behind.items():  # in the order of the released files
        theirs[f"{published}.weight"] = ours[f"{module}.weight"]
    assert list(theirs)[-4:] == ["fc8.weight", "f8_3.weight", "f8_4.weight", "f9.weight"]
    assert "conv1a.weight" in theirs
    loaded = from_published(theirs)
    assert last_layer(loaded)[0] == "classifier.weight"
    assert loaded.pop("background_channel") == 0
    assert all(loaded[name] is value for name, value in ours.items() if name in loaded)
    assert loaded.keys() == ours.keys() - {"background_channel"}
