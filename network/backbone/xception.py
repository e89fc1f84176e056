"""Aligned Xception of the DeepLab project (Chollet 2017), with dilated last stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from network.backbone.base import Backbone, Feature


class SeparableConv(nn.Module):
    """Depthwise 3x3 and pointwise convolution, without norms: (N, in, H, W) to (N, out, h, w)."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int, padding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            in_channels,
            in_channels,
            3,
            padding=padding,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        )
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Filter each channel, then mix."""
        return self.pointwise(self.conv1(x))


class Block(nn.Module):
    """ReLU, separable convolution and norm, several times, with a shortcut around.

    Args:
        widths: channels before and after each separable convolution.
        stride: 2 ends in a max-pool with stride 2.
        dilation: of every separable convolution.
        start_with_relu: off for the first block, whose input is rectified already.
    """

    def __init__(
        self,
        widths: Sequence[int],
        stride: int = 1,
        dilation: int = 1,
        start_with_relu: bool = True,
    ) -> None:
        super().__init__()
        self.skip: nn.Module | None = None
        self.skipbn: nn.Module | None = None
        if widths[0] != widths[-1] or stride > 1:
            self.skip = nn.Conv2d(widths[0], widths[-1], 1, stride, bias=False)
            self.skipbn = nn.BatchNorm2d(widths[-1])
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            if index > 0 or start_with_relu:  # the first one must leave the shortcut's input
                layers.append(nn.ReLU(inplace=index > 0))
            layers += [SeparableConv(before, after, dilation, dilation), nn.BatchNorm2d(after)]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.rep = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, H / stride, W / stride)."""
        shortcut = x
        if self.skip is not None and self.skipbn is not None:
            shortcut = self.skipbn(self.skip(x))
        return self.rep(x) + shortcut


class Xception(Backbone):
    """Xception up to its last convolution, without that one's norm and ReLU.

    Args:
        name: ``xception``.
        features: see ``Backbone``.
        output_stride: 16 takes the stride of block12, 8 that of block3 too.
        options: ``dropout`` and ``checkpoint_activations`` of ``Backbone``.
    """

    def __init__(
        self, name: str, features: Mapping[str, Feature], output_stride: int, **options: Any
    ) -> None:
        super().__init__(features, **options)
        assert name == "xception"
        middle, last = (2, 4) if output_stride == 8 else (1, 2)
        self.smallest_input = _smallest_input(output_stride, last)
        self.conv1 = nn.Conv2d(3, 32, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.block1 = Block((64, 128, 128), stride=2, start_with_relu=False)
        self.block2 = Block((128, 256, 256), stride=2)
        self.block3 = Block(
            (256, 728, 728), stride=2 if output_stride == 16 else 1, dilation=middle
        )
        for index in range(4, 12):
            self.add_module(f"block{index}", Block((728,) * 4, dilation=middle))
        self.block12 = Block((728, 728, 1024), dilation=last)
        # padded by 1 whatever the dilation, as the published weights were trained
        self.conv3 = SeparableConv(1024, 1536, last, padding=1)
        self.bn3 = nn.BatchNorm2d(1536)
        self.conv4 = SeparableConv(1536, 2048, last, padding=1)
        _init(self)

    def stages(self) -> Sequence[tuple[str, Sequence[nn.Module]]]:
        """Entry flow in two stages, middle flow, exit flow."""
        middle = tuple(getattr(self, f"block{index}") for index in range(4, 12))
        return (
            (
                "block1",
                (self.conv1, self.bn1, self.relu, self.conv2, self.bn2, self.relu, self.block1),
            ),
            ("block3", (self.block2, self.block3)),
            ("block11", middle),
            ("conv4", (self.block12, self.conv3, self.bn3, self.relu, self.conv4)),
        )


def _smallest_input(output_stride: int, dilation: int) -> int:
    """The least side that leaves one pixel after the last two, underpadded convolutions."""
    side = 1 + 2 * 2 * (dilation - 1)
    strides = {8: 2, 16: 3}[output_stride]
    for _ in range(strides):  # a stride of 2 with padding 1 maps 2 n - 1 pixels to n
        side = 2 * side - 1
    return 2 * (side + 2 - 1) + 3  # the stem's two convolutions without padding


def _init(backbone: nn.Module) -> None:
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def published_name(name: str) -> str | None:
    """From a name in the ImageNet file to the backbone's, None for the classifier."""
    return None if name.startswith(("fc.", "last_linear.", "bn4.")) else name
