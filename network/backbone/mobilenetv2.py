"""torchvision's MobileNetV2 with dilation and the padding of the DeepLab project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torchvision import models

from network.backbone.base import Backbone, Feature
from network.backbone.depthwise import DepthwiseConv2d

_STAGE_STARTS = (1, 2, 4, 7, 11, 14, 17)  # first block of each row of the paper's table 2
_STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)


def _adapt(block: Any, stride: int, dilation: int) -> None:
    """Pad the block's input, not its depthwise convolution, which is strided and dilated.

    A padded 1x1 convolution without bias equals the same convolution on a zero-padded input, so
    the border costs no copy. The shortcut adds the unpadded input by itself.
    """
    depthwise = block.conv[-3]
    depthwise[0] = DepthwiseConv2d(depthwise[0].weight, stride, dilation)
    block.conv[0][0].padding = (dilation, dilation)  # without expansion, the depthwise itself


class MobileNetV2(Backbone):
    """MobileNetV2 without its last 1x1 convolution.

    Args:
        name: ``mobilenet_v2``.
        features: see ``Backbone``.
        output_stride: 8 or 16; stages that would go beyond are dilated instead.
        options: ``dropout`` and ``checkpoint_activations`` of ``Backbone``.
    """

    smallest_input = 3  # the stem is not padded

    def __init__(
        self, name: str, features: Mapping[str, Feature], output_stride: int, **options: Any
    ) -> None:
        super().__init__(features, **options)
        layers = models.get_model(name, weights=None).features
        layers[0][0].padding = (0, 0)
        running, dilation = 2, 1
        for start, end, stage_stride in zip(
            _STAGE_STARTS, (*_STAGE_STARTS[1:], 18), _STAGE_STRIDES, strict=True
        ):
            first_dilation = dilation  # the first block still has the one of the stage before
            stride = stage_stride
            if running == output_stride:
                stride, dilation = 1, dilation * stage_stride
            else:
                running *= stage_stride
            _adapt(layers[start], stride, first_dilation)
            for index in range(start + 1, end):
                _adapt(layers[index], 1, dilation)
        self.low_level_features = layers[:4]
        self.high_level_features = layers[4:18]  # keeps torchvision's indices

    def stages(self) -> Sequence[tuple[str, Sequence[nn.Module]]]:
        """Blocks of one resolution each, named after the last one."""
        low = tuple(self.low_level_features)
        high = tuple(self.high_level_features)
        return (
            ("features.3", low),
            ("features.6", high[:3]),
            ("features.13", high[3:10]),
            ("features.17", high[10:]),
        )


def published_name(name: str) -> str | None:
    """From torchvision's name to the backbone's, None for what follows the last block."""
    if name.startswith(("classifier.", "features.18.")):
        return None
    if not name.startswith("features."):
        return name
    index = name.split(".")[1]
    part = "low" if index in ("0", "1", "2", "3") else "high"
    return f"{part}_level_{name}"
