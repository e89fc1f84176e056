import pytest
import torch
from torch import nn
from torch.nn import functional as F

from network.deeplab import (
    ASPP,
    DeepLabHeadV3,
    DeepLabHeadV3Plus,
    ImagePooling,
    SeparableConv2d,
    convert_to_separable_conv,
)
from network.heads import LinearHead

CHANNELS = {"low_level": 6, "aux": 5, "out": 8}


def features(n=2):
    return {
        "low_level": torch.rand(n, 6, 13, 15),
        "aux": torch.rand(n, 5, 4, 4),
        "out": torch.rand(n, 8, 4, 4),
    }


def test_image_pooling_spreads_as_bilinear_upsampling():
    pooling = ImagePooling(8, 4).eval()
    x = torch.rand(2, 8, 5, 7)
    expected = nn.Sequential.forward(pooling, x)
    expected = F.interpolate(expected, size=(5, 7), mode="bilinear", align_corners=False)
    torch.testing.assert_close(pooling(x), expected)


def test_aspp_keeps_size_and_dilates():
    aspp = ASPP(8, (2, 4, 6)).eval()
    assert aspp(torch.rand(1, 8, 5, 7)).shape == (1, 256, 5, 7)
    assert [branch[0].dilation[0] for branch in list(aspp.convs)[:4]] == [1, 2, 4, 6]
    assert aspp.project[-1].p == 0.1


@pytest.mark.parametrize(("head", "size"), [(DeepLabHeadV3, (4, 4)), (DeepLabHeadV3Plus, (13, 15))])
def test_last_module_turns_penultimate_features_into_logits(head, size):
    head = head(CHANNELS, 3, (2, 4, 6)).eval()
    inputs = features()
    penultimate = head.penultimate(inputs)
    assert penultimate.shape == (2, 256, *size)
    assert (penultimate >= 0).all()
    torch.testing.assert_close(head(inputs, size).logits, head.classifier[-1](penultimate))
    head.classifier[-1] = LinearHead(256, 7)
    assert head(inputs, (30, 20)).logits.shape == (2, 7, 30, 20)


def test_low_level_channels_come_first():
    head = DeepLabHeadV3Plus(CHANNELS, 3, (2, 4, 6)).eval()
    inputs = features()
    joined = head.classifier_input(inputs)
    assert joined.shape[1] == 304
    torch.testing.assert_close(joined[:, :48], head.project(inputs["low_level"]))


def test_heads_are_kaiming_normal():
    torch.manual_seed(0)
    head = DeepLabHeadV3Plus(CHANNELS, 19, (2, 4, 6))
    weight = head.classifier[0].weight.detach()  # fan-in 304 * 9
    assert weight.std().item() == pytest.approx((2 / (304 * 9)) ** 0.5, rel=0.02)
    kurtosis = ((weight / weight.std()) ** 4).mean().item()
    assert kurtosis == pytest.approx(3, rel=0.05)  # normal; 1.8 if uniform


def test_separable_conversion():
    head = DeepLabHeadV3Plus(CHANNELS, 3, (2, 4, 6)).double()
    ones = [m for m in head.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    assert convert_to_separable_conv(head) is head
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert all(conv.kernel_size == (1, 1) or conv.groups == conv.in_channels for conv in convs)
    assert all(any(conv is kept for kept in convs) for conv in ones)
    pairs = [m for m in head.modules() if isinstance(m, SeparableConv2d)]
    assert [pair.body[0].dilation[0] for pair in pairs] == [2, 4, 6, 1]
    assert all(conv.weight.dtype == torch.float64 for conv in convs)
    keys = list(head.state_dict())
    convert_to_separable_conv(head)
    assert list(head.state_dict()) == keys
    inputs = {name: feature.double() for name, feature in features().items()}
    assert head.eval()(inputs, (13, 15)).logits.shape == (2, 3, 13, 15)


@pytest.mark.parametrize("bias", [True, False])
def test_separable_conv_keeps_geometry_and_bias(bias):
    conv = nn.Conv2d(4, 6, (3, 5), stride=2, padding=(1, 2), dilation=1, bias=bias)
    separable = convert_to_separable_conv(conv)
    assert isinstance(separable, SeparableConv2d)
    x = torch.rand(1, 4, 9, 11)
    assert separable(x).shape == conv(x).shape
    assert all((part.bias is not None) == bias for part in separable.body)
