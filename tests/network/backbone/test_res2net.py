import pytest
import torch
from torch import nn

from network.backbone import build_backbone, resnet
from network.backbone.res2net import Bottle2neck
from tests.network.conftest import rule_weights

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BLOCKS = {"layer1": 3, "layer2": 4, "layer3": 23, "layer4": 3}


def on_meta(output_stride=8, **options):
    with torch.device("meta"):
        return build_backbone("res2net101", output_stride, **options)


@pytest.fixture(scope="module")
def weights():
    return rule_weights(on_meta().state_dict())


def built(weights, output_stride):
    backbone = on_meta(output_stride)
    backbone.load_state_dict(weights, assign=True)
    return backbone.eval()


def published_names():
    """Written down from the published file, without its classifier."""
    convs = ["conv1.0", "conv1.3", "conv1.6"]
    norms = ["conv1.1", "conv1.4", "bn1"]
    for layer, count in BLOCKS.items():
        for block in (f"{layer}.{number}" for number in range(count)):
            convs += [f"{block}.{part}" for part in ("conv1", "convs.0", "convs.1", "convs.2")]
            norms += [f"{block}.{part}" for part in ("bn1", "bns.0", "bns.1", "bns.2")]
            convs += [f"{block}.conv3"]
            norms += [f"{block}.bn3"]
        convs += [f"{layer}.0.downsample.1"]
        norms += [f"{layer}.0.downsample.2"]
    return [f"{conv}.weight" for conv in convs] + [f"{n}.{entry}" for n in norms for entry in NORM]


def test_published_names_and_widths():
    state = on_meta().state_dict()
    assert set(state) == set(published_names())
    assert state["layer1.1.convs.2.weight"].shape == (26, 26, 3, 3)
    assert state["layer4.0.conv1.weight"].shape == (4 * 208, 1024, 1, 1)
    assert sum(parameter.numel() for parameter in on_meta().parameters()) == 43_176_920


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(("height", "width"), [(65, 97), (64, 50), (1, 7)])
def test_sizes(height, width, output_stride):
    features = on_meta(output_stride).eval()(torch.empty(1, 3, height, width, device="meta"))
    at = {s: tuple(-(-side // s) for side in (height, width)) for s in (4, 8, output_stride)}
    assert {name: tuple(feature.shape) for name, feature in features.items()} == {
        "low_level": (1, 256, *at[4]),
        "middle": (1, 512, *at[8]),
        "aux": (1, 1024, *at[output_stride]),
        "out": (1, 2048, *at[output_stride]),
    }


@pytest.mark.parametrize(
    ("output_stride", "expected"), [(8, {1: 1, 2: 1, 3: 2, 4: 4}), (16, {1: 1, 2: 1, 3: 1, 4: 2})]
)
def test_all_blocks_of_a_layer_are_dilated_alike(output_stride, expected):
    """And the first ones, too, where torchvision's ResNets keep the dilation before."""
    backbone = on_meta(output_stride)
    for number, dilation in expected.items():
        layer = backbone.get_submodule(f"layer{number}")
        convs = [m for m in layer.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert {conv.dilation for conv in convs} == {(dilation, dilation)}
        assert {conv.padding for conv in convs} == {(dilation, dilation)}


@pytest.mark.parametrize("output_stride", [8, 16])
def test_agrees_with_timm(weights, output_stride):
    """timm's res2net101d, whose dilated layers are made to begin as they go on."""
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        reference = timm.create_model("res2net101d", output_stride=output_stride, num_classes=0)
    reference.load_state_dict(weights, assign=True)
    dilated = {8: {"layer3": 2, "layer4": 4}, 16: {"layer4": 2}}[output_stride]
    for layer, dilation in dilated.items():
        first = reference.get_submodule(layer)[0]
        first.downsample[0] = nn.Identity()  # timm averages, although the stride is gone
        for conv in first.convs:
            conv.dilation = conv.padding = (dilation, dilation)
    images = torch.randn(2, 3, 57, 66, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = built(weights, output_stride)(images)["out"]
        expected = reference.eval().forward_features(images)
    torch.testing.assert_close(found / expected.std(), expected / expected.std())


def test_weights_are_those_of_version_1b(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "network.backbone.download_weights", lambda url: asked.append(url) or {"fc.weight": 0}
    )
    with pytest.raises(ValueError, match="does not fit Res2Net-101 v1b"):
        on_meta(pretrained="imagenet")
    assert asked[0].endswith("/res2net101_v1b_26w_4s-0812c246.pth")


def test_a_published_file_loads(monkeypatch, weights):
    content = weights | {"fc.weight": torch.ones(1000, 2048), "fc.bias": torch.ones(1000)}
    monkeypatch.setattr("network.backbone.read_weights", lambda path: content)
    state = build_backbone("res2net101", 16, pretrained="file.pth").state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())
    assert resnet.published_name("fc.bias") is None


@pytest.mark.parametrize(("first", "stride"), [(True, 2), (True, 1), (False, 1)])
def test_gradients_of_a_block(first, stride):
    torch.manual_seed(0)
    block = Bottle2neck(12, 3, first=first, stride=stride)
    block.load_state_dict(rule_weights(block.state_dict()))  # no bias at the kink of a ReLU
    block.double().eval()
    x = torch.randn(1, 12, 5, 4, dtype=torch.float64, requires_grad=True)
    before = x.detach().clone()
    weights = dict(block.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(block, dict(zip(weights, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *weights.values()))
    assert torch.equal(x, before)
