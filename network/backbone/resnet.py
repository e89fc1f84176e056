"""torchvision's ResNets with dilated last stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torchvision import models

from network.backbone.base import Backbone, Feature

_DILATED = {8: [False, True, True], 16: [False, False, True]}  # of layer2, layer3, layer4


class ResNet(Backbone):
    """ResNet50 or ResNet101 without its classifier, under torchvision's parameter names.

    Args:
        name: ``resnet50`` or ``resnet101``.
        features: see ``Backbone``.
        output_stride: 16 dilates layer4, 8 layer3 too.
        options: ``dropout`` and ``checkpoint_activations`` of ``Backbone``.
    """

    def __init__(
        self, name: str, features: Mapping[str, Feature], output_stride: int, **options: Any
    ) -> None:
        super().__init__(features, **options)
        net = models.get_model(
            name, weights=None, replace_stride_with_dilation=_DILATED[output_stride]
        )
        self.conv1 = net.conv1
        self.bn1 = net.bn1
        self.relu = net.relu
        self.maxpool = net.maxpool
        self.layer1 = net.layer1
        self.layer2 = net.layer2
        self.layer3 = net.layer3
        self.layer4 = net.layer4

    def stages(self) -> Sequence[tuple[str, Sequence[nn.Module]]]:
        """The stem with layer1, then the other layers."""
        return (
            ("layer1", (self.conv1, self.bn1, self.relu, self.maxpool, self.layer1)),
            ("layer2", (self.layer2,)),
            ("layer3", (self.layer3,)),
            ("layer4", (self.layer4,)),
        )


def published_name(name: str) -> str | None:
    """From torchvision's name to the backbone's, None for the classifier."""
    return None if name.startswith("fc.") else name
