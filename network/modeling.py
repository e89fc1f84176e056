"""Every segmentation model by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from network.backbone import BACKBONES, Backbone, build_backbone
from network.backbone.base import BATCH_NORMS
from network.backbone.timm_features import build_timm_backbone
from network.deeplab import (
    DeepLabHeadV3,
    DeepLabHeadV3Plus,
    SegmentationHead,
    SegmentationModel,
    convert_to_separable_conv,
)
from network.deeplab_multi import auxiliary_head, main_head
from network.deepwv3plus import DeepWV3PlusHead
from network.heads import PLAIN, HeadOptions
from network.pyramid_head import PyramidOptions

HEADS: dict[str, type[SegmentationHead]] = {
    "deeplabv3": DeepLabHeadV3,
    "deeplabv3plus": DeepLabHeadV3Plus,
    "deepwv3plus": DeepWV3PlusHead,
}
_HEAD_TITLES = {
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3+",
    "deepwv3plus": "DeepLabV3+ as DeepWV3Plus, output stride 8,",
    "deeplab_multi": "DeepLab with a main and an auxiliary head (MRNet), output stride 8,",
}
_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}  # of the pyramid pooling, by output stride
TIMM = "timm"
WIDE = "wideresnet38"
CAFFE = "resnet101_caffe"
TWO_HEADS = "deeplab_multi"  # the head that always has another one beside it


class ModelSpec(NamedTuple):
    """A model: a key of ``HEADS`` or ``deeplab_multi``, and one of ``BACKBONES`` or ``timm``."""

    head: str
    backbone: str


MODELS: dict[str, ModelSpec] = {
    f"{head}_{backbone}": ModelSpec(head, backbone)
    for head in ("deeplabv3", "deeplabv3plus")
    for backbone in BACKBONES
    if backbone not in (WIDE, CAFFE)
} | {
    "deeplabv3plus_wideresnet38": ModelSpec("deepwv3plus", WIDE),
    "deeplabv3plus_timm": ModelSpec("deeplabv3plus", TIMM),
    "deeplab_multi_resnet101": ModelSpec(TWO_HEADS, CAFFE),
}
TWO_HEADED = frozenset(name for name, spec in MODELS.items() if spec.head == TWO_HEADS)


def describe(name: str) -> str:
    """One line on a model, for ``--list models``."""
    head, backbone = MODELS[name]
    if backbone == TIMM:
        return f"{_HEAD_TITLES[head]} on any timm backbone with strides 4 and 16: --backbone NAME"
    return f"{_HEAD_TITLES[head]} on {BACKBONES[backbone].title}"


def build_model(  # noqa: PLR0913 - an argument per flag
    name: str,
    num_classes: int,
    *,
    output_stride: int = 16,
    pretrained_backbone: str | bool = "none",
    separable_conv: bool = False,
    dropout: float = 0.0,
    backbone: str | None = None,
    bn_momentum: float = 0.01,
    checkpoint_activations: bool = False,
    head: HeadOptions = PLAIN,
    pyramid: PyramidOptions | None = None,
) -> SegmentationModel:
    """Build a model by name.

    Only ``separable_conv``, ``head`` and ``pyramid`` change its state-dict keys.

    Args:
        name: a key of ``MODELS``.
        num_classes: number of output channels.
        output_stride: 8 or 16, the ratio of the image's size to that of ``out``; HRNet's is 4,
            WideResNet38's and the Caffe network's 8 whatever is asked for.
        pretrained_backbone: ``imagenet`` (or True), ``none`` (or False), or a file of weights
            under their published names.
        separable_conv: depthwise and pointwise convolutions in the head.
        dropout: probability of dropout after each stage of the backbone, in training mode.
        backbone: the timm name, for ``deeplabv3plus_timm`` only.
        bn_momentum: of the backbone's batch norms.
        checkpoint_activations: recompute the backbone's stages in the backward pass, which saves
            memory and costs time.
        head: how the penultimate features become logits; an auxiliary head is linear.
        pyramid: adds an auxiliary head to the model. Those of ``TWO_HEADED`` always have one, and
            a main head like it; None is the default there.

    Raises:
        ValueError: if a value is wrong, or the weights cannot be had or do not fit.
    """
    _check(name, num_classes, output_stride, dropout, backbone)
    spec = MODELS[name]
    if isinstance(pretrained_backbone, bool):  # as the published functions take it
        pretrained_backbone = "imagenet" if pretrained_backbone else "none"
    options: dict[str, Any] = {
        "pretrained": pretrained_backbone,
        "dropout": dropout,
        "checkpoint_activations": checkpoint_activations,
    }
    features: Backbone
    if spec.backbone == TIMM:
        features = build_timm_backbone(backbone, output_stride, **options)
    else:
        features = build_backbone(spec.backbone, output_stride, **options)
    set_bn_momentum(features, bn_momentum)
    channels = {tap: feature.channels for tap, feature in features.taps.items()}
    classifier: SegmentationHead
    if spec.head == TWO_HEADS:
        pyramid = pyramid or PyramidOptions()
        classifier = main_head(channels, num_classes, pyramid, head)
    else:
        fixed = None if spec.backbone == TIMM else BACKBONES[spec.backbone].pyramid_stride
        classifier = HEADS[spec.head](channels, num_classes, _RATES[fixed or output_stride], head)
    heads = [classifier]
    if pyramid is not None:
        heads.append(auxiliary_head(channels, num_classes, pyramid, classifier))
    if separable_conv:
        for part in heads:
            convert_to_separable_conv(part)
    return SegmentationModel(features, *heads)


def set_bn_momentum(module: nn.Module, momentum: float) -> None:
    """Set the momentum of every batch norm inside, in place."""
    for part in module.modules():
        if isinstance(part, BATCH_NORMS):
            part.momentum = momentum


def _check(
    name: str, num_classes: int, output_stride: int, dropout: float, backbone: str | None
) -> None:
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=3) or list(MODELS)
        raise ValueError(f"--model {name} is unknown; nearest: {', '.join(near)}")
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}; a model needs at least 1")
    if output_stride not in _RATES:
        raise ValueError(f"--output_stride {output_stride} is not offered; choose 8 or 16")
    if not 0 <= dropout < 1:
        raise ValueError(f"--dropout {dropout} is not a probability in [0, 1)")
    if backbone is not None and MODELS[name].backbone != TIMM:
        raise ValueError(
            f"--backbone {backbone} needs --model deeplabv3plus_timm; {name} has its own backbone"
        )


def _named(name: str) -> Callable[..., SegmentationModel]:
    def build(
        num_classes: int = 21, output_stride: int = 8, pretrained_backbone: str | bool = True
    ) -> SegmentationModel:
        return build_model(
            name,
            num_classes,
            output_stride=output_stride,
            pretrained_backbone=pretrained_backbone,
        )

    build.__name__ = name
    build.__doc__ = f"{describe(name)}; see ``build_model`` for the arguments."
    return build


deeplabv3_resnet50 = _named("deeplabv3_resnet50")
deeplabv3_resnet101 = _named("deeplabv3_resnet101")
deeplabv3_mobilenet = _named("deeplabv3_mobilenet")
deeplabv3_xception = _named("deeplabv3_xception")
deeplabv3_hrnetv2_32 = _named("deeplabv3_hrnetv2_32")
deeplabv3_hrnetv2_48 = _named("deeplabv3_hrnetv2_48")
deeplabv3plus_resnet50 = _named("deeplabv3plus_resnet50")
deeplabv3plus_resnet101 = _named("deeplabv3plus_resnet101")
deeplabv3plus_mobilenet = _named("deeplabv3plus_mobilenet")
deeplabv3plus_xception = _named("deeplabv3plus_xception")
deeplabv3plus_hrnetv2_32 = _named("deeplabv3plus_hrnetv2_32")
deeplabv3plus_hrnetv2_48 = _named("deeplabv3plus_hrnetv2_48")
deeplabv3plus_wideresnet38 = _named("deeplabv3plus_wideresnet38")
deeplab_multi_resnet101 = _named("deeplab_multi_resnet101")
