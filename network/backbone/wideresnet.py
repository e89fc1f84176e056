"""WideResNet38 (Wu et al. 2019, "Wider or Deeper"), variant A2, dilated to output stride 8."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from network.backbone.base import Backbone, Feature

_STEM_CHANNELS = 64


class _Group(NamedTuple):
    """Residual blocks of one width."""

    blocks: int
    widths: tuple[int, ...]  # of a block's convolutions: two 3x3, or 1x1, 3x3 and 1x1
    stride: int = 1  # of the first block
    dilation: int = 1
    dropout: float = 0.0


_GROUPS = {
    "mod2": _Group(3, (128, 128)),
    "mod3": _Group(3, (256, 256)),
    "mod4": _Group(6, (512, 512), stride=2),
    "mod5": _Group(3, (512, 1024), dilation=2),
    "mod6": _Group(1, (512, 1024, 2048), dilation=4, dropout=0.3),
    "mod7": _Group(1, (1024, 2048, 4096), dilation=4, dropout=0.5),
}


def _norm_relu(channels: int) -> nn.Sequential:
    """The norm makes a new tensor, which the ReLU may overwrite: the block's input stays."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """Pre-activated residual block (He et al. 2016, "Identity Mappings"), without a last ReLU.

    Where the shape changes the shortcut is a 1x1 convolution of the normalised and rectified
    input, otherwise the input itself.

    Args:
        in_channels: channels of the input.
        widths: channels after each convolution: two of 3x3, or three of 1x1, 3x3 and 1x1.
        stride: of the first convolution.
        dilation: of the 3x3 convolutions.
        dropout: probability that a whole channel is dropped before the last of three convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int],
        stride: int = 1,
        dilation: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        assert len(widths) in (2, 3)
        assert dropout == 0 or len(widths) == 3
        self.bn1 = _norm_relu(in_channels)
        kernels = (3, 3) if len(widths) == 2 else (1, 3, 1)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        pairs = pairwise((in_channels, *widths))
        for number, ((before, after), kernel) in enumerate(
            zip(pairs, kernels, strict=True), start=1
        ):
            if number > 1:
                layers[f"bn{number}"] = _norm_relu(before)
            if number == 3 and dropout > 0:
                layers["dropout"] = nn.Dropout2d(dropout)
            spread = dilation if kernel == 3 else 1
            layers[f"conv{number}"] = nn.Conv2d(
                before,
                after,
                kernel,
                stride if number == 1 else 1,
                padding=spread * (kernel // 2),
                dilation=spread,
                bias=False,
            )
        self.convs = nn.Sequential(layers)
        self.proj_conv: nn.Conv2d | None = None
        if stride != 1 or in_channels != widths[-1]:
            self.proj_conv = nn.Conv2d(in_channels, widths[-1], 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) to (N, out, h / stride, w / stride), both rounded up."""
        activated = self.bn1(x)
        shortcut = x if self.proj_conv is None else self.proj_conv(activated)
        return self.convs(activated).add_(shortcut)


class WideResNet38(Backbone):
    """WideResNet38-A2 without its last norm and classifier; ``out`` is a raw residual sum.

    Parameter names are those of the published ImageNet file.

    Args:
        name: ``wideresnet38``.
        features: see ``Backbone``.
        output_stride: not used, it is 8.
        options: ``dropout`` and ``checkpoint_activations`` of ``Backbone``.
    """

    def __init__(
        self, name: str, features: Mapping[str, Feature], output_stride: int, **options: Any
    ) -> None:
        super().__init__(features, **options)
        assert name == "wideresnet38"
        stem = nn.Conv2d(3, _STEM_CHANNELS, 3, padding=1, bias=False)
        self.mod1 = nn.Sequential(OrderedDict(conv1=stem))
        self.pool2 = nn.MaxPool2d(3, stride=2, padding=1)
        self.pool3 = nn.MaxPool2d(3, stride=2, padding=1)
        channels = _STEM_CHANNELS
        for key, group in _GROUPS.items():
            self.add_module(key, _residual_blocks(channels, group))
            channels = group.widths[-1]

    def stages(self) -> Sequence[tuple[str, Sequence[nn.Module]]]:
        """The stem with mod2, then each group of blocks."""
        return (
            ("mod2", (self.mod1, self.pool2, self.get_submodule("mod2"))),
            ("mod3", (self.pool3, self.get_submodule("mod3"))),
            *((key, (self.get_submodule(key),)) for key in ("mod4", "mod5", "mod6", "mod7")),
        )


def _residual_blocks(in_channels: int, group: _Group) -> nn.Sequential:
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, group.blocks + 1):
        blocks[f"block{number}"] = ResidualBlock(
            in_channels if number == 1 else group.widths[-1],
            group.widths,
            group.stride if number == 1 else 1,
            group.dilation,
            group.dropout,
        )
    return nn.Sequential(blocks)


def published_name(name: str) -> str | None:
    """From a name in the ImageNet file, or in a segmentation network's, to the backbone's.

    None for what follows mod7.
    """
    behind = ("bn_out.", "classifier.", "aspp.", "bot_aspp.", "bot_fine.", "final.")
    return None if name.startswith(behind) else name
