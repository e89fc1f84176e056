"""ResNet-101 in the layout of the Caffe networks (He et al. 2016), dilated to output stride 8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from network.backbone.base import Feature
from network.backbone.resnet import ResNet

NORMALISATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of images: RGB mean, deviation
MEAN_PIXEL = (104.00698793, 116.66876762, 122.67891434)  # that the weights know: BGR, 0 to 255
_DILATIONS = {"layer3": 2, "layer4": 4}
# AdaptSegNet's address, from which MRNet's code starts, too
WEIGHTS = "http://vllab.ucmerced.edu/ytsai/CVPR18/DeepLab_resnet_pretrained_init-f81d91e8.pth"


class CaffeColours(nn.Module):
    """From images as this project normalises them to BGR of 0 to 255 minus the mean pixel.

    It has neither parameters nor buffers: the factors are part of the program.
    """

    def __init__(self) -> None:
        super().__init__()
        bgr = zip(*(reversed(values) for values in NORMALISATION), MEAN_PIXEL, strict=True)
        self.lines = [(255 * deviation, 255 * mean - pixel) for mean, deviation, pixel in bgr]

    def forward(self, images: Tensor) -> Tensor:
        """RGB images (N, 3, H, W), minus mean and over deviation, to BGR, not divided."""
        channels = images.flip(1).split(1, 1)
        return torch.cat(
            [x * scale + shift for x, (scale, shift) in zip(channels, self.lines, strict=True)], 1
        )


class CaffeResNet(ResNet):
    """ResNet-101 without its classifier, under torchvision's (and the published) parameter names.

    It differs from torchvision's in colours, in a max-pool that rounds up, in strides of the first
    1x1 convolution of a block in place of the 3x3 one, and in the first blocks of the dilated
    layers, which are dilated as the others. A side s that 8 divides gives features of s / 8 + 1.

    Args:
        name: ``resnet101``.
        features: see ``Backbone``.
        output_stride: not used, it is 8.
        options: ``dropout`` and ``checkpoint_activations`` of ``Backbone``.
    """

    def __init__(
        self, name: str, features: Mapping[str, Feature], output_stride: int, **options: Any
    ) -> None:
        super().__init__(name, features, 8, **options)
        self.colours = CaffeColours()
        self.maxpool.ceil_mode = True
        first = self.layer2[0]
        first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
        for layer, dilation in _DILATIONS.items():
            conv = self.get_submodule(layer)[0].conv2  # type: ignore[index]
            conv.dilation = conv.padding = (dilation, dilation)

    def stages(self) -> Sequence[tuple[str, Sequence[nn.Module]]]:
        """Those of a ResNet, after the change of colours."""
        (name, stem), *others = super().stages()
        return ((name, (self.colours, *stem)), *others)


def published_name(name: str) -> str | None:
    """From a name in the ImageNet file, or in a segmentation network's, to the backbone's.

    None for what follows layer4.
    """
    name = name.removeprefix("Scale.")
    return None if name.startswith(("fc.", "layer5.", "layer6.")) else name
