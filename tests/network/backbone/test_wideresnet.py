import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from network.backbone import build_backbone, wideresnet
from network.backbone.wideresnet import ResidualBlock
from tests.network.conftest import rule_weights

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def on_meta(**options):
    with torch.device("meta"):
        return build_backbone("wideresnet38", 16, **options)


@pytest.fixture
def narrow(monkeypatch):
    """The same network with a 64th of the channels in its blocks."""
    groups = {
        key: group._replace(widths=tuple(width // 64 for width in group.widths))
        for key, group in wideresnet._GROUPS.items()
    }
    monkeypatch.setattr(wideresnet, "_GROUPS", groups)

    def build(**options):
        backbone = on_meta(**options)
        backbone.load_state_dict(rule_weights(backbone.state_dict()), assign=True)
        return backbone.eval()

    return build


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_number_of_parameters():
    backbone = on_meta()
    assert parameters(backbone) == 105_062_720
    assert parameters(backbone.mod1) == 3 * 64 * 9
    # norms 2 * 64, 2 * 128; convolutions 64 and 128 to 128; shortcut 64 to 128
    assert parameters(backbone.mod2.block1) == 384 + 9 * (64 + 128) * 128 + 64 * 128
    assert parameters(backbone.mod7) == 2 * (2048 + 1024 + 2048) + (
        2048 * 1024 + 9 * 1024 * 2048 + 2048 * 4096 + 2048 * 4096
    )
    assert sum(parameters(m) for m in (backbone.mod5, backbone.mod6, backbone.mod7)) == 73_686_016


def test_published_parameter_names():
    shapes = {name: tuple(value.shape) for name, value in on_meta().state_dict().items()}
    assert shapes["mod1.conv1.weight"] == (64, 3, 3, 3)
    assert {name for name in shapes if name.startswith("mod5.block2.")} == {
        *(f"mod5.block2.{norm}.0.{entry}" for norm in ("bn1", "convs.bn2") for entry in NORM),
        *(f"mod5.block2.convs.conv{number}.weight" for number in (1, 2)),
    }
    assert {name for name in shapes if name.startswith("mod6.")} == {
        *(
            f"mod6.block1.{norm}.0.{entry}"
            for norm in ("bn1", "convs.bn2", "convs.bn3")
            for entry in NORM
        ),
        *(f"mod6.block1.convs.conv{number}.weight" for number in (1, 2, 3)),
        "mod6.block1.proj_conv.weight",
    }
    assert shapes["mod6.block1.convs.conv2.weight"] == (1024, 512, 3, 3)
    assert shapes["mod4.block1.proj_conv.weight"] == (512, 256, 1, 1)
    blocks = {name.split(".convs.")[0] for name in shapes if ".convs." in name}
    numbers = {2: 3, 3: 3, 4: 6, 5: 3, 6: 1, 7: 1}
    assert blocks == {
        f"mod{mod}.block{block + 1}" for mod, count in numbers.items() for block in range(count)
    }
    shortcuts = [name for name in shapes if "proj_conv" in name]
    assert shortcuts == [f"mod{mod}.block1.proj_conv.weight" for mod in range(2, 8)]


@pytest.mark.parametrize("size", [(64, 64), (97, 65), (1, 1)])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_features(size, output_stride):
    with torch.device("meta"):
        backbone = build_backbone("wideresnet38", output_stride).eval()
    features = backbone(torch.empty(1, 3, *size, device="meta"))
    at = {stride: tuple(-(-side // stride) for side in size) for stride in (2, 8)}
    assert {name: tuple(feature.shape) for name, feature in features.items()} == {
        "low_level": (1, 128, *at[2]),
        "middle": (1, 1024, *at[8]),
        "aux": (1, 2048, *at[8]),
        "out": (1, 4096, *at[8]),
    }


def norm_relu(state, name, x):
    entries = (f"{name}.0.{entry}" for entry in ("running_mean", "running_var", "weight", "bias"))
    return F.relu(F.batch_norm(x, *(state[entry] for entry in entries), eps=1e-5))


def block_by_rule(state, name, x, stride, dilation):
    """A block of the specification, from a state dict alone, in evaluation mode."""
    a = norm_relu(state, f"{name}.bn1", x)
    first, second = (state[f"{name}.convs.conv{number}.weight"] for number in (1, 2))
    if f"{name}.convs.conv3.weight" in state:
        y = F.conv2d(a, first, stride=stride)
        y = norm_relu(state, f"{name}.convs.bn2", y)
        y = F.conv2d(y, second, padding=dilation, dilation=dilation)
        y = norm_relu(state, f"{name}.convs.bn3", y)
        y = F.conv2d(y, state[f"{name}.convs.conv3.weight"])
    else:
        y = F.conv2d(a, first, stride=stride, padding=dilation, dilation=dilation)
        y = norm_relu(state, f"{name}.convs.bn2", y)
        y = F.conv2d(y, second, padding=dilation, dilation=dilation)
    projection = state.get(f"{name}.proj_conv.weight")
    return y + (x if projection is None else F.conv2d(a, projection, stride=stride))


def test_arithmetic_of_the_specification(narrow):
    """The trunk written down from its table, on the published names."""
    backbone = narrow()
    state = backbone.state_dict()
    images = torch.randn(2, 3, 33, 21)
    x = F.conv2d(images, state["mod1.conv1.weight"], padding=1)
    expected = {}
    for mod, blocks, dilation in ((2, 3, 1), (3, 3, 1), (4, 6, 1), (5, 3, 2), (6, 1, 4), (7, 1, 4)):
        if mod < 4:
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for block in range(1, blocks + 1):
            stride = 2 if (mod, block) == (4, 1) else 1
            x = block_by_rule(state, f"mod{mod}.block{block}", x, stride, dilation)
        expected[mod] = x
    with torch.no_grad():
        features = backbone(images)
    for name, mod in (("low_level", 2), ("middle", 5), ("aux", 6), ("out", 7)):
        torch.testing.assert_close(features[name], expected[mod])
    assert (features["out"] < 0).any()  # a raw sum, not rectified


@pytest.mark.parametrize("widths", [(4, 4), (4, 6), (2, 3, 4), (2, 3, 5)])
@pytest.mark.parametrize("training", [True, False])
def test_a_block_leaves_its_input(widths, training):
    block = ResidualBlock(4, widths, dilation=2).train(training)
    x = torch.randn(2, 4, 5, 5, requires_grad=True)
    before = x.detach().clone()
    block(x).square().sum().backward()
    assert torch.equal(x, before)
    with torch.no_grad():
        block(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(("widths", "stride"), [((3, 3), 1), ((3, 4), 2), ((2, 2, 4), 1)])
def test_gradients_of_a_block(widths, stride):
    torch.manual_seed(0)
    block = ResidualBlock(3, widths, stride)
    block.load_state_dict(rule_weights(block.state_dict()))  # no bias at the kink of a ReLU
    block.double().eval()
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weights = dict(block.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(block, dict(zip(weights, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *weights.values()))


def test_whole_channels_are_dropped_in_the_last_two_groups():
    backbone = on_meta()
    drops = {name: m for name, m in backbone.named_modules() if isinstance(m, nn.Dropout2d)}
    assert {name: module.p for name, module in drops.items()} == {
        "mod6.block1.convs.dropout": 0.3,
        "mod7.block1.convs.dropout": 0.5,
    }
    convs = list(backbone.mod7.block1.convs)
    assert convs[-2] is drops["mod7.block1.convs.dropout"]
    assert isinstance(convs[-3], nn.Sequential)  # dropped behind the last norm and ReLU


def test_dropout_changes_training_only(narrow):
    backbone = narrow()
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        first, again = backbone(images), backbone(images)
        for module in backbone.modules():
            if isinstance(module, nn.Dropout2d):
                module.train()
        dropped = backbone(images)
    assert torch.equal(first["out"], again["out"])
    assert torch.equal(first["low_level"], dropped["low_level"])
    assert not torch.equal(first["out"], dropped["out"])


def test_dropout_of_each_stage():
    backbone = on_meta(dropout=0.2).train()
    calls = []
    backbone.dropout.register_forward_hook(lambda *_: calls.append(1))
    backbone(torch.empty(2, 3, 32, 32, device="meta"))
    assert len(calls) == len(backbone.stages()) == 6


def test_checkpointing_changes_nothing(narrow):
    plain = narrow(dropout=0.1).train()
    saving = copy.deepcopy(plain)
    saving.checkpoint_activations = True
    found = []
    for backbone in (plain, saving):
        torch.manual_seed(0)
        features = backbone(torch.rand(2, 3, 24, 24))
        sum(feature.square().mean() for feature in features.values()).backward()
        gradients = {name: p.grad for name, p in backbone.named_parameters()}
        found.append((features, gradients, backbone.state_dict()))
    for expected, values in zip(*found, strict=True):
        for name, value in expected.items():
            assert torch.equal(values[name], value), name
    assert int(saving.mod6.block1.bn1[0].num_batches_tracked) == 1


def test_published_file_loads(narrow, tmp_path):
    path = tmp_path / "wider_resnet38.pth.tar"
    weights = rule_weights(narrow().state_dict())
    counted = ("num_batches_tracked",)
    content = {f"module.{k}": v for k, v in weights.items() if not k.endswith(counted)}
    content |= {f"module.bn_out.0.{entry}": torch.ones(64) for entry in NORM[:4]}
    content |= {"module.classifier.fc.weight": torch.ones(10, 64)}
    torch.save({"state_dict": content, "epoch": 90}, path)
    state = build_backbone("wideresnet38", 8, pretrained=str(path)).state_dict()
    for name, value in weights.items():
        torch.testing.assert_close(state[name], value)


def test_trunk_of_a_published_segmentation_network_loads(narrow, tmp_path):
    path = tmp_path / "cityscapes_best.pth"
    weights = rule_weights(narrow().state_dict())
    others = ("aspp.img_conv.0.weight", "bot_fine.weight", "bot_aspp.weight", "final.0.weight")
    torch.save({"state_dict": weights | dict.fromkeys(others, torch.ones(1))}, path)
    state = build_backbone("wideresnet38", 8, pretrained=str(path)).state_dict()
    for name, value in weights.items():
        torch.testing.assert_close(state[name], value)


def test_missing_tensor_is_named(narrow, tmp_path):
    path = tmp_path / "weights.pth"
    weights = rule_weights(narrow().state_dict())
    del weights["mod4.block1.proj_conv.weight"]
    torch.save(weights, path)
    with pytest.raises(ValueError, match="does not fit WideResNet-38: 1 tensors are missing.*proj"):
        build_backbone("wideresnet38", 8, pretrained=str(path))


def test_no_address_is_known():
    with pytest.raises(ValueError, match=r"no address .*WideResNet-38.*--pretrained_backbone none"):
        on_meta(pretrained="imagenet")
