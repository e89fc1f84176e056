import pytest
import torch
from torch.nn import functional as F

from network.backbone import FEATURES, build_backbone
from network.backbone.scalenet import ScaleBlock, ScaleNet
from tests.network.backbone.recomputation import assert_checkpointing_changes_nothing
from tests.network.conftest import rule_weights

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BLOCKS = {"layer1": 3, "layer2": 4, "layer3": 23, "layer4": 3}
STRIDES = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1)}
DILATIONS = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2)}


def on_meta(output_stride=8, **options):
    with torch.device("meta"):
        return build_backbone("scalenet101", output_stride, **options)


@pytest.fixture(scope="module")
def weights():
    return rule_weights(on_meta().state_dict())


def images(n, height, width):
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_published_names_and_widths():
    state = on_meta().state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    blocks = {name.split(".conv3.")[0] for name in shapes if ".conv3." in name}
    assert blocks == {f"{layer}.{n}" for layer, count in BLOCKS.items() for n in range(count)}
    assert {name for name in shapes if name.startswith("layer4.0.")} == {
        *(f"layer4.0.{conv}.weight" for conv in ("conv1", "conv3", "downsample.0")),
        *(f"layer4.0.conv2.{n}.weight" for n in range(3)),  # the fourth branch is absent
        *(f"layer4.0.{norm}.{entry}" for norm in ("bn1", "bn3", "downsample.1") for entry in NORM),
        *(f"layer4.0.bn2.{n}.{entry}" for n in range(3) for entry in NORM),
    }
    assert [shapes[f"layer3.2.conv2.{n}.weight"][0] for n in range(4)] == [156, 25, 53, 107]
    assert shapes["layer4.2.conv2.2.weight"] == (155, 512, 3, 3)
    assert shapes["layer4.2.conv2.3.weight"] == (1, 512, 1, 1)  # less than a pixel of 7 is left
    assert sum(parameter.numel() for parameter in on_meta().parameters()) == 52_743_390


@pytest.mark.parametrize(
    ("height", "width", "output_stride", "expected"),
    [(65, 97, 8, (8, 12)), (224, 224, 8, (28, 28)), (97, 65, 16, (6, 4)), (5, 5, 8, (1, 1))],
)
def test_sizes_are_rounded_down(height, width, output_stride, expected):
    backbone = on_meta(output_stride).eval()
    features = backbone(torch.empty(1, 3, height, width, device="meta"))
    assert features["out"].shape == (1, 2048, *expected)
    assert features["aux"].shape == (1, 1024, *expected)
    assert features["middle"].shape[:2] == (1, 512)
    assert features["low_level"].shape[:2] == (1, 256)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_smallest_input(output_stride):
    backbone = on_meta(output_stride).eval()
    least = backbone.smallest_input
    assert backbone(torch.empty(1, 3, least, least, device="meta"))["out"].shape[-2:] == (1, 1)
    with pytest.raises(RuntimeError):
        backbone(torch.empty(1, 3, least - 1, least, device="meta"))


def norm(state, name, x):
    entries = (f"{name}.{entry}" for entry in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *(state[entry] for entry in entries), eps=1e-5)


def block_by_rule(state, name, x, stride, dilation):
    """A block of the specification, from a state dict alone, in evaluation mode."""
    x = F.max_pool2d(x, stride, stride)
    a = F.relu(norm(state, f"{name}.bn1", F.conv2d(x, state[f"{name}.conv1.weight"])))
    branches = []
    for index, pool in enumerate((1, 2, 4, 7)):
        weight = state.get(f"{name}.conv2.{index}.weight")
        if weight is None:
            continue
        spread = dilation * (weight.shape[-1] // 2)
        b = F.max_pool2d(a, pool, pool)
        b = F.conv2d(b, weight, padding=spread, dilation=max(spread, 1))
        whole = a.shape[2] % b.shape[2] == 0 and a.shape[3] % b.shape[3] == 0
        b = F.interpolate(b, a.shape[2:], mode="nearest" if whole else "bilinear")
        branches.append(norm(state, f"{name}.bn2.{index}", b))
    y = F.conv2d(F.relu(torch.cat(branches, 1)), state[f"{name}.conv3.weight"])
    if f"{name}.downsample.0.weight" in state:
        x = norm(state, f"{name}.downsample.1", F.conv2d(x, state[f"{name}.downsample.0.weight"]))
    return F.relu(norm(state, f"{name}.bn3", y) + x)


@pytest.mark.parametrize(
    ("output_stride", "classifier"), [(8, False), (16, False), (8, True), (16, True)]
)
def test_arithmetic_of_the_specification(weights, output_stride, classifier):
    """The trunk written down from its table; maps of 16 x 23 are multiples of some pools only."""
    backbone = on_meta(output_stride, classifier=classifier)
    backbone.load_state_dict(weights, assign=True)
    x = images(1, 125, 180)
    with torch.no_grad():
        features = backbone.eval()(x)
    x = F.conv2d(x, weights["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm(weights, "bn1", x)), 3, 2, 1)
    dilations = (1, 1, 1, 1) if classifier else DILATIONS[output_stride]
    taps = {tap.layer: name for name, tap in FEATURES["scalenet101"].items()}
    for (layer, count), stride, dilation in zip(
        BLOCKS.items(), STRIDES[output_stride], dilations, strict=True
    ):
        for number in range(count):
            x = block_by_rule(
                weights, f"{layer}.{number}", x, stride if number == 0 else 1, dilation
            )
        torch.testing.assert_close(features[taps[layer]] / x.std(), x / x.std())


def test_a_pool_larger_than_the_map_takes_the_whole_map():
    block = ScaleBlock(8, 2, (0, 0, 0, 3), 56).eval()
    x = torch.rand(1, 8, 3, 5, generator=torch.Generator().manual_seed(0))
    first = block.conv1.weight
    with torch.no_grad():
        inner = block.relu(block.bn1(F.conv2d(x, first)))
        pooled = inner.amax((2, 3), keepdim=True)
        expected = block.bn2["3"](block.conv2["3"](pooled)).expand(-1, -1, 3, 5)
        torch.testing.assert_close(block._branch("3", inner), expected)


def test_a_block_leaves_its_input():
    for block in (ScaleBlock(8, 2, (1, 2, 0, 3), 14), ScaleBlock(4, 2, (3, 0, 0, 0), 14, stride=2)):
        x = torch.randn(2, block.conv1.in_channels, 6, 6, requires_grad=True)
        before = x.detach().clone()
        block.train()(x).square().sum().backward()
        assert torch.equal(x, before)


def test_checkpointing_changes_nothing(monkeypatch):
    small = {
        f"layer{n + 1}": (side, ((2, 1, 1, 0), (1, 0, 2, 1)))
        for n, side in enumerate((56, 28, 14, 7))
    }
    monkeypatch.setattr("network.backbone.scalenet._STRUCTURE", small)
    backbone = ScaleNet("scalenet101", FEATURES["scalenet101"], 8).train()
    assert_checkpointing_changes_nothing(backbone, images(2, 33, 41))


def test_imagenet_weights_have_no_address():
    with pytest.raises(ValueError, match="no address is known .* ScaleNet-101; pass --pretrained"):
        on_meta(pretrained="imagenet")
