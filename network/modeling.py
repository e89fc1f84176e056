"""Every segmentation model by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn

from network.backbone import BACKBONES, Backbone, build_backbone
from network.backbone.base import BATCH_NORMS
from network.backbone.timm_features import build_timm_backbone
from network.cam import CamNetwork
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
from network.pspnet import FCNHead, PSPHead
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
    "pspnet": "PSPNet with an auxiliary head, output stride {stride},",
    "cam": "classifier with class activation maps",
}
_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}  # of the pyramid pooling, by output stride
TIMM = "timm"
WIDE = "wideresnet38"
STRIDED_WIDE = "resnet38d"
CAFFE = "resnet101_caffe"
TWO_HEADS = "deeplab_multi"  # PSPNet's is the other main head that always has a second beside it
PSPNET = "pspnet"
CAM = "cam"
_PSPNET_STRIDE = 8
_CAM_DROPOUT = {STRIDED_WIDE: 0.5}  # of channels before the class head, by backbone; else 0
Network = SegmentationModel | CamNetwork


class ModelSpec(NamedTuple):
    """A model: one of ``_HEAD_TITLES``, and one of ``BACKBONES`` or ``timm``."""

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
MODELS |= {
    f"{PSPNET}_{backbone}": ModelSpec(PSPNET, backbone)
    for backbone in BACKBONES
    if backbone not in (WIDE, STRIDED_WIDE, CAFFE)
} | {
    f"{PSPNET}_{WIDE}": ModelSpec(PSPNET, STRIDED_WIDE),
    **{f"{CAM}_{backbone}": ModelSpec(CAM, backbone) for backbone in BACKBONES},
}
PSPNET_MODELS = frozenset(name for name, spec in MODELS.items() if spec.head == PSPNET)
CAM_MODELS = frozenset(name for name, spec in MODELS.items() if spec.head == CAM)
# Flag values that suit a model: PSPNet's auxiliary head serves its training alone.
MODEL_DEFAULTS: dict[str, dict[str, Any]] = {
    name: {"output_stride": _PSPNET_STRIDE, "lambda_seg": 0.4, "fuse_heads": "main"}
    for name in PSPNET_MODELS
}
TWO_HEADED = PSPNET_MODELS | {name for name, spec in MODELS.items() if spec.head == TWO_HEADS}


def describe(name: str) -> str:
    """One line on a model, for ``--list models``."""
    head, backbone = MODELS[name]
    if backbone == TIMM:
        return f"{_HEAD_TITLES[head]} on any timm backbone with strides 4 and 16: --backbone NAME"
    title = _HEAD_TITLES[head].format(stride=4 if backbone.startswith("hrnet") else _PSPNET_STRIDE)
    return f"{title} on {BACKBONES[backbone].title}"


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
    freeze_bn: bool = False,
    background: int | None = None,
) -> Network:
    """Build a model by name.

    Only ``separable_conv``, ``head`` and ``pyramid`` change its state-dict keys; a class activation
    network (``CAM_MODELS``) has no such parts, and does not read them.

    Args:
        name: a key of ``MODELS``.
        num_classes: number of output channels.
        output_stride: 8 or 16, the ratio of the image's size to that of ``out``; HRNet's is 4, that
            of the wide ResNets, the Caffe network and PSPNet 8 whatever is asked for.
        pretrained_backbone: ``imagenet`` (True), ``none`` (False), or a file with published names.
        separable_conv: depthwise and pointwise convolutions in the head.
        dropout: probability of dropout after each stage of the backbone, in training mode.
        backbone: the timm name, for ``deeplabv3plus_timm`` only.
        bn_momentum: of the backbone's batch norms.
        checkpoint_activations: make the backbone's maps twice: less memory, more time.
        head: how the penultimate features become logits; an auxiliary head is linear.
        pyramid: adds an auxiliary head to the model. Those of ``TWO_HEADED`` always have one: the
            Caffe network with a main head like it, where None is the default, and PSPNet an FCN
            head that these options do not concern.
        freeze_bn: keep the backbone's batch norms in evaluation mode (mmsegmentation's norm_eval).
        background: the class "background" of a class activation network, None where there is none.

    Raises:
        ValueError: if a value is wrong, or the weights cannot be had or do not fit.
    """
    _check(name, num_classes, output_stride, dropout, backbone)
    spec = MODELS[name]
    if spec.head == PSPNET:
        output_stride = _PSPNET_STRIDE
    options = {"dropout": dropout, "checkpoint_activations": checkpoint_activations}
    features = _features(spec, backbone, output_stride, pretrained_backbone, options)
    set_bn_momentum(features, bn_momentum)
    if spec.head == CAM:
        if freeze_bn:
            raise ValueError(f"--norm_eval is of segmentation models; {name} has --cam_norm")
        dropped = _CAM_DROPOUT.get(spec.backbone, 0.0)
        return CamNetwork(features, num_classes, background=background, dropout=dropped)
    channels = {tap: feature.channels for tap, feature in features.taps.items()}
    heads = _heads(spec, channels, num_classes, output_stride, head, pyramid)
    if separable_conv:
        for part in heads:
            convert_to_separable_conv(part)
    return SegmentationModel(features, *heads, freeze_bn=freeze_bn)


def _features(
    spec: ModelSpec,
    timm_name: str | None,
    output_stride: int,
    pretrained: str | bool,
    options: Mapping[str, Any],
) -> Backbone:
    """The backbone of a model; ``options`` are keywords of both kinds of backbone."""
    if isinstance(pretrained, bool):  # as the published functions take it
        pretrained = "imagenet" if pretrained else "none"
    own = {**options, "pretrained": pretrained}
    if spec.backbone == TIMM:
        return build_timm_backbone(timm_name, output_stride, **own)
    return build_backbone(spec.backbone, output_stride, classifier=spec.head == CAM, **own)


def _heads(
    spec: ModelSpec,
    channels: Mapping[str, int],
    num_classes: int,
    output_stride: int,
    head: HeadOptions,
    pyramid: PyramidOptions | None,
) -> list[SegmentationHead]:
    """The main head of a segmentation model and, where there is one, the auxiliary head."""
    if spec.head == PSPNET:
        return [PSPHead(channels, num_classes, head), FCNHead(channels, num_classes)]
    classifier: SegmentationHead
    if spec.head == TWO_HEADS:
        pyramid = pyramid or PyramidOptions()
        classifier = main_head(channels, num_classes, pyramid, head)
    else:
        fixed = None if spec.backbone == TIMM else BACKBONES[spec.backbone].pyramid_stride
        classifier = HEADS[spec.head](channels, num_classes, _RATES[fixed or output_stride], head)
    if pyramid is None:
        return [classifier]
    return [classifier, auxiliary_head(channels, num_classes, pyramid, classifier)]


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


def _named(name: str) -> Callable[..., Network]:
    def build(
        num_classes: int = 21, output_stride: int = 8, pretrained_backbone: str | bool = True
    ) -> Network:
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
