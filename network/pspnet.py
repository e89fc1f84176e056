"""PSPNet (Zhao et al. 2017) with its auxiliary head, as mmsegmentation publishes it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation

from network.deeplab import SegmentationHead
from network.heads import PLAIN, HeadOptions

POOL_SIDES = (1, 2, 3, 6)
CHANNELS = 512
AUXILIARY_CHANNELS = 256
DROP_RATE = 0.1  # of channels before the classes, in training mode
CLASS_DEVIATION = 0.01  # of the class weights as drawn

# How names of the published network begin and what takes that place; the backbone's are ours.
_PUBLISHED = {
    f"{published}.{part}.": f"{own}.{index}."
    for (published, own), (index, part) in product(
        (
            *(
                (f"decode_head.psp_modules.{n}.1", f"classifier.classifier.pyramid.branches.{n}")
                for n in range(len(POOL_SIDES))
            ),
            ("decode_head.bottleneck", "classifier.classifier.bottleneck"),
            ("auxiliary_head.convs.0", "aux_classifier.classifier.convs"),
        ),
        enumerate(("conv", "bn")),
    )
} | {
    "decode_head.conv_seg.": "classifier.classifier.classes.",
    "auxiliary_head.conv_seg.": "aux_classifier.classifier.classes.",
}
_ONLY_THERE = "decode_head.psp_modules.0.1.conv.weight"  # by this name the network is known


class PyramidPooling(nn.Module):
    """The input and its means over a grid of 1, 4, 9 and 36 cells, each of these reduced.

    (N, in, h, w) to (N, in + 4 * 512, h, w).

    Args:
        in_channels: channels of the input.
        align_corners: of the upsampling.
    """

    def __init__(self, in_channels: int, *, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(
            Conv2dNormActivation(in_channels, CHANNELS, 1) for _ in POOL_SIDES
        )

    def forward(self, x: Tensor) -> Tensor:
        """The input, then the branches from the coarsest grid to the finest."""
        size = x.shape[-2:]
        pooled = [
            F.interpolate(
                branch(F.adaptive_avg_pool2d(x, side)),
                size=size,
                mode="bilinear",
                align_corners=self.align_corners,
            )
            for side, branch in zip(POOL_SIDES, self.branches, strict=True)
        ]
        return torch.cat([x, *pooled], dim=1)


class PSPHead(SegmentationHead):
    """Pyramid pooling of ``out``, a 3x3 convolution to 512 channels, the classes.

    The penultimate features (N, 512, h, w) are not negative.

    Args:
        channels: channels of the backbone's features by name.
        num_classes: number of output channels.
        head: how the last features become logits.
    """

    def __init__(
        self, channels: Mapping[str, int], num_classes: int, head: HeadOptions = PLAIN
    ) -> None:
        super().__init__()
        joined = channels["out"] + len(POOL_SIDES) * CHANNELS
        self.classifier = nn.Sequential(
            OrderedDict(
                pyramid=PyramidPooling(channels["out"], align_corners=self.align_corners),
                bottleneck=Conv2dNormActivation(joined, CHANNELS, 3),
                dropout=nn.Dropout2d(DROP_RATE),
                classes=head.class_head(CHANNELS, num_classes, align_corners=self.align_corners),
            )
        )
        init_psp(self.classifier)
        self.temperature = head.temperature_layer(CHANNELS, align_corners=self.align_corners)

    def classifier_input(self, features: Mapping[str, Tensor]) -> Tensor:
        """The last feature."""
        return features["out"]


class FCNHead(SegmentationHead):
    """A 3x3 convolution of ``aux`` to 256 channels and linear classes: PSPNet's auxiliary head.

    Args:
        channels: channels of the backbone's features by name.
        num_classes: number of output channels.
    """

    temperature = None

    def __init__(self, channels: Mapping[str, int], num_classes: int) -> None:
        super().__init__()
        width = AUXILIARY_CHANNELS
        self.classifier = nn.Sequential(
            OrderedDict(
                convs=Conv2dNormActivation(channels["aux"], width, 3),
                dropout=nn.Dropout2d(DROP_RATE),
                classes=PLAIN.class_head(width, num_classes, align_corners=self.align_corners),
            )
        )
        init_psp(self.classifier)

    def classifier_input(self, features: Mapping[str, Tensor]) -> Tensor:
        """The feature of the stage before the last."""
        return features["aux"]


def init_psp(classifier: nn.Sequential) -> None:
    """Draw a head's weights, in place.

    Convolutions are Kaiming-normal (fan-out), class weights N(0, 0.01^2) with bias 0, as published;
    norms are the identity.
    """
    for module in classifier.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    classes = classifier.get_submodule("classes")
    assert isinstance(classes, nn.Conv2d)
    nn.init.normal_(classes.weight, std=CLASS_DEVIATION)
    if classes.bias is not None:
        nn.init.zeros_(classes.bias)


def published_name(name: str) -> str | None:
    """From a name in mmsegmentation's file of a PSPNet to ours, None for another name."""
    for published, own in _PUBLISHED.items():
        if name.startswith(published):
            return own + name.removeprefix(published)
    return None


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of mmsegmentation's file of a PSPNet under our names.

    A state of another network, without the published pyramid, stays as it is; so do names that the
    published network has not, for the check that the state fits.
    """
    if _ONLY_THERE not in state:
        return dict(state)
    return {published_name(name) or name: value for name, value in state.items()}
