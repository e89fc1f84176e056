"""DeepLabV3 and DeepLabV3+: heads, atrous pyramid pooling and the segmentation model.

Module names are those of the DeepLabV3Plus-Pytorch project, so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from network.backbone.base import BATCH_NORMS, Backbone
from network.heads import PLAIN, HeadOptions, LearnedTemperature, divided
from network.upsampling import wide
from utils.types import SegOutput

PENULTIMATE_CHANNELS = 256
_LOW_LEVEL_CHANNELS = 48


def _conv_norm_relu(
    in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1
) -> list[nn.Module]:
    padding = dilation * (kernel_size // 2)
    return [
        nn.Conv2d(
            in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, bias=False
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    ]


class ImagePooling(nn.Sequential):
    """The spatial mean through a 1x1 convolution, spread over the map again."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *_conv_norm_relu(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) to (N, out, h, w), constant over each image."""
        return super().forward(x).expand(-1, -1, *x.shape[-2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLabV3, section 3.3): (N, in, h, w) to (N, 256, h, w).

    Args:
        in_channels: channels of the input.
        rates: dilations of the three 3x3 branches.
    """

    def __init__(self, in_channels: int, rates: tuple[int, int, int]) -> None:
        super().__init__()
        width = PENULTIMATE_CHANNELS
        self.convs = nn.ModuleList(
            [
                nn.Sequential(*_conv_norm_relu(in_channels, width)),
                *(nn.Sequential(*_conv_norm_relu(in_channels, width, 3, rate)) for rate in rates),
                ImagePooling(in_channels, width),
            ]
        )
        self.project = nn.Sequential(*_conv_norm_relu(5 * width, width), nn.Dropout(0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Project the concatenated branches."""
        return self.project(torch.cat([branch(x) for branch in self.convs], dim=1))


class SegmentationHead(nn.Module):
    """From a backbone's features to logits.

    The last module of ``classifier`` is the class head (``network.heads``): replace
    ``classifier[-1]`` for another kind of classifier on the penultimate features.

    Attributes:
        classifier: its first module takes ``classifier_input``.
        temperature: from the penultimate features to the temperature that logits are divided by.
        align_corners: of every upsampling.
    """

    classifier: nn.Sequential
    temperature: LearnedTemperature | None
    align_corners = False

    def classifier_input(self, features: Mapping[str, Tensor]) -> Tensor:
        """What the first module of ``classifier`` takes."""
        raise TypeError(f"{type(self).__name__} does not combine {', '.join(features)}")

    def penultimate(self, features: Mapping[str, Tensor]) -> Tensor:
        """Input of the class head: (N, P, h, w), of DeepLab's heads 256 channels, not negative."""
        x = self.classifier_input(features)
        for module in list(self.classifier)[:-1]:
            x = module(x)
        return x

    def forward(
        self, features: Mapping[str, Tensor], size: Sequence[int] | None = None
    ) -> SegOutput:
        """Logits (N, C, H, W) and, where it is learned, the temperature (N, 1, H, W).

        Args:
            features: of the backbone.
            size: (H, W); None for that of the penultimate features.
        """
        penultimate = self.penultimate(features)
        numerators = wide(self.classifier[-1](penultimate, size))
        if self.temperature is None:
            return SegOutput(numerators)
        temperature = self.temperature(penultimate, size)
        return SegOutput(divided(numerators, temperature), temperature=temperature)


class DeepLabHeadV3(SegmentationHead):
    """DeepLabV3: pyramid pooling, 3x3 and 1x1 convolution, at the stride of ``out``.

    Args:
        channels: channels of the backbone's features by name.
        num_classes: number of output channels.
        rates: see ``ASPP``.
        head: how the last features become logits.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        rates: tuple[int, int, int],
        head: HeadOptions = PLAIN,
    ) -> None:
        super().__init__()
        width = PENULTIMATE_CHANNELS
        self.classifier = nn.Sequential(
            ASPP(channels["out"], rates),
            *_conv_norm_relu(width, width, 3),
            head.class_head(width, num_classes),
        )
        init_head(self)
        self.temperature = head.temperature_layer(width)

    def classifier_input(self, features: Mapping[str, Tensor]) -> Tensor:
        """The last feature."""
        return features["out"]


class DeepLabHeadV3Plus(SegmentationHead):
    """DeepLabV3+: pyramid pooling joined with low-level features at their stride.

    Args:
        channels: channels of the backbone's features by name.
        num_classes: number of output channels.
        rates: see ``ASPP``.
        head: how the last features become logits.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        rates: tuple[int, int, int],
        head: HeadOptions = PLAIN,
    ) -> None:
        super().__init__()
        width = PENULTIMATE_CHANNELS
        self.project = nn.Sequential(*_conv_norm_relu(channels["low_level"], _LOW_LEVEL_CHANNELS))
        self.aspp = ASPP(channels["out"], rates)
        self.classifier = nn.Sequential(
            *_conv_norm_relu(_LOW_LEVEL_CHANNELS + width, width, 3),
            head.class_head(width, num_classes),
        )
        init_head(self)
        self.temperature = head.temperature_layer(width)

    def classifier_input(self, features: Mapping[str, Tensor]) -> Tensor:
        """48 low-level channels, then 256 upsampled ones: (N, 304, h, w)."""
        low_level = self.project(features["low_level"])
        pooled = self.aspp(features["out"])
        pooled = F.interpolate(
            pooled, size=low_level.shape[-2:], mode="bilinear", align_corners=False
        )
        return torch.cat([low_level, pooled], dim=1)


def init_head(head: nn.Module) -> None:
    """Kaiming-normal convolutions (He et al. 2015, fan-in), identity norms, in place."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class SeparableConv2d(nn.Module):
    """A depthwise and a pointwise convolution in place of ``conv``, with its geometry."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        bias = conv.bias is not None
        self.body = nn.Sequential(
            nn.Conv2d(
                conv.in_channels,
                conv.in_channels,
                conv.kernel_size,  # type: ignore[arg-type]
                conv.stride,  # type: ignore[arg-type]
                conv.padding,  # type: ignore[arg-type]
                conv.dilation,  # type: ignore[arg-type]
                groups=conv.in_channels,
                bias=bias,
            ),
            nn.Conv2d(conv.in_channels, conv.out_channels, 1, bias=bias),
        ).to(conv.weight)
        init_head(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, h, w), as the replaced convolution's shapes."""
        return self.body(x)


def convert_to_separable_conv(module: nn.Module) -> nn.Module:
    """Replace every convolution with kernel > 1 by a new depthwise and pointwise pair.

    Grouped convolutions stay, so converting twice changes nothing.

    Args:
        module: changed in place, unless it is itself a convolution.

    Returns:
        ``module``, or what replaces it.
    """
    if isinstance(module, nn.Conv2d) and module.groups == 1 and max(module.kernel_size) > 1:
        return SeparableConv2d(module)
    for name, child in module.named_children():
        module.add_module(name, convert_to_separable_conv(child))
    return module


class SegmentationModel(nn.Module):
    """A backbone and one or two heads; logits come at the size of the images.

    Args:
        backbone: gives the features ``low_level``, ``aux`` and ``out``.
        classifier: the main head.
        aux_classifier: a second head, whose ``aux_logits`` stand beside the main ones.
        freeze_bn: keep the backbone's batch norms in evaluation mode: they use stored statistics
            and leave them as they are, while their weights are trained.

    Attributes:
        align_corners: how logits at the heads' own resolution are upsampled.
    """

    def __init__(
        self,
        backbone: Backbone,
        classifier: SegmentationHead,
        aux_classifier: SegmentationHead | None = None,
        *,
        freeze_bn: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.aux_classifier = aux_classifier
        self.align_corners = classifier.align_corners
        self.freeze_bn = freeze_bn
        if freeze_bn:
            self.train()

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode, the latter in any case for frozen batch norms."""
        super().train(mode)
        if self.freeze_bn:
            for module in self.backbone.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()
        return self

    def forward(
        self, images: Tensor, pooled_features: bool = False, at_stride: bool = False
    ) -> SegOutput:
        """Segment normalised images of any size.

        Args:
            images: (N, 3, H, W).
            pooled_features: also return the spatial mean of ``out``, (N, D).
            at_stride: leave logits and temperature at the main head's own resolution, where the
                auxiliary logits are brought to if theirs is another.

        Raises:
            ValueError: if the images are smaller than the backbone can take.
        """
        least = self.backbone.smallest_input
        if min(images.shape[-2:]) < least:
            raise ValueError(
                f"images of {images.shape[-2]}x{images.shape[-1]} pixels are too small for this "
                f"model: each side needs at least {least} pixels"
            )
        features = self.backbone(images)
        output: SegOutput = self.classifier(features, None if at_stride else images.shape[-2:])
        if self.aux_classifier is not None:
            auxiliary = self.aux_classifier(features, output.logits.shape[-2:])
            output = output._replace(aux_logits=auxiliary.logits)
        pooled = features["out"].float().mean((2, 3)) if pooled_features else None
        return output._replace(features=pooled)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of the ``backbone`` and of the ``classifier``, for their own rates.

        Those of an auxiliary head follow those of the main one.
        """
        heads = [head for head in (self.classifier, self.aux_classifier) if head is not None]
        return {
            "backbone": list(self.backbone.parameters()),
            "classifier": [parameter for head in heads for parameter in head.parameters()],
        }
