"""ScaleNet-101 (Li et al. 2019, arXiv 1904.09460): convolutions at four scales in every block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from network.backbone.base import Backbone, Feature

POOLS = (1, 2, 4, 7)  # sides of the max pooling before the branches of a block
_EXPANSION = 4
_Widths = tuple[int, int, int, int]

# Channels of the branches of each block, 0 for one that is absent, as the published search of
# structures allotted them; and the side of the map that a layer has in an image of 224 pixels.
_STRUCTURE: dict[str, tuple[int, tuple[_Widths, ...]]] = {
    "layer1": (56, ((61, 11, 7, 7), (56, 23, 4, 3), (59, 24, 3, 0))),
    "layer2": (28, ((123, 41, 1, 6), (126, 38, 1, 6), (127, 41, 3, 0), (127, 41, 3, 0))),
    "layer3": (
        14,
        (
            (220, 86, 35, 0),
            (186, 64, 55, 36),
            (156, 25, 53, 107),
            (191, 44, 52, 54),
            (181, 53, 83, 24),
            (221, 82, 34, 4),
            (177, 62, 90, 12),
            (130, 75, 102, 34),
            (206, 71, 55, 9),
            (203, 83, 53, 2),
            (207, 73, 54, 7),
            (245, 84, 12, 0),
            (221, 103, 17, 0),
            (221, 100, 20, 0),
            (158, 99, 84, 0),
            (220, 106, 15, 0),
            (173, 92, 73, 3),
            (135, 122, 84, 0),
            (109, 71, 132, 29),
            (147, 94, 93, 7),
            (191, 108, 42, 0),
            (127, 95, 113, 6),
            (203, 117, 21, 0),
        ),
    ),
    "layer4": (7, ((282, 377, 23, 0), (279, 388, 15, 0), (84, 442, 155, 1))),
}
_STRIDES = {8: (1, 2, 1, 1), 16: (1, 2, 2, 1)}
_DILATIONS = {8: (1, 1, 2, 4), 16: (1, 1, 1, 2)}
_UNDILATED = (1, 1, 1, 1)


class ScaleBlock(nn.Module):
    """A bottleneck of 1x1, branches at several scales and 1x1, with a shortcut.

    A branch is max pooling, convolution, upsampling to the size of its input (nearest where it is
    a multiple, else bilinear) and norm. A pool larger than the map takes the whole of it.

    Args:
        in_channels: channels of the input.
        planes: a quarter of the channels of the output.
        widths: channels of the branches.
        side: of the map that the block was designed for; where pooling leaves less than two pixels
            of it, the branch's convolution is 1x1 instead of 3x3.
        stride: of a max pooling before everything.
        dilation: of the 3x3 convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        planes: int,
        widths: _Widths,
        side: int,
        *,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        out_channels = planes * _EXPANSION
        self.reduce = nn.MaxPool2d(stride) if stride > 1 else nn.Identity()
        self.downsample: nn.Sequential | None = None
        if in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        # dicts, because the published names count the absent branches
        self.conv2, self.bn2 = nn.ModuleDict(), nn.ModuleDict()
        for index, width in enumerate(widths):
            if width > 0:
                spread = dilation if side / 2**index > 1 else 0
                self.conv2[str(index)] = nn.Conv2d(
                    planes,
                    width,
                    3 if spread else 1,
                    padding=spread,
                    dilation=spread or 1,
                    bias=False,
                )
                self.bn2[str(index)] = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(sum(widths), out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) to (N, 4 planes, h / stride, w / stride), both rounded down."""
        x = self.reduce(x)
        inner = self.relu(self.bn1(self.conv1(x)))
        branches = [self._branch(index, inner) for index in self.conv2]
        out = self.bn3(self.conv3(self.relu(torch.cat(branches, 1))))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)

    def _branch(self, index: str, x: Tensor) -> Tensor:
        """(N, planes, h, w) to (N, width, h, w) at the scale of a branch, normalised."""
        pool, size = POOLS[int(index)], x.shape[-2:]
        if pool > 1:
            x = F.max_pool2d(x, (min(pool, size[0]), min(pool, size[1])))
        x = self.conv2[index](x)
        if pool > 1:
            multiple = size[0] % x.shape[-2] == 0 and size[1] % x.shape[-1] == 0
            x = F.interpolate(x, size, mode="nearest" if multiple else "bilinear")
        return self.bn2[index](x)


class ScaleNet(Backbone):
    """ScaleNet-101 without its classifier, under the published parameter names.

    Args:
        name: ``scalenet101``, or ``scalenet101_undilated`` as the published classifier of class
            activation maps has it: strides are dropped without dilation in their place.
        features: see ``Backbone``.
        output_stride: 16 drops the stride of layer4, 8 that of layer3 too.
        options: ``dropout`` and ``checkpoint_activations`` of ``Backbone``.
    """

    def __init__(
        self, name: str, features: Mapping[str, Feature], output_stride: int, **options: Any
    ) -> None:
        super().__init__(features, **options)
        assert name in ("scalenet101", "scalenet101_undilated")
        dilations = _DILATIONS[output_stride] if name == "scalenet101" else _UNDILATED
        self.smallest_input = {8: 5, 16: 13}[output_stride]  # leaves one pixel after all pooling
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for number, (layer, stride, dilation) in enumerate(
            zip(_STRUCTURE, _STRIDES[output_stride], dilations, strict=True)
        ):
            self.add_module(layer, _blocks(layer, 64 * 2**number, stride, dilation))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> Sequence[tuple[str, Sequence[nn.Module]]]:
        """The stem with layer1, then the other layers."""
        first, *others = ((layer, self.get_submodule(layer)) for layer in _STRUCTURE)
        return (
            (first[0], (self.conv1, self.bn1, self.relu, self.maxpool, first[1])),
            *((layer, (blocks,)) for layer, blocks in others),
        )


def _blocks(layer: str, planes: int, stride: int, dilation: int) -> nn.Sequential:
    side, structure = _STRUCTURE[layer]
    before = 64 if layer == "layer1" else 2 * planes
    channels = pairwise([before] + len(structure) * [_EXPANSION * planes])
    return nn.Sequential(
        *(
            ScaleBlock(
                inputs,
                planes,
                widths,
                side,
                stride=stride if index == 0 else 1,
                dilation=dilation,
            )
            for index, ((inputs, _), widths) in enumerate(zip(channels, structure, strict=True))
        )
    )
