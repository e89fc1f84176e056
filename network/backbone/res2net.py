"""Res2Net-101 v1b (Gao et al. 2021, arXiv 1904.01169), dilated like a ResNet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from network.backbone.base import Backbone, Feature

SCALE = 4  # parts that a block's channels are split into
_BASE_WIDTH = 26  # channels of a part, where the block has 64 planes
_EXPANSION = 4
_BLOCKS = {"res2net101": (3, 4, 23, 3)}
# strides and dilations of layer1 to layer4; all blocks of a layer are dilated alike
_GEOMETRY = {8: ((1, 2, 1, 1), (1, 1, 2, 4)), 16: ((1, 2, 2, 1), (1, 1, 1, 2))}


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(
        in_channels,
        out_channels,
        3,
        stride,
        padding=dilation,
        dilation=dilation,
        bias=False,
    )


class Bottle2neck(nn.Module):
    """A bottleneck whose 3x3 convolutions work on parts of the channels, one after the other.

    Each of the first three parts is convolved together with what came of the part before it; the
    last one passes. In the ``first`` block of a layer the parts are convolved separately, and the
    last one is averaged over 3x3 pixels.

    Args:
        in_channels: channels of the input.
        planes: a quarter of the channels of the output.
        first: whether it is the first block of its layer, the one with a new shortcut.
        stride: of a first block.
        dilation: of the 3x3 convolutions.
    """

    def __init__(
        self, in_channels: int, planes: int, *, first: bool, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        width, out_channels = planes * _BASE_WIDTH // 64, planes * _EXPANSION
        self.first = first
        self.conv1 = nn.Conv2d(in_channels, SCALE * width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(SCALE * width)
        self.convs = nn.ModuleList(
            _conv3x3(width, width, stride, dilation) for _ in range(SCALE - 1)
        )
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(SCALE - 1))
        self.pool = nn.AvgPool2d(3, stride, padding=1) if first else nn.Identity()
        self.conv3 = nn.Conv2d(SCALE * width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if first:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) to (N, 4 planes, h / stride, w / stride), both rounded up."""
        parts = self.relu(self.bn1(self.conv1(x))).chunk(SCALE, 1)
        done: list[Tensor] = []
        for part, conv, norm in zip(parts, self.convs, self.bns, strict=False):
            together = part + done[-1] if done and not self.first else part
            done.append(self.relu(norm(conv(together))))
        done.append(self.pool(parts[-1]))
        out = self.bn3(self.conv3(torch.cat(done, 1)))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)


class Res2Net(Backbone):
    """Res2Net-101 v1b, 26w x 4s, without its classifier, under the published parameter names.

    Args:
        name: ``res2net101``.
        features: see ``Backbone``.
        output_stride: 16 dilates layer4, 8 layer3 too.
        options: ``dropout`` and ``checkpoint_activations`` of ``Backbone``.
    """

    def __init__(
        self, name: str, features: Mapping[str, Feature], output_stride: int, **options: Any
    ) -> None:
        super().__init__(features, **options)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Sequential(
            _conv3x3(3, 32, 2),
            nn.BatchNorm2d(32),
            self.relu,
            _conv3x3(32, 32),
            nn.BatchNorm2d(32),
            self.relu,
            _conv3x3(32, 64),
        )
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = 64
        for number, (blocks, stride, dilation) in enumerate(
            zip(_BLOCKS[name], *_GEOMETRY[output_stride], strict=True)
        ):
            planes = 64 * 2**number
            layer = [Bottle2neck(channels, planes, first=True, stride=stride, dilation=dilation)]
            channels = planes * _EXPANSION
            layer += [
                Bottle2neck(channels, planes, first=False, dilation=dilation)
                for _ in range(blocks - 1)
            ]
            self.add_module(f"layer{number + 1}", nn.Sequential(*layer))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> Sequence[tuple[str, Sequence[nn.Module]]]:
        """The stem with layer1, then the other layers."""
        stem = (self.conv1, self.bn1, self.relu, self.maxpool)
        return (
            ("layer1", (*stem, self.get_submodule("layer1"))),
            *((name, (self.get_submodule(name),)) for name in ("layer2", "layer3", "layer4")),
        )
