"""PSPNet on the backbones of URN, and the names of mmsegmentation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from network import CAM_MODELS, MODELS, PSPNET_MODELS, PyramidOptions, build_model, from_published
from network.backbone import BACKBONES
from network.heads import HeadOptions, LinearHead
from network.pspnet import FCNHead, PSPHead, published_name
from tests.network.conftest import rule_weights

SMALL = "pspnet_mobilenet"
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
CHANNELS = {"aux": 6, "out": 8}
URN = {  # parameters with 21 classes: all and the backbone's; the map of 65 x 97 pixels
    "pspnet_resnet101": (67_949_930, 42_500_160, (9, 13)),
    "pspnet_res2net101": (68_626_690, 43_176_920, (9, 13)),
    "pspnet_scalenet101": (78_193_160, 52_743_390, (8, 12)),
    "pspnet_wideresnet38": (144_152_170, 105_070_912, (9, 13)),
}


def on_meta(name=SMALL, num_classes=21, **options):
    with torch.device("meta"):
        return build_model(name, num_classes, **options)


def built(name=SMALL, num_classes=5, **options):
    model = on_meta(name, num_classes, **options)
    model.load_state_dict(rule_weights(model.state_dict()), assign=True)
    return model.eval()


@pytest.fixture(scope="module")
def small():
    return built()


def images(n=2, height=65, width=49):
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", URN)
def test_numbers_of_parameters_and_sizes(name):
    total, backbone, size = URN[name]
    model = on_meta(name)
    assert (parameters(model), parameters(model.backbone)) == (total, backbone)
    x = torch.empty(1, 3, 65, 97, device="meta")
    assert model.eval().backbone(x)["out"].shape[-2:] == size
    output = model(x, at_stride=True)
    assert output.logits.shape == output.aux_logits.shape == (1, 21, *size)
    assert model(x).aux_logits.shape == (1, 21, 65, 97)


def test_models():
    """Each backbone but two: WideResNet38 stands for the strided one, Caffe's is of MRNet."""
    spec = {name: MODELS[name].backbone for name in PSPNET_MODELS}
    assert spec.pop("pspnet_wideresnet38") == "resnet38d"
    others = set(BACKBONES) - {"wideresnet38", "resnet38d", "resnet101_caffe"}
    assert spec == {f"pspnet_{backbone}": backbone for backbone in others}
    assert not PSPNET_MODELS & CAM_MODELS


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", ["pspnet_resnet101", "pspnet_res2net101", SMALL])
def test_output_stride_is_eight(name, output_stride):
    model = on_meta(name, output_stride=output_stride).eval()
    output = model(torch.empty(1, 3, 128, 96, device="meta"), at_stride=True)
    assert output.logits.shape == (1, 21, 16, 12)


def test_dilations_of_resnet_contract():
    """The first block of a dilated layer keeps the dilation before."""
    backbone = on_meta("pspnet_resnet101").backbone
    found = [
        [backbone.get_submodule(f"layer{layer}")[block].conv2.dilation[0] for block in (0, 1, 2)]
        for layer in (1, 2, 3, 4)
    ]
    assert found == [[1, 1, 1], [1, 1, 1], [1, 2, 2], [2, 4, 4]]


def published_names():
    """Written down from mmsegmentation's network: decode head and auxiliary head."""
    units = [f"decode_head.psp_modules.{n}.1" for n in range(4)]
    units += ["decode_head.bottleneck", "auxiliary_head.convs.0"]
    names = [
        f"{head}.conv_seg.{entry}"
        for head in ("decode_head", "auxiliary_head")
        for entry in ("weight", "bias")
    ]
    names += [f"{unit}.conv.weight" for unit in units]
    return names + [f"{unit}.bn.{entry}" for unit in units for entry in NORM]


@pytest.mark.parametrize("name", URN)
def test_every_published_name_has_its_place(name):
    """The backbones' names are ours, whose tests write them down."""
    renamed = [published_name(each) for each in published_names()]
    assert len(set(renamed)) == len(renamed)
    own = {key for key in on_meta(name).state_dict() if not key.startswith("backbone.")}
    assert set(renamed) == own
    assert published_name("backbone.conv1.weight") is None
    assert published_name("decode_head.aspp_modules.0.conv.weight") is None


def test_a_published_state_loads_bit_for_bit(small):
    own = small.state_dict()
    published = {name: own[published_name(name)] for name in published_names()}
    published |= {name: tensor for name, tensor in own.items() if name.startswith("backbone.")}
    other = on_meta(num_classes=5)
    other.load_state_dict(from_published(published), assign=True)
    assert all(torch.equal(tensor, own[name]) for name, tensor in other.state_dict().items())
    second = published["decode_head.psp_modules.1.1.conv.weight"]
    assert torch.equal(other.classifier.classifier.pyramid.branches[1][0].weight, second)
    classes = published["auxiliary_head.conv_seg.weight"]
    assert torch.equal(other.aux_classifier.classifier.classes.weight, classes)


def test_other_states_keep_their_names(small):
    own = small.state_dict()
    assert list(from_published(own)) == list(own)
    one = torch.ones(1)
    other = {"decode_head.conv_seg.weight": one, "decode_head.convs.0.conv.weight": one}
    assert from_published(other) == other
    with_more = {"decode_head.psp_modules.0.1.conv.weight": one, "backbone.stem.0.weight": one}
    assert set(from_published(with_more)) == {
        "classifier.classifier.pyramid.branches.0.0.weight",
        "backbone.stem.0.weight",
    }


def unit(state, name, x, padding=0):
    entries = (f"{name}.bn.{entry}" for entry in ("running_mean", "running_var", "weight", "bias"))
    x = F.conv2d(x, state[f"{name}.conv.weight"], padding=padding)
    return F.relu(F.batch_norm(x, *(state[entry] for entry in entries), eps=1e-5))


def classes(state, head, x):
    return F.conv2d(x, state[f"{head}.conv_seg.weight"], state[f"{head}.conv_seg.bias"])


def test_arithmetic_of_the_specification(small):
    """Both heads written down on the published names, in evaluation mode."""
    own = small.state_dict()
    state = {name: own[published_name(name)] for name in published_names()}
    x = images(2, 75, 110)
    with torch.no_grad():
        features = small.backbone(x)
        found = small(x)
    out = features["out"]
    joined = [out]
    for n, side in enumerate((1, 2, 3, 6)):
        y = unit(state, f"decode_head.psp_modules.{n}.1", F.adaptive_avg_pool2d(out, side))
        joined.append(F.interpolate(y, out.shape[2:], mode="bilinear", align_corners=False))
    y = unit(state, "decode_head.bottleneck", torch.cat(joined, 1), padding=1)
    aux = unit(state, "auxiliary_head.convs.0", features["aux"], padding=1)
    for logits, head, z in (
        (found.logits, "decode_head", y),
        (found.aux_logits, "auxiliary_head", aux),
    ):
        expected = F.interpolate(classes(state, head, z), (75, 110), mode="bilinear")
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_constant_feature_stays_constant_in_the_pyramid():
    """Whatever the size: grids finer than the map included."""
    pyramid = PSPHead(CHANNELS, 2).classifier.pyramid.eval()
    x = torch.rand(1, 8, 1, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = pyramid(x)
        for size in ((2, 3), (6, 6), (7, 11)):
            found = pyramid(x.expand(-1, -1, *size))
            torch.testing.assert_close(found, expected.expand_as(found))


def test_weights_as_drawn():
    torch.manual_seed(0)
    for head, bottleneck in ((PSPHead(CHANNELS, 9), 512), (FCNHead(CHANNELS, 9), 256)):
        last = head.classifier[-1]
        assert last.weight.std().item() == pytest.approx(0.01, rel=0.1)
        assert not last.bias.any()
        conv = head.classifier[-3][0]
        assert conv.bias is None
        assert conv.weight.std().item() == pytest.approx((2 / (9 * bottleneck)) ** 0.5, rel=0.05)
        assert [m.p for m in head.modules() if isinstance(m, nn.Dropout2d)] == [0.1]


def test_dropout_is_of_channels_and_in_training_only(small):
    head = small.aux_classifier
    assert head.temperature is None
    features = {"aux": torch.rand(2, 96, 5, 6)}
    plain = head.penultimate(features)
    head.classifier.dropout.train()
    dropped = head.penultimate(features)
    head.classifier.dropout.eval()
    whole = (dropped == 0).all(3).all(2)
    assert 0.02 < whole.float().mean() < 0.25
    torch.testing.assert_close(dropped[~whole], plain[~whole] / 0.9)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("temperature", ["none", "learned"])
def test_head_options_concern_the_main_head(kind, temperature):
    model = built(head=HeadOptions(kind, temperature))
    with torch.no_grad():
        output = model(images())
    assert output.logits.shape == output.aux_logits.shape == (2, 5, 65, 49)
    assert (output.temperature is not None) == (temperature == "learned")
    if (kind, temperature) == ("cosine", "none"):
        assert output.logits.abs().max() < 1
    if temperature == "learned":
        assert output.temperature.shape == (2, 1, 65, 49)
        at_stride = model(images(), at_stride=True)
        torch.testing.assert_close(
            at_stride.logits * at_stride.temperature,
            model.classifier.classifier[-1](model.classifier.penultimate(model.backbone(images()))),
        )
    assert type(model.aux_classifier.classifier.classes) is LinearHead


def test_options_of_pyramid_heads_concern_others():
    names = on_meta(pyramid=PyramidOptions("gn", squeeze_excitation=True)).state_dict().keys()
    assert names == on_meta().state_dict().keys()


def test_separable_convolutions():
    names = set(on_meta(separable_conv=True).state_dict())
    assert "classifier.classifier.bottleneck.0.body.0.weight" in names
    assert "aux_classifier.classifier.convs.0.body.1.weight" in names


def test_parameter_groups_cover_both_heads():
    model = on_meta()
    groups = model.parameter_groups()
    assert sum(map(len, groups.values())) == len(list(model.parameters()))
    heads = len(list(model.classifier.parameters())) + len(list(model.aux_classifier.parameters()))
    assert len(groups["classifier"]) == heads


def statistics(module):
    return {
        name: tensor.clone() for name, tensor in module.state_dict().items() if "running" in name
    }


@pytest.mark.parametrize("checkpoint_activations", [False, True])
@pytest.mark.parametrize("name", [SMALL, "deeplabv3plus_mobilenet"])
def test_frozen_norms_of_the_backbone(name, checkpoint_activations):
    """Their statistics stay, their weights learn, and the heads' are as ever."""
    model = built(name, freeze_bn=True, checkpoint_activations=checkpoint_activations).train()
    before = statistics(model.backbone)
    of_head = statistics(model.classifier)
    sum(logits.mean() for logits in model(images())[:2] if logits is not None).backward()
    after = statistics(model.backbone)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    changed = statistics(model.classifier)
    assert not any(torch.equal(changed[key], value) for key, value in of_head.items())
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.weight.grad is not None and not norm.training for norm in norms)
    assert model.training
    assert model.backbone.training
    assert not model.eval().classifier.training
    assert model.state_dict().keys() == on_meta(name, 5).state_dict().keys()


def test_frozen_norms_stay_so_inside_other_modules():
    model = built(freeze_bn=True)
    outer = nn.ModuleList([model]).train()
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert model.classifier.training
    assert not any(norm.training for norm in norms)
    outer[0] = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    outer.train()
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_norms_are_trained_without_the_flag():
    model = built().train()
    assert all(m.training for m in model.backbone.modules() if isinstance(m, nn.BatchNorm2d))


def test_tiny_images_and_too_small_ones():
    assert built()(torch.rand(1, 3, 3, 4)).logits.shape == (1, 5, 3, 4)
    model = on_meta("pspnet_scalenet101").eval()
    with pytest.raises(ValueError, match=r"4x9 pixels are too small .* at least 5 pixels"):
        model(torch.empty(1, 3, 4, 9, device="meta"))
