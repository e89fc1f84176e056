import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models

from network.backbone import build_backbone
from network.backbone.depthwise import DepthwiseConv2d
from tests.network.conftest import rule_weights

# stride and dilation of the first and of the other blocks of every row of the paper's table 2
GEOMETRY = {
    16: [(1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 1), (1, 1, 2), (1, 2, 2)],
    8: [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 2), (1, 2, 4), (1, 4, 4)],
}
ROWS = [(1, 2), (2, 4), (4, 7), (7, 11), (11, 14), (14, 17), (17, 18)]


@pytest.mark.parametrize("output_stride", [8, 16])
def test_strides_and_dilations(output_stride):
    backbone = build_backbone("mobilenet", output_stride)
    blocks = [*backbone.low_level_features, *backbone.high_level_features]
    for (start, end), (stride, first, rest) in zip(ROWS, GEOMETRY[output_stride], strict=True):
        for index in range(start, end):
            conv = blocks[index].conv[-3][0]
            assert conv.stride[0] == (stride if index == start else 1), index
            assert conv.dilation[0] == (first if index == start else rest), index


@pytest.mark.parametrize("index", [1, 2, 3, 15])
def test_the_border_passes_through_the_expansion(index):
    """A block equals padding its input and running torchvision's convolutions unpadded."""
    torch.manual_seed(0)
    backbone = build_backbone("mobilenet", 16)
    block = [*backbone.low_level_features, *backbone.high_level_features][index]
    conv = block.conv[-3][0]
    x = torch.rand(2, block.conv[0][0].in_channels, 9, 12)
    padded = F.pad(x, (conv.dilation[0],) * 4)
    expected = padded
    for module in block.conv[:-3]:  # the expansion, if any
        expected = module[2](module[1](F.conv2d(expected, module[0].weight)))
    expected = F.conv2d(expected, conv.weight, None, conv.stride, 0, conv.dilation, conv.groups)
    expected = block.conv[-3][2](block.conv[-3][1](expected))
    expected = block.conv[-1](block.conv[-2](expected))
    if block.use_res_connect:
        expected = x + expected
    torch.testing.assert_close(block(x), expected)


def test_inside_agrees_with_torchvision():
    """Away from the border, where the padding differs, the blocks compute the same."""
    layers = models.mobilenet_v2(weights=None).eval().features
    layers.load_state_dict(rule_weights(layers.state_dict()))
    ours = build_backbone("mobilenet", 16).eval().low_level_features
    ours.load_state_dict(layers[:4].state_dict())
    images = torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        stem = layers[0]
        unpadded = stem[2](stem[1](F.conv2d(images, stem[0].weight, stride=2)))
        expected = layers[1:4](unpadded)
        found = ours(images)
    torch.testing.assert_close(found[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3])
    assert not torch.allclose(found[..., 0], expected[..., 0])


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (1, 4)])
@pytest.mark.parametrize("size", [(14, 17), (15, 20), (9, 10)])
def test_depthwise_in_bfloat16(stride, dilation, size):
    """The detour gives the plain convolution's outputs, and its gradients within rounding."""
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 16, 3, stride, 0, dilation, groups=16, bias=False).bfloat16()
    detour = DepthwiseConv2d(nn.Parameter(plain.weight.detach().clone()), stride, dilation)
    results = []
    for conv in (plain, detour):
        x = torch.rand(2, 16, *size, generator=torch.Generator().manual_seed(1)).bfloat16()
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        y = conv(x)
        y.backward(torch.linspace(-1, 1, y.numel()).reshape(y.shape).bfloat16())
        results.append((y.detach(), x.grad, conv.weight.grad))
    for found, expected in zip(results[1], results[0], strict=True):
        assert found.shape == expected.shape
        tolerance = 2e-2 * expected.float().abs().max().item()
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    assert results[1][0].is_contiguous(memory_format=torch.channels_last)


def test_depthwise_detours_are_exact_in_double():
    for stride, dilation in ((2, 1), (1, 2), (1, 3)):
        conv = DepthwiseConv2d(nn.Parameter(torch.rand(4, 1, 3, 3).double()), stride, dilation)
        x = torch.rand(2, 4, 11, 12).double()
        detour = conv._subsampled(x) if stride > 1 else conv._in_phases(x)
        torch.testing.assert_close(detour, conv(x))
