"""Backbones by name: how each is built, what its features are and where weights come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn
from torchvision import models

from network.backbone import (
    hrnetv2,
    mobilenetv2,
    res2net,
    resnet,
    resnet38,
    resnet_caffe,
    scalenet,
    wideresnet,
    xception,
)
from network.backbone.base import Backbone, Feature
from network.weights import ADVICE, download_weights, load_into, read_weights

__all__ = ["BACKBONES", "FEATURES", "Backbone", "BackboneSpec", "Feature", "build_backbone"]

_RESNET = {
    "low_level": Feature("layer1", 256),
    "middle": Feature("layer2", 512),
    "aux": Feature("layer3", 1024),
    "out": Feature("layer4", 2048),
}
# middle is the stage before aux, and aux the one before the last, of ResNet-38d one earlier, as
# published; HRNet's are the branch of the highest resolution
FEATURES: dict[str, dict[str, Feature]] = {
    "resnet50": _RESNET,
    "resnet101": _RESNET,
    "resnet101_caffe": _RESNET,
    "res2net101": _RESNET,
    "scalenet101": _RESNET,
    "mobilenet": {
        "low_level": Feature("features.3", 24),
        "middle": Feature("features.6", 32),
        "aux": Feature("features.13", 96),
        "out": Feature("features.17", 320),
    },
    "xception": {
        "low_level": Feature("block1", 128),
        "middle": Feature("block3", 728),
        "aux": Feature("block11", 728),
        "out": Feature("conv4", 2048),
    },
    "hrnetv2_32": {
        "low_level": Feature("layer1", 256),
        "middle": Feature("stage2", 32),
        "aux": Feature("stage3", 32),
        "out": Feature("stage4", 15 * 32),
    },
    "hrnetv2_48": {
        "low_level": Feature("layer1", 256),
        "middle": Feature("stage2", 48),
        "aux": Feature("stage3", 48),
        "out": Feature("stage4", 15 * 48),
    },
    "wideresnet38": {
        "low_level": Feature("mod2", 128),
        "middle": Feature("mod5", 1024),
        "aux": Feature("mod6", 2048),
        "out": Feature("mod7", 4096),
    },
    "resnet38d": {
        "low_level": Feature("b3", 256),
        "middle": Feature("b4", 512),
        "aux": Feature("b5", 1024),
        "out": Feature("b7", 4096),
    },
}


class BackboneSpec(NamedTuple):
    """One backbone.

    Attributes:
        title: its published name.
        build: the class, called with ``architecture``, the features and the output stride.
        architecture: the name that ``build`` knows it by.
        published_name: from a name in a file of ImageNet weights to the backbone's.
        url: of the ImageNet weights, None where no stable address is known.
        pyramid_stride: output stride whose rates the pyramid pooling takes; None for the one that
            is asked for.
        classifier: the architecture of a classifier of class activation maps, where it differs.
    """

    title: str
    build: Callable[..., Backbone]
    architecture: str
    published_name: Callable[[str], str | None]
    url: str | None = None
    pyramid_stride: int | None = None
    classifier: str | None = None


BACKBONES: dict[str, BackboneSpec] = {
    "resnet50": BackboneSpec(
        "ResNet-50",
        resnet.ResNet,
        "resnet50",
        resnet.published_name,
        models.ResNet50_Weights.IMAGENET1K_V1.url,
    ),
    "resnet101": BackboneSpec(
        "ResNet-101",
        resnet.ResNet,
        "resnet101",
        resnet.published_name,
        models.ResNet101_Weights.IMAGENET1K_V1.url,
    ),
    "resnet101_caffe": BackboneSpec(
        "ResNet-101 as of Caffe",
        resnet_caffe.CaffeResNet,
        "resnet101",
        resnet_caffe.published_name,
        resnet_caffe.WEIGHTS,
        pyramid_stride=8,
    ),
    "mobilenet": BackboneSpec(
        "MobileNetV2",
        mobilenetv2.MobileNetV2,
        "mobilenet_v2",
        mobilenetv2.published_name,
        models.MobileNet_V2_Weights.IMAGENET1K_V1.url,
    ),
    "xception": BackboneSpec(
        "Xception",
        xception.Xception,
        "xception",
        xception.published_name,
        "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/"
        "xception-43020ad28.pth",
    ),
    "hrnetv2_32": BackboneSpec(
        "HRNetV2-W32", hrnetv2.HRNetV2, "hrnetv2_32", hrnetv2.published_name, pyramid_stride=8
    ),
    "hrnetv2_48": BackboneSpec(
        "HRNetV2-W48", hrnetv2.HRNetV2, "hrnetv2_48", hrnetv2.published_name, pyramid_stride=8
    ),
    "wideresnet38": BackboneSpec(
        "WideResNet-38",
        wideresnet.WideResNet38,
        "wideresnet38",
        wideresnet.published_name,
        pyramid_stride=8,
    ),
    "res2net101": BackboneSpec(
        "Res2Net-101 v1b",
        res2net.Res2Net,
        "res2net101",
        resnet.published_name,
        "https://shanghuagao.oss-cn-beijing.aliyuncs.com/res2net/"
        "res2net101_v1b_26w_4s-0812c246.pth",
    ),
    "scalenet101": BackboneSpec(
        "ScaleNet-101",
        scalenet.ScaleNet,
        "scalenet101",
        resnet.published_name,
        classifier="scalenet101_undilated",
    ),
    "resnet38d": BackboneSpec(
        "ResNet-38d, a WideResNet-38",
        resnet38.ResNet38,
        "resnet38d",
        resnet38.published_name,
        pyramid_stride=8,
        classifier="resnet38d_classifier",
    ),
}


def build_backbone(
    name: str,
    output_stride: int,
    *,
    pretrained: str = "none",
    dropout: float = 0.0,
    checkpoint_activations: bool = False,
    classifier: bool = False,
) -> Backbone:
    """Build a backbone, with random or ImageNet weights.

    Args:
        name: a key of ``BACKBONES``.
        output_stride: 8 or 16; HRNet's is 4, the wide ResNets' and the Caffe network's 8
            whatever is asked for.
        pretrained: ``none``, ``imagenet`` or the path of a file.
        dropout: see ``Backbone``.
        checkpoint_activations: see ``Backbone``.
        classifier: dilated as the published classifiers of class activation maps are.

    Raises:
        ValueError: if the weights cannot be had or do not fit.
    """
    spec = BACKBONES[name]
    architecture = (spec.classifier if classifier else None) or spec.architecture
    backbone = spec.build(
        architecture,
        FEATURES[name],
        output_stride,
        dropout=dropout,
        checkpoint_activations=checkpoint_activations,
    )
    if pretrained != "none":
        _load_pretrained(backbone, spec, pretrained)
    return backbone


def _load_pretrained(backbone: nn.Module, spec: BackboneSpec, pretrained: str) -> None:
    if pretrained != "imagenet":
        weights, source = read_weights(pretrained), pretrained
    elif spec.url is None:
        raise ValueError(
            f"--pretrained_backbone imagenet: no address is known for the ImageNet weights of "
            f"{spec.title}; {ADVICE}"
        )
    else:
        weights, source = download_weights(spec.url), spec.url
    load_into(
        backbone,
        weights,
        rename=spec.published_name,
        source=source,
        architecture=spec.title,
    )
