"""Wide ResNet-38 (Wu et al. 2019, "Wider or Deeper") as weak supervision uses it: ResNet-38d.

Beside ``network.backbone.wideresnet`` it has strides where that one pools, another width of the
first groups, a last norm, and features that are normalised and rectified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from network.backbone.base import Backbone, Feature

_STEM_CHANNELS = 64
# what follows the trunk in the published files: classes of ImageNet, and SEAM's head
_BEHIND = ("fc.", "fc8.", "f8_3.", "f8_4.", "f9.", "linear1000.")


class _Group(NamedTuple):
    """Residual blocks of one width, the first of which may stride."""

    blocks: int
    widths: tuple[int, ...]  # of a block's convolutions: two 3x3, or 1x1, 3x3 and 1x1
    stride: int = 1  # of the first block
    dilation: int = 1
    first_dilation: int | None = None  # of the very first convolution, where it differs
    dropout: float = 0.0


_GROUPS = {
    "b2": _Group(3, (128, 128), stride=2),
    "b3": _Group(3, (256, 256), stride=2),
    "b4": _Group(6, (512, 512), stride=2),
    "b5": _Group(3, (512, 1024), dilation=2, first_dilation=1),
    "b6": _Group(1, (512, 1024, 2048), dilation=4, dropout=0.3),
    "b7": _Group(1, (1024, 2048, 4096), dilation=4, dropout=0.5),
}
_LAST_DILATION = {"resnet38d": 4, "resnet38d_classifier": 2}


class PreActivatedBlock(nn.Module):
    """Residual block with norm and ReLU before each convolution, without a last ReLU.

    The first block of a group has a shortcut of its own, a 1x1 convolution of the same activated
    input that the branch reads. Its first norm is therefore run by the stage before it, whose
    output it is; other blocks run theirs.

    Args:
        in_channels: channels of the input.
        group: widths of the convolutions, dilation of the 3x3 ones and channel dropout before
            all but the first one.
        first: whether it is the first block of its group.
    """

    _BRANCHES = ("2a", "2b1", "2b2")

    def __init__(self, in_channels: int, group: _Group, *, first: bool) -> None:
        super().__init__()
        kernels = (3, 3) if len(group.widths) == 2 else (1, 3, 1)
        stride = group.stride if first else 1
        channels = in_channels
        for number, (width, kernel) in enumerate(zip(group.widths, kernels, strict=True)):
            spread = group.dilation
            if first and number == 0:
                spread = group.first_dilation or spread
            name = self._BRANCHES[number]
            self.add_module(f"bn_branch{name}", nn.BatchNorm2d(channels))
            conv = nn.Conv2d(
                channels,
                width,
                kernel,
                stride if number == 0 else 1,
                padding=spread * (kernel // 2),
                dilation=spread if kernel == 3 else 1,
                bias=False,
            )
            self.add_module(f"conv_branch{name}", conv)
            channels = width
        self.conv_branch1 = (
            nn.Conv2d(in_channels, channels, 1, stride, bias=False) if first else None
        )
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout2d(group.dropout) if group.dropout > 0 else nn.Identity()
        self.depth = len(group.widths)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) to (N, out, h / stride, w / stride), both rounded up.

        The input of a first block is activated already.
        """
        first, *others = self._BRANCHES[: self.depth]
        shortcut = x
        if self.conv_branch1 is None:
            x = self._activated(first, x)
        else:
            shortcut = self.conv_branch1(x)
        x = self._convolved(first, x)
        for name in others:
            x = self._convolved(name, self.dropout(self._activated(name, x)))
        return x.add_(shortcut)

    def entrance(self) -> tuple[nn.Module, ...]:
        """What the stage before a first block ends with: the block's first norm, and a ReLU."""
        return (self.get_submodule("bn_branch2a"), self.relu)

    def _activated(self, name: str, x: Tensor) -> Tensor:
        return self.relu(self.get_submodule(f"bn_branch{name}")(x))

    def _convolved(self, name: str, x: Tensor) -> Tensor:
        return self.get_submodule(f"conv_branch{name}")(x)


class ResNet38(Backbone):
    """ResNet-38d without its classifier; every feature is normalised and rectified.

    A feature is what the next group reads, or for ``out`` what the last norm makes of the last
    group. Parameter names are those of the published files.

    Args:
        name: ``resnet38d``, or ``resnet38d_classifier``, whose last group is dilated by 2 instead
            of 4, as the published classifier of class activation maps has it.
        features: see ``Backbone``.
        output_stride: not used, it is 8.
        options: ``dropout`` and ``checkpoint_activations`` of ``Backbone``.
    """

    def __init__(
        self, name: str, features: Mapping[str, Feature], output_stride: int, **options: Any
    ) -> None:
        super().__init__(features, **options)
        groups = {**_GROUPS, "b7": _GROUPS["b7"]._replace(dilation=_LAST_DILATION[name])}
        self.conv1a = nn.Conv2d(3, _STEM_CHANNELS, 3, padding=1, bias=False)
        channels = _STEM_CHANNELS
        for key, group in groups.items():
            for number, block in enumerate(_names(key)):
                self.add_module(block, PreActivatedBlock(channels, group, first=number == 0))
                channels = group.widths[-1]
        self.bn7 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def stages(self) -> Sequence[tuple[str, Sequence[nn.Module]]]:
        """The stem with b2, then each group of blocks, each with what activates its output."""
        entrances = [self._entrance(key) for key in _GROUPS]
        ends = [*entrances[1:], (self.bn7, self.relu)]
        starts = [(self.conv1a, *entrances[0])] + (len(_GROUPS) - 1) * [()]
        return [
            (key, (*start, *(self.get_submodule(block) for block in _names(key)), *end))
            for key, start, end in zip(_GROUPS, starts, ends, strict=True)
        ]

    def _entrance(self, key: str) -> tuple[nn.Module, ...]:
        block = self.get_submodule(key)
        assert isinstance(block, PreActivatedBlock)
        return block.entrance()


def _names(key: str) -> list[str]:
    """The published names of the blocks of a group."""
    return [key, *(f"{key}_{number}" for number in range(1, _GROUPS[key].blocks))]


def published_name(name: str) -> str | None:
    """From a name in a file of ImageNet's or SEAM's weights to the backbone's.

    None for what follows the trunk.
    """
    return None if name.startswith(_BEHIND) else name
