"""DeepWV3Plus: the DeepLabV3+ decoder that was published with WideResNet38 (Zhu et al. 2019).

It differs from ``network.deeplab`` in low-level features at stride 2, reductions without norm and
activation, a second 3x3 convolution, a class head without bias and corners that are aligned in
every upsampling. AbeT (arXiv 2401.12129) puts its heads on it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation

from network.deeplab import PENULTIMATE_CHANNELS, ImagePooling, SegmentationHead, init_head
from network.heads import PLAIN, HeadOptions

_LOW_LEVEL_CHANNELS = 48

# How names of the published network begin and what takes that place, ``h`` and ``temperature``
# being AbeT's: its network is an ``underlying_model`` without the last layer of ``final``.
_PUBLISHED = {
    **{f"mod{n}.": f"backbone.mod{n}." for n in range(1, 8)},
    "aspp.img_conv.0.": "classifier.aspp.branches.0.1.",
    "aspp.img_conv.1.": "classifier.aspp.branches.0.2.",
    **{f"aspp.features.{n}.": f"classifier.aspp.branches.{n + 1}." for n in range(4)},
    "bot_aspp.": "classifier.reducer.",
    "bot_fine.": "classifier.project.",
    "final.": "classifier.classifier.",
    "h.h.": "classifier.classifier.6.",
    "temperature.0.": "classifier.temperature.conv.",
    "temperature.1.": "classifier.temperature.norm.",
}


class PyramidPooling(nn.Module):
    """Atrous spatial pyramid pooling without projection: (N, in, h, w) to (N, 5 * 256, h, w).

    Args:
        in_channels: channels of the input.
        rates: dilations of the three 3x3 branches, which follow the image's mean and a 1x1 one.
    """

    def __init__(self, in_channels: int, rates: tuple[int, int, int]) -> None:
        super().__init__()
        width = PENULTIMATE_CHANNELS
        self.branches = nn.ModuleList(
            [
                ImagePooling(in_channels, width),
                Conv2dNormActivation(in_channels, width, 1),
                *(Conv2dNormActivation(in_channels, width, 3, dilation=rate) for rate in rates),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """The concatenated branches."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class DeepWV3PlusHead(SegmentationHead):
    """Pyramid pooling joined with low-level features at their stride.

    Only ``classifier`` is initialised in a way of its own (Kaiming-normal), as published.

    Args:
        channels: channels of the backbone's features by name.
        num_classes: number of output channels.
        rates: see ``PyramidPooling``.
        head: how the last features become logits.
    """

    align_corners = True

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        rates: tuple[int, int, int],
        head: HeadOptions = PLAIN,
    ) -> None:
        super().__init__()
        width = PENULTIMATE_CHANNELS
        self.project = nn.Conv2d(channels["low_level"], _LOW_LEVEL_CHANNELS, 1, bias=False)
        self.aspp = PyramidPooling(channels["out"], rates)
        self.reducer = nn.Conv2d(5 * width, width, 1, bias=False)
        self.classifier = nn.Sequential(
            *Conv2dNormActivation(_LOW_LEVEL_CHANNELS + width, width, 3),
            *Conv2dNormActivation(width, width, 3),
            head.class_head(width, num_classes, bias=False, align_corners=self.align_corners),
        )
        init_head(self.classifier)
        self.temperature = head.temperature_layer(width, align_corners=self.align_corners)

    def classifier_input(self, features: Mapping[str, Tensor]) -> Tensor:
        """48 low-level channels, then 256 upsampled ones: (N, 304, h, w)."""
        low_level = self.project(features["low_level"])
        pooled = F.interpolate(
            self.reducer(self.aspp(features["out"])),
            size=low_level.shape[-2:],
            mode="bilinear",
            align_corners=self.align_corners,
        )
        return torch.cat([low_level, pooled], dim=1)


def published_name(name: str) -> str | None:
    """From a name in a published DeepWV3Plus or AbeT file to ours, None for another name."""
    name = name.removeprefix("underlying_model.")
    for published, own in _PUBLISHED.items():
        if name.startswith(published):
            return own + name.removeprefix(published)
    return None


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published DeepWV3Plus or AbeT file under our names.

    A state of another network, without the published first layer, stays as it is; so do names
    that the published network has not, for the check that the state fits.
    """
    if not any(name.removeprefix("underlying_model.") == "mod1.conv1.weight" for name in state):
        return dict(state)
    return {published_name(name) or name: value for name, value in state.items()}
