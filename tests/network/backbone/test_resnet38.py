import pytest
import torch
from torch import nn
from torch.nn import functional as F

from network.backbone import build_backbone, resnet38
from network.backbone.resnet38 import published_name
from tests.network.backbone.recomputation import assert_checkpointing_changes_nothing
from tests.network.conftest import rule_weights

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
BLOCKS = {"b2": 3, "b3": 3, "b4": 6, "b5": 3, "b6": 1, "b7": 1}


def on_meta(**options):
    with torch.device("meta"):
        return build_backbone("resnet38d", 16, **options)


@pytest.fixture
def narrow(monkeypatch):
    """The same network with a 32nd of the channels in its blocks."""
    groups = {
        key: group._replace(widths=tuple(width // 32 for width in group.widths))
        for key, group in resnet38._GROUPS.items()
    }
    monkeypatch.setattr(resnet38, "_GROUPS", groups)

    def build(**options):
        backbone = on_meta(**options)
        backbone.load_state_dict(rule_weights(backbone.state_dict()), assign=True)
        return backbone.eval()

    return build


def names(key):
    return [key, *(f"{key}_{number}" for number in range(1, BLOCKS[key]))]


def published_names():
    """Written down from the published file, without its classifier."""
    convs, norms = ["conv1a"], ["bn7"]
    for key in BLOCKS:
        branches = ("2a", "2b1", "2b2") if key in ("b6", "b7") else ("2a", "2b1")
        for block in names(key):
            convs += [f"{block}.conv_branch{branch}" for branch in branches]
            norms += [f"{block}.bn_branch{branch}" for branch in branches]
        convs += [f"{key}.conv_branch1"]
    return [f"{conv}.weight" for conv in convs] + [f"{n}.{entry}" for n in norms for entry in NORM]


def test_published_names_and_widths():
    state = on_meta().state_dict()
    assert set(state) == set(published_names())
    assert len(state) == len(published_names())
    assert state["b2.conv_branch1.weight"].shape == (128, 64, 1, 1)
    assert state["b5.conv_branch2b1.weight"].shape == (1024, 512, 3, 3)
    assert state["b6.conv_branch2b1.weight"].shape == (1024, 512, 3, 3)
    assert state["b7.conv_branch2b2.weight"].shape == (4096, 2048, 1, 1)
    assert sum(parameter.numel() for parameter in on_meta().parameters()) == 105_070_912


@pytest.mark.parametrize("size", [(64, 64), (65, 97), (1, 1)])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_features(size, output_stride):
    with torch.device("meta"):
        backbone = build_backbone("resnet38d", output_stride).eval()
    features = backbone(torch.empty(1, 3, *size, device="meta"))
    at = {stride: tuple(-(-side // stride) for side in size) for stride in (4, 8)}
    assert {name: tuple(feature.shape) for name, feature in features.items()} == {
        "low_level": (1, 256, *at[4]),
        "middle": (1, 512, *at[8]),
        "aux": (1, 1024, *at[8]),
        "out": (1, 4096, *at[8]),
    }


def norm_relu(state, name, x):
    entries = (f"{name}.{entry}" for entry in ("running_mean", "running_var", "weight", "bias"))
    return F.relu(F.batch_norm(x, *(state[entry] for entry in entries), eps=1e-5))


def block_by_rule(state, name, x, stride, first_dilation, dilation):
    """A block as published: its output, and its input normalised and rectified."""
    a = norm_relu(state, f"{name}.bn_branch2a", x)
    weight = {
        branch: state.get(f"{name}.conv_branch{branch}.weight")
        for branch in ("1", "2a", "2b1", "2b2")
    }
    if weight["2b2"] is None:
        y = F.conv2d(a, weight["2a"], None, stride, first_dilation, first_dilation)
        y = norm_relu(state, f"{name}.bn_branch2b1", y)
        y = F.conv2d(y, weight["2b1"], None, 1, dilation, dilation)
    else:
        y = norm_relu(state, f"{name}.bn_branch2b1", F.conv2d(a, weight["2a"]))
        y = F.conv2d(y, weight["2b1"], None, 1, dilation, dilation)
        y = F.conv2d(norm_relu(state, f"{name}.bn_branch2b2", y), weight["2b2"])
    shortcut = x if weight["1"] is None else F.conv2d(a, weight["1"], stride=stride)
    return y + shortcut, a


@pytest.mark.parametrize("classifier", [False, True])
def test_arithmetic_of_the_specification(narrow, classifier):
    """The trunk written down from its table, on the published names."""
    backbone = narrow(classifier=classifier)
    state = backbone.state_dict()
    x = images = torch.randn(1, 3, 41, 70, generator=torch.Generator().manual_seed(0))
    x = F.conv2d(x, state["conv1a.weight"], padding=1)
    dilations = {"b5": 2, "b6": 4, "b7": 2 if classifier else 4}
    entered = {}
    for key in BLOCKS:
        for number, block in enumerate(names(key)):
            dilation = dilations.get(key, 1)
            first_dilation = 1 if block == "b5" else dilation
            stride = 2 if number == 0 and key in ("b2", "b3", "b4") else 1
            x, activated = block_by_rule(state, block, x, stride, first_dilation, dilation)
            entered.setdefault(key, activated)
    expected = {"low_level": entered["b4"], "middle": entered["b5"], "aux": entered["b6"]}
    expected["out"] = norm_relu(state, "bn7", x)
    with torch.no_grad():
        features = backbone(images)
    assert list(features) == list(expected)
    for name, feature in features.items():
        torch.testing.assert_close(feature, expected[name])
        assert (feature >= 0).all()


def test_channel_dropout_is_of_the_last_groups(narrow):
    backbone = narrow()
    found = {
        name: module.p
        for name, module in backbone.named_modules()
        if isinstance(module, nn.Dropout2d)
    }
    assert found == {"b6.dropout": 0.3, "b7.dropout": 0.5}
    calls = []
    backbone.b7.dropout.register_forward_hook(lambda _m, inputs, _o: calls.append(inputs[0].shape))
    backbone.train()(torch.rand(2, 3, 16, 16))
    assert [shape[1] for shape in calls] == [1024 // 32, 2048 // 32]


def test_norms_run_once_a_step(narrow):
    """Those at the border of two stages too, with recomputation and without."""
    backbone = narrow().train()
    for module in backbone.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    generator = torch.Generator().manual_seed(0)
    assert_checkpointing_changes_nothing(backbone, torch.randn(2, 3, 25, 25, generator=generator))


def test_files_of_imagenet_and_of_seam_load(monkeypatch, narrow):
    """Which hold no counts of batches, and heads that are not the backbone's."""
    weights = rule_weights(narrow().state_dict())
    content = {name: w for name, w in weights.items() if not name.endswith("num_batches_tracked")}
    content |= {f"{head}.weight": torch.ones(1) for head in ("fc8", "f8_3", "f8_4", "f9")}
    monkeypatch.setattr("network.backbone.read_weights", lambda path: content)
    state = build_backbone("resnet38d", 8, pretrained="seam.pth").state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in weights.items())
    assert published_name("bn7.weight") == "bn7.weight"
    assert published_name("f8_3.weight") is None
