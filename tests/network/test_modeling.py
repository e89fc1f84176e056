import pytest
import torch
from torch import nn

import network
from network import CAM_MODELS, MODELS, PSPNET_MODELS, build_model, describe, modeling
from network.backbone import BACKBONES, FEATURES
from network.cam import CamNetwork
from network.heads import HeadOptions
from tests.network.conftest import rule_weights

FIXED = [name for name in MODELS if name != "deeplabv3plus_timm"]
# each backbone with one head or two, and each other head with one backbone
SOME = [name for name in FIXED if name not in PSPNET_MODELS | CAM_MODELS]
SOME += ["pspnet_mobilenet", "cam_mobilenet"]
UPSTREAM = [  # and the two models that came after
    *(
        f"{head}_{backbone}"
        for head in ("deeplabv3", "deeplabv3plus")
        for backbone in (
            "resnet50",
            "resnet101",
            "mobilenet",
            "xception",
            "hrnetv2_32",
            "hrnetv2_48",
        )
    ),
    "deeplabv3plus_wideresnet38",
    "deeplab_multi_resnet101",
]
REFERENCES = [  # name and output stride; HRNet has its own
    *(
        (f"{head}_{backbone}", stride)
        for head in ("deeplabv3", "deeplabv3plus")
        for backbone in ("mobilenet", "resnet50", "resnet101", "xception")
        for stride in (8, 16)
    ),
    ("deeplabv3plus_hrnetv2_32", 4),
    ("deeplabv3plus_hrnetv2_48", 4),
]


def on_meta(name, num_classes=19, **options):
    with torch.device("meta"):
        return build_model(name, num_classes, **options)


def built(name, **options):
    """A model with the reference's weights, without the cost of drawing others first."""
    model = on_meta(name, **options)
    model.load_state_dict(rule_weights(model.state_dict()), assign=True)
    return model.eval()


def agrees(model, reference, name, source):
    with torch.no_grad():
        logits = model(torch.from_numpy(reference[source])).logits
    expected = torch.from_numpy(reference[name])
    difference = (logits[:, :, ::6, ::6] - expected).abs().max()
    assert difference < 1e-3 * expected.std()


@pytest.mark.parametrize(("name", "output_stride"), REFERENCES)
def test_upstream_logits(upstream_reference, name, output_stride):
    family = {"h": "input_hrnet", "x": "input_xception"}
    source = family.get(name.split("_")[1][0], "input")
    model = built(name, output_stride=max(output_stride, 8))
    agrees(model, upstream_reference, f"{name}_os{output_stride}", source)


def test_upstream_logits_separable(upstream_reference):
    model = built("deeplabv3plus_mobilenet", separable_conv=True)
    agrees(model, upstream_reference, "deeplabv3plus_mobilenet_os16_separable", "input")


def test_upstream_keys(upstream_keys):
    for entry, expected in upstream_keys.items():
        name, *flags = entry.split(" --")
        model = on_meta(name, separable_conv="separable_conv" in flags)
        # the order too: an optimizer's state goes by the position of the parameter
        found = [(key, list(value.shape)) for key, value in model.state_dict().items()]
        assert found == list(expected.items()), entry


@pytest.mark.parametrize("name", FIXED)
def test_options_leave_keys(name):
    plain = on_meta(name).state_dict()
    other = on_meta(
        name, output_stride=8, dropout=0.3, checkpoint_activations=True, bn_momentum=0.1
    ).state_dict()
    assert {key: value.shape for key, value in plain.items()} == {
        key: value.shape for key, value in other.items()
    }


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", SOME)
def test_odd_sizes(name, output_stride):
    model = on_meta(name, num_classes=3, output_stride=output_stride)
    model.to_empty(device="cpu").eval()
    for tensor in model.state_dict().values():
        tensor.fill_(0.01)
    height, width = (107, 113) if "xception" in name else (37, 53)
    with torch.no_grad():
        output = model(torch.rand(1, 3, height, width), pooled_features=True)
    assert output.logits.shape == (1, 3, height, width)
    assert output.logits.isfinite().all()
    assert output.features.shape == (1, model.backbone.taps["out"].channels)


def test_tiny_images():
    images = torch.rand(1, 3, 3, 4)
    for name in ("deeplabv3plus_mobilenet", "deeplabv3_resnet50"):
        assert built(name)(images).logits.shape == (1, 19, 3, 4)
    with pytest.raises(ValueError, match=r"2x40 pixels are too small .* at least 3 pixels"):
        built("deeplabv3plus_mobilenet")(torch.rand(1, 3, 2, 40))


def test_features_have_announced_channels_and_strides():
    for name, stride in (("mobilenet", 8), ("mobilenet", 16), ("resnet50", 8), ("xception", 16)):
        backbone = on_meta(f"deeplabv3_{name}", output_stride=stride).backbone
        features = backbone(torch.empty(1, 3, 256, 256, device="meta"))
        assert list(features) == ["low_level", "middle", "aux", "out"]
        for tap, feature in features.items():
            assert feature.shape[1] == backbone.taps[tap].channels
        assert round(256 / features["low_level"].shape[-1]) == 4
        assert round(256 / features["aux"].shape[-1]) == stride
        assert round(256 / features["middle"].shape[-1]) == (stride if name == "xception" else 8)
    for name in ("hrnetv2_32", "hrnetv2_48"):
        backbone = on_meta(f"deeplabv3_{name}").backbone
        features = backbone(torch.empty(1, 3, 64, 96, device="meta"))
        for tap, feature in features.items():
            assert feature.shape == (1, backbone.taps[tap].channels, 16, 24)


def test_pooled_features_are_the_mean_of_out():
    model = built("deeplabv3plus_mobilenet")
    images = torch.rand(2, 3, 33, 47)
    with torch.no_grad():
        features = model(images, pooled_features=True).features
        expected = model.backbone(images)["out"].mean((2, 3))
    torch.testing.assert_close(features, expected)
    assert model(images).features is None


def test_bfloat16_autocast_gives_float32_logits():
    model = built("deeplabv3plus_mobilenet").to(memory_format=torch.channels_last)
    images = torch.rand(1, 3, 65, 81).to(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = model(images).logits
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images).logits
    assert logits.dtype == torch.float32
    assert logits.is_contiguous(memory_format=torch.channels_last)
    assert (logits - exact).abs().max() < 0.2 * exact.std()
    assert (logits - exact).abs().max() > 0  # autocast was on


def test_batch_norm_momentum():
    model = on_meta("deeplabv3plus_resnet50", bn_momentum=0.02)
    momenta = {
        part: {m.momentum for m in getattr(model, part).modules() if isinstance(m, nn.BatchNorm2d)}
        for part in ("backbone", "classifier")
    }
    assert momenta == {"backbone": {0.02}, "classifier": {0.1}}


def test_parameter_groups_cover_all():
    model = on_meta("deeplabv3plus_mobilenet")
    groups = model.parameter_groups()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group, parameters in groups.items():
        assert all(names[id(parameter)].startswith(f"{group}.") for parameter in parameters)
    assert sum(map(len, groups.values())) == len(names)


@pytest.mark.parametrize(
    "backbone", ["mobilenet", "resnet50", "xception", "hrnetv2_32", "res2net101", "scalenet101"]
)
def test_dropout_after_each_stage(backbone):
    backbone = on_meta(f"deeplabv3_{backbone}", output_stride=16, dropout=0.5).backbone
    calls = []
    backbone.dropout.register_forward_hook(lambda *_: calls.append(1))
    backbone.train()(torch.empty(2, 3, 128, 128, device="meta"))
    maps = [1, 2, 3, 4] if "HRNet" in type(backbone).__name__ else [1, 1, 1, 1]
    assert len(backbone.stages()) == 4
    assert len(calls) == sum(maps)


def test_dropout_is_random_in_training_only():
    backbone = built("deeplabv3plus_mobilenet", dropout=0.5).backbone
    images = torch.rand(1, 3, 65, 81)
    with torch.no_grad():
        once, again = backbone(images)["out"], backbone(images)["out"]
        assert torch.equal(once, again)
        backbone.dropout.train()  # as Monte Carlo dropout does
        out = backbone(images)
    assert not torch.equal(out["out"], once)
    for feature in out.values():
        assert 0.4 < (feature == 0).float().mean() < 0.6


def test_taps_are_stages_in_their_order():
    assert FEATURES.keys() == BACKBONES.keys()
    for name, taps in FEATURES.items():
        stages = [stage for stage, _ in on_meta(f"cam_{name}").backbone.stages()]
        places = [stages.index(taps[tap].layer) for tap in ("low_level", "middle", "aux", "out")]
        assert places == sorted(set(places)), name
        assert places[1] == places[2] - 1, name
        assert places[3] == len(stages) - 1, name


@pytest.mark.parametrize(
    ("name", "last"),
    [("cam_resnet38d", 2), ("deeplabv3plus_resnet38d", 4), ("pspnet_wideresnet38", 4)],
)
def test_the_wide_resnet_is_dilated_less_in_a_classifier(name, last):
    backbone = on_meta(name).backbone
    dilations = [backbone.get_submodule(f"{key}.conv_branch2b1").dilation for key in ("b6", "b7")]
    assert dilations == [(4, 4), (last, last)]


def test_scalenet_is_not_dilated_in_a_classifier():
    for name, expected in (("cam_scalenet101", {1}), ("deeplabv3_scalenet101", {1, 2, 4})):
        backbone = on_meta(name, output_stride=8).backbone
        convs = [m for m in backbone.modules() if isinstance(m, nn.Conv2d)]
        assert {conv.dilation[0] for conv in convs} == expected
        assert backbone.eval()(torch.empty(1, 3, 64, 96, device="meta"))["out"].shape[-1] == 12


def test_class_activation_models():
    assert {MODELS[name].backbone for name in CAM_MODELS} == set(BACKBONES)
    for name, background, dropped in (("cam_mobilenet", None, 0), ("cam_resnet38d", 0, 0.5)):
        model = on_meta(name, num_classes=4, background=background)
        assert isinstance(model, CamNetwork)
        assert (model.num_classes, model.background) == (4, background)
        assert getattr(model.dropout, "p", 0) == dropped
    plain = on_meta("cam_mobilenet").state_dict()
    other = on_meta("cam_mobilenet", head=HeadOptions("cosine", "learned"), separable_conv=True)
    assert plain.keys() == other.state_dict().keys()
    with pytest.raises(ValueError, match="--norm_eval is of segmentation .* has --cam_norm"):
        on_meta("cam_mobilenet", freeze_bn=True)


def test_upstream_functions():
    assert network.modeling.__dict__["deeplabv3plus_mobilenet"] is modeling.deeplabv3plus_mobilenet
    for name in UPSTREAM:
        function = getattr(modeling, name)
        assert function.__name__ == name
        with torch.device("meta"):
            model = function(num_classes=5, output_stride=16, pretrained_backbone=False)
        assert model.state_dict().keys() == on_meta(name).state_dict().keys()
    with torch.device("meta"):
        model = modeling.deeplabv3_mobilenet(pretrained_backbone=False)
    assert model.classifier.classifier[-1].out_channels == 21
    assert model.classifier.classifier[0].convs[1][0].dilation == (12, 12)  # output stride 8


def test_pretrained_by_default_in_upstream_functions(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "network.backbone.download_weights", lambda url: asked.append(url) or {"fc.weight": 0}
    )
    with pytest.raises(ValueError, match="does not fit ResNet-50"):
        modeling.deeplabv3_resnet50()
    assert asked == ["https://download.pytorch.org/models/resnet50-0676ba61.pth"]


def test_names():
    assert set(UPSTREAM) <= set(FIXED)
    assert {MODELS[name].backbone for name in FIXED} == set(BACKBONES)
    assert [name for name in FIXED if name.endswith("wideresnet38")] == [
        "deeplabv3plus_wideresnet38",
        "pspnet_wideresnet38",
        "cam_wideresnet38",
    ]
    assert [name for name in FIXED if MODELS[name].backbone == "resnet101_caffe"] == [
        "deeplab_multi_resnet101",
        "cam_resnet101_caffe",
    ]
    for backbone in ("res2net101", "scalenet101", "resnet38d"):
        for head in ("deeplabv3", "deeplabv3plus", "cam"):
            assert MODELS[f"{head}_{backbone}"] == (head, backbone)
    assert describe("deeplabv3plus_mobilenet") == "DeepLabV3+ on MobileNetV2"
    assert describe("pspnet_res2net101").endswith("output stride 8, on Res2Net-101 v1b")
    assert describe("pspnet_hrnetv2_32").endswith("output stride 4, on HRNetV2-W32")
    assert "--backbone" in describe("deeplabv3plus_timm")
    assert all("\n" not in describe(name) for name in MODELS)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("deeplabv3plus_mobilnet", {}, "--model .* is unknown; nearest: deeplabv3plus_mobilenet"),
        ("deeplabv3_resnet50", {"output_stride": 32}, "--output_stride 32 .* 8 or 16"),
        ("deeplabv3_resnet50", {"num_classes": 0}, "num_classes is 0"),
        ("deeplabv3_resnet50", {"dropout": 1.0}, r"--dropout 1.0 .* \[0, 1\)"),
        ("deeplabv3_resnet50", {"backbone": "vgg11"}, "--backbone vgg11 needs --model"),
    ],
)
def test_wrong_values(name, options, message):
    with pytest.raises(ValueError, match=message):
        on_meta(name, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeplabv3plus_mobilenet", "deeplabv3_resnet50"])
def test_compiles_without_graph_breaks(name):
    model = built(name, dropout=0.1, checkpoint_activations=True).train()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    images = torch.rand(2, 3, 33, 49)
    torch.manual_seed(0)
    logits = compiled(images).logits
    logits.mean().backward()
    torch.manual_seed(0)
    torch.testing.assert_close(logits, model(images).logits, rtol=1e-4, atol=1e-4)
    counts = {int(v) for k, v in model.state_dict().items() if k.endswith("batches_tracked")}
    assert counts == {2}
