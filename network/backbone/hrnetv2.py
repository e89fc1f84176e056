"""HRNetV2 (Wang et al. 2019): parallel branches of four resolutions, for inputs of any size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from network.backbone.base import Backbone, Feature

_WIDTHS = {"hrnetv2_32": 32, "hrnetv2_48": 48}
_BLOCKS_PER_BRANCH = 4
_MODULES = {2: 1, 3: 4, 4: 3}  # by number of branches, which is the number of the stage


def _conv_norm(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
    ]


class FirstTransition(nn.ModuleList):
    """From layer1 to the first two branches."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__(
            [
                nn.Sequential(*_conv_norm(in_channels, width), nn.ReLU(inplace=True)),
                nn.Sequential(
                    nn.Sequential(*_conv_norm(in_channels, 2 * width, 2), nn.ReLU(inplace=True))
                ),
            ]
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, in, h, w) to branches at its stride and at twice its stride."""
        return [branch(x) for branch in self]


class Transition(nn.Sequential):
    """Adds a branch of half the lowest resolution and twice its channels."""

    def __init__(self, in_channels: int) -> None:
        super().__init__(*_conv_norm(in_channels, 2 * in_channels, 2), nn.ReLU(inplace=True))

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """The branches and the new one."""
        return [*branches, super().forward(branches[-1])]


def _fuse_layer(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """From branch ``source`` to branch ``target``; upsampling is done by the caller."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            nn.Conv2d(widths[source], widths[target], 1, bias=False),
            nn.BatchNorm2d(widths[target]),
        )
    steps = [
        nn.Sequential(*_conv_norm(widths[source], widths[source], 2), nn.ReLU(inplace=True))
        for _ in range(target - source - 1)
    ]
    return nn.Sequential(*steps, nn.Sequential(*_conv_norm(widths[source], widths[target], 2)))


class HighResolutionModule(nn.Module):
    """Four basic blocks in each branch, then every branch gets the sum of all.

    Args:
        widths: channels of the branches, from the highest resolution to the lowest.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, width) for _ in range(_BLOCKS_PER_BRANCH)))
            for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_fuse_layer(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """The branches, fused; sizes and channels stay."""
        branches = [blocks(branch) for blocks, branch in zip(self.branches, branches, strict=True)]
        return [self._fuse(index, branches) for index in range(len(branches))]

    def _fuse(self, target: int, branches: list[Tensor]) -> Tensor:
        height, width = branches[target].shape[-2:]
        layers: Any = self.fuse_layers[target]
        total = layers[0](branches[0])
        for source in range(1, len(branches)):
            x = layers[source](branches[source])
            if source > target:
                # a lower branch has ceil(n / 2^k) pixels: upsampled by 2^k it covers n and is
                # aligned with it; the rest is cut off
                x = F.interpolate(x, scale_factor=2 ** (source - target), mode="nearest")
                x = x[..., :height, :width]
            total = total + x
        return self.relu(total)


def _first_layer(in_channels: int) -> nn.Sequential:
    planes = 64
    out_channels = planes * Bottleneck.expansion
    shortcut = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
    )
    return nn.Sequential(
        Bottleneck(in_channels, planes, downsample=shortcut),
        *(Bottleneck(out_channels, planes) for _ in range(3)),
    )


def _stage(widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(*(HighResolutionModule(widths) for _ in range(_MODULES[len(widths)])))


class HRNetV2(Backbone):
    """HRNetV2-W32 or W48 without its classifier; all branches concatenated at stride 4.

    Args:
        name: ``hrnetv2_32`` or ``hrnetv2_48``.
        features: see ``Backbone``.
        output_stride: not used, it is 4.
        options: ``dropout`` and ``checkpoint_activations`` of ``Backbone``.
    """

    def __init__(
        self,
        name: str,
        features: Mapping[str, Feature],
        output_stride: int,
        **options: Any,
    ) -> None:
        super().__init__(features, **options)
        widths = [_WIDTHS[name] * 2**branch for branch in range(4)]
        self.conv1, self.bn1 = _conv_norm(3, 64, 2)
        self.conv2, self.bn2 = _conv_norm(64, 64, 2)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _first_layer(64)
        self.transition1 = FirstTransition(256, widths[0])
        self.stage2 = _stage(widths[:2])
        self.transition2 = Transition(widths[1])
        self.stage3 = _stage(widths[:3])
        self.transition3 = Transition(widths[2])
        self.stage4 = _stage(widths)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> Sequence[tuple[str, Sequence[nn.Module]]]:
        """The stem with layer1, then the stages with one more branch each."""
        # one ReLU for both convolutions, as the project whose checkpoints these weights fit
        stem = (self.conv1, self.bn1, self.conv2, self.bn2, self.relu)
        return (
            ("layer1", (*stem, self.layer1)),
            ("stage2", (self.transition1, self.stage2)),
            ("stage3", (self.transition2, self.stage3)),
            ("stage4", (self.transition3, self.stage4)),
        )

    def feature(self, name: str, x: Any) -> Tensor:
        """The first branch of a stage, or for ``out`` all four of them at its size."""
        if isinstance(x, Tensor):
            return x
        first = x[0]
        if name != "out":
            return first
        size = first.shape[-2:]
        lower = [
            F.interpolate(branch, size=size, mode="bilinear", align_corners=False)
            for branch in x[1:]
        ]
        return torch.cat([first, *lower], dim=1)


def published_name(name: str) -> str | None:
    """From a name in the ImageNet file to the backbone's, None for the classification head."""
    if name.startswith(("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")):
        return None
    # the published transitions list all branches and hold the new one only
    return name.replace("transition2.2.0.", "transition2.").replace(
        "transition3.3.0.", "transition3."
    )
