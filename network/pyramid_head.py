"""The head of MRNet's network: five dilated branches, squeeze and excitation, channel dropout.

It serves as main head (of the last stage and the one before it) and as auxiliary head (of the one
before it); Zheng and Yang, IJCAI 2020 and IJCV 2021. Both are as wide on every backbone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from network.deeplab import SegmentationHead
from network.heads import PLAIN, HeadOptions

BRANCH_CHANNELS = 256
BOTTLENECK_CHANNELS = 512
DILATIONS = (6, 12, 18, 24)
REDUCTION = 16  # of squeeze and excitation
CLASS_DEVIATION = 0.001  # of the class weights as drawn

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "bn": nn.BatchNorm2d,
    "in": partial(nn.InstanceNorm2d, affine=True),
    "gn": partial(nn.GroupNorm, 32),
}


class PyramidOptions(NamedTuple):
    """What a pyramid head is made of.

    Attributes:
        norm: a key of ``NORMS``: batch norm, instance norm, or group norm with 32 groups.
        squeeze_excitation: weigh the concatenated channels of each image.
        drop_rate: probability that a channel is dropped before the classes, in training mode.
        full_init: draw the branches and the squeeze and excitation Kaiming-normal, too, which the
            published code means to and leaves out.
    """

    norm: str = "bn"
    squeeze_excitation: bool = False
    drop_rate: float = 0.1
    full_init: bool = False

    def norm_layer(self, channels: int) -> nn.Module:
        """The norm of a map with that many channels.

        Raises:
            ValueError: if there is no such norm.
        """
        if self.norm not in NORMS:
            raise ValueError(f"--head_norm {self.norm} is not offered; choose {', '.join(NORMS)}")
        return NORMS[self.norm](channels)


class PyramidBranches(nn.Module):
    """Five branches side by side: (N, in, h, w) to (N, 5 * 256, h, w), not negative.

    Args:
        in_channels: channels of the input.
        options: of the norm.
    """

    def __init__(self, in_channels: int, options: PyramidOptions) -> None:
        super().__init__()
        convs = [
            nn.Conv2d(in_channels, BRANCH_CHANNELS, 1),
            *(
                nn.Conv2d(in_channels, BRANCH_CHANNELS, 3, padding=rate, dilation=rate)
                for rate in DILATIONS
            ),
        ]
        self.branches = nn.ModuleList(
            nn.Sequential(conv, options.norm_layer(BRANCH_CHANNELS), nn.ReLU(inplace=True))
            for conv in convs
        )

    def forward(self, x: Tensor) -> Tensor:
        """The concatenated branches, the 1x1 one first."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class SqueezeExcitation(nn.Module):
    """A weight in (0, 1) for each channel of an image, from the channels' means (Hu et al. 2018).

    Args:
        channels: of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.se = nn.Sequential(
            nn.Linear(channels, channels // REDUCTION),
            nn.ReLU(inplace=True),
            nn.Linear(channels // REDUCTION, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w), weighed."""
        return x * self.se(x.mean((2, 3)))[..., None, None]


class PyramidHead(SegmentationHead):
    """Five branches, a 3x3 convolution to 512 channels, its norm without ReLU, the classes.

    The penultimate features (N, 512, h, w) have both signs.

    Args:
        channels: channels of the backbone's features by name.
        num_classes: number of output channels.
        taps: the features that it takes, in the order of their concatenation; they are of one
            size.
        options: see ``PyramidOptions``.
        head: how the last features become logits.
        align_corners: of the upsampling; published: True.
    """

    def __init__(
        self,
        channels: Mapping[str, int],
        num_classes: int,
        taps: tuple[str, ...],
        options: PyramidOptions,
        head: HeadOptions = PLAIN,
        *,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.taps = taps
        self.align_corners = align_corners
        joined, width = (1 + len(DILATIONS)) * BRANCH_CHANNELS, BOTTLENECK_CHANNELS
        self.classifier = nn.Sequential(
            OrderedDict(
                pyramid=PyramidBranches(sum(channels[tap] for tap in taps), options),
                bottleneck=nn.Sequential(
                    *([SqueezeExcitation(joined)] if options.squeeze_excitation else []),
                    nn.Conv2d(joined, width, 3, padding=1),
                    options.norm_layer(width),
                ),
                dropout=nn.Dropout2d(options.drop_rate),
                classes=head.class_head(
                    width, num_classes, bias=False, align_corners=align_corners
                ),
            )
        )
        init_pyramid(self.classifier, full=options.full_init)
        self.temperature = head.temperature_layer(width, align_corners=align_corners)

    def classifier_input(self, features: Mapping[str, Tensor]) -> Tensor:
        """The features that it takes, concatenated."""
        taken = [features[tap] for tap in self.taps]
        return taken[0] if len(taken) == 1 else torch.cat(taken, dim=1)


def init_pyramid(classifier: nn.Sequential, *, full: bool) -> None:
    """Draw a pyramid head's weights, in place.

    The 3x3 convolution is Kaiming-normal (fan-in) with bias 0, class weights are N(0, 0.001^2) and
    norms the identity. Branches and squeeze and excitation keep the framework's default unless
    ``full``: Kaiming-normal convolutions (fan-in) and linear layers (fan-out) with bias 0.
    """
    own = classifier.get_submodule("bottleneck").children()
    for module in classifier.modules() if full else own:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    nn.init.normal_(classifier.get_parameter("classes.weight"), std=CLASS_DEVIATION)
