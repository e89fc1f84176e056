import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from datasets.crops import IMAGENET_MEAN
from datasets.transforms import IMAGENET_STD, normalize
from network.backbone import build_backbone
from network.backbone.resnet_caffe import NORMALISATION, CaffeColours
from tests.network.backbone.recomputation import assert_checkpointing_changes_nothing
from tests.network.conftest import rule_weights

BGR_MEAN = np.array([104.00698793, 116.66876762, 122.67891434])
BLOCKS = {"layer1": 3, "layer2": 4, "layer3": 23, "layer4": 3}
DILATION = {"layer1": 1, "layer2": 1, "layer3": 2, "layer4": 4}


def on_meta(**options):
    with torch.device("meta"):
        return build_backbone("resnet101_caffe", 16, **options)


@pytest.fixture(scope="module")
def backbone():
    built = on_meta()
    built.load_state_dict(rule_weights(built.state_dict()), assign=True)
    return built.eval()


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_number_of_parameters():
    built = on_meta()
    assert parameters(built.conv1) == 9_408
    assert parameters(built.bn1) == 128
    counts = [parameters(built.get_submodule(layer)) for layer in BLOCKS]
    assert counts == [215_808, 1_219_584, 26_090_496, 14_964_736]
    norms = [m for m in built.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(map(parameters, norms)) == 93_536_480 - 93_431_136
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-5, 0.1)}


def test_names_are_torchvisions():
    """And so the published ones; what changes colours has no tensors."""
    with torch.device("meta"):
        theirs = models.resnet101().state_dict()
    shapes = {name: tensor.shape for name, tensor in on_meta().state_dict().items()}
    assert shapes == {name: t.shape for name, t in theirs.items() if not name.startswith("fc.")}
    assert {name for name, _ in on_meta().named_buffers()} <= set(shapes)


def test_colours_are_those_of_caffe():
    """Against the image itself: BGR of 0 to 255 minus the mean pixel."""
    rgb = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    images = normalize(torch.from_numpy(rgb).permute(0, 3, 1, 2))
    expected = rgb[..., ::-1].astype(np.float64) - BGR_MEAN
    found = CaffeColours()(images).permute(0, 2, 3, 1).double().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_images_are_normalised_as_the_loader_does():
    np.testing.assert_array_equal(NORMALISATION, (IMAGENET_MEAN, IMAGENET_STD))


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize(
    ("side", "expected"),
    [(256, 33), (512, 65), (640, 81), (768, 97), (960, 121), (1024, 129), (1280, 161), (37, 5)],
)
def test_sizes(side, expected, output_stride):
    """An eighth of the side and one more, by the pool that rounds up."""
    with torch.device("meta"):
        built = build_backbone("resnet101_caffe", output_stride).eval()
    features = built(torch.empty(1, 3, side, 64, device="meta"))
    halved = (side + 1) // 2
    assert {name: tuple(feature.shape) for name, feature in features.items()} == {
        "low_level": (1, 256, halved // 2 + 1, 17),
        "middle": (1, 512, expected, 9),
        "aux": (1, 1024, expected, 9),
        "out": (1, 2048, expected, 9),
    }


def norm(state, name, x):
    entries = (f"{name}.{entry}" for entry in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *(state[entry] for entry in entries), eps=1e-5)


def block_by_rule(state, name, x, stride, dilation):
    """A bottleneck of the specification, from a state dict alone, in evaluation mode."""
    y = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride)
    y = F.relu(norm(state, f"{name}.bn1", y))
    y = F.conv2d(y, state[f"{name}.conv2.weight"], padding=dilation, dilation=dilation)
    y = F.relu(norm(state, f"{name}.bn2", y))
    y = norm(state, f"{name}.bn3", F.conv2d(y, state[f"{name}.conv3.weight"]))
    if f"{name}.downsample.0.weight" in state:
        x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
        x = norm(state, f"{name}.downsample.1", x)
    return F.relu(x + y)


def test_arithmetic_of_the_specification(backbone):
    """The trunk written down from its list, on the published names."""
    state = backbone.state_dict()
    images = torch.rand(1, 3, 40, 29, generator=torch.Generator().manual_seed(0))
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = 255 * images.flip(1) - torch.tensor(BGR_MEAN, dtype=torch.float32).view(3, 1, 1)
    x = F.conv2d(pixels, state["conv1.weight"], stride=2, padding=3)
    x = F.relu(norm(state, "bn1", x))
    x = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
    expected = {}
    for layer, blocks in BLOCKS.items():
        for block in range(blocks):
            stride = 2 if (layer, block) == ("layer2", 0) else 1
            x = block_by_rule(state, f"{layer}.{block}", x, stride, DILATION[layer])
        expected[layer] = x
    assert expected["layer1"].shape[-2:] == (11, 8)
    with torch.no_grad():
        features = backbone((images - mean) / deviation)
    for name, layer in (("low_level", "layer1"), ("aux", "layer3"), ("out", "layer4")):
        scale = expected[layer].abs().max()
        torch.testing.assert_close(features[name] / scale, expected[layer] / scale)


def test_checkpointing_changes_nothing(backbone):
    images = torch.randn(2, 3, 25, 25, generator=torch.Generator().manual_seed(0))
    assert_checkpointing_changes_nothing(copy.deepcopy(backbone).train(), images)


@pytest.mark.parametrize("prefix", ["", "Scale."])
def test_published_files_load(monkeypatch, prefix):
    """The pretrained file puts a word before all names; heads of any kind are left out."""
    weights = rule_weights(on_meta().state_dict())
    content = {
        f"{prefix}{name}": tensor
        for name, tensor in weights.items()
        if not name.endswith("num_batches_tracked")
    }
    content |= {f"{prefix}{head}.0.weight": torch.ones(1) for head in ("fc", "layer5", "layer6")}
    monkeypatch.setattr("network.backbone.read_weights", lambda path: content)
    state = build_backbone("resnet101_caffe", 8, pretrained="init.pth").state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())


def test_the_address_is_the_published_one(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "network.backbone.download_weights", lambda url: asked.append(url) or {"fc.weight": 0}
    )
    with pytest.raises(ValueError, match="does not fit ResNet-101 as of Caffe"):
        on_meta(pretrained="imagenet")
    assert asked[0].endswith("/DeepLab_resnet_pretrained_init-f81d91e8.pth")
