"""Any timm backbone that gives features at strides 4 and 16; timm is optional."""

from __future__ import annotations

import difflib
import importlib
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from network.backbone.base import Backbone, Feature, checkpointed
from network.weights import ADVICE, load_into, read_weights

_LOW_LEVEL_STRIDE = 4
_TAPS = ("low_level", "aux", "out")


class TimmBackbone(Backbone):
    """A timm ``features_only`` network whose three outputs are the features.

    Args:
        net: returns the maps of ``low_level``, ``aux`` and ``out`` in a list.
        features: layer and channels of the three, in that order.
        dropout: see ``Backbone``.
        checkpoint_activations: see ``Backbone``; the whole network is one stage here.
    """

    def __init__(
        self,
        net: Any,
        features: dict[str, Feature],
        *,
        dropout: float = 0.0,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__(features, dropout=dropout, checkpoint_activations=checkpoint_activations)
        self.net = net
        self._channels_last = str(getattr(net, "output_fmt", "NCHW")).endswith("NHWC")
        if dropout > 0:
            for stage in _stage_modules(net):
                stage.register_forward_hook(self._drop)

    def _drop(self, _stage: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return self.dropout(output)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Features of normalised images (N, 3, H, W), each (N, channels, h, w)."""
        if self.checkpoint_activations and torch.is_grad_enabled():
            maps = checkpointed(self.net, images, (self.net,))
        else:
            maps = self.net(images)
        if self._channels_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        return dict(zip(self.taps, maps, strict=True))


class _Selection(NamedTuple):
    """Which of a network's maps are used, and whether it is built dilated."""

    indices: list[int]
    dilated: bool


def build_timm_backbone(
    name: str | None,
    output_stride: int,
    *,
    pretrained: str = "none",
    dropout: float = 0.0,
    checkpoint_activations: bool = False,
) -> TimmBackbone:
    """Build a backbone of the timm library.

    Networks that can be dilated end at the output stride; of the others the stages beyond stride
    16 are left out.

    Args:
        name: a model of timm, such as ``convnext_tiny``.
        output_stride: 8 or 16.
        pretrained: ``none``, ``imagenet`` (timm's own weights) or a file of that model's weights.
        dropout: see ``Backbone``.
        checkpoint_activations: see ``Backbone``.

    Raises:
        ValueError: if timm is absent, the name missing or unknown, a stride not offered, or the
            weights cannot be had or do not fit.
    """
    timm = _import_timm()
    name = _known_name(timm, name)
    selection = _select(timm, name, output_stride)
    options: dict[str, Any] = {"output_stride": output_stride} if selection.dilated else {}
    if pretrained not in ("none", "imagenet"):
        options["pretrained_cfg_overlay"] = {"state_dict": _checked_weights(timm, name, pretrained)}
    try:
        net = timm.create_model(
            name,
            features_only=True,
            out_indices=selection.indices,
            pretrained=pretrained != "none",
            **options,
        )
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"--backbone {name}: cannot get timm's ImageNet weights ({error}); {ADVICE}"
        ) from error
    info = net.feature_info
    features = {
        tap: Feature(layer, channels)
        for tap, layer, channels in zip(_TAPS, info.module_name(), info.channels(), strict=True)
    }
    return TimmBackbone(
        net, features, dropout=dropout, checkpoint_activations=checkpoint_activations
    )


def _import_timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ValueError(
            "--model deeplabv3plus_timm needs the optional package timm: pip install timm"
        ) from error


def _known_name(timm: Any, name: str | None) -> str:
    if name is None:
        raise ValueError(
            "--model deeplabv3plus_timm needs --backbone NAME, such as --backbone convnext_tiny"
        )
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"--backbone {name}: timm {timm.__version__} has no such model{hint}")
    return name


def _select(timm: Any, name: str, output_stride: int) -> _Selection:
    """Choose the last map at stride 4, the last at the output stride and the one before it."""
    net, dilated = _probe(timm, name, output_stride)
    indices, strides = list(net.feature_info.out_indices), list(net.feature_info.reduction())
    wanted = (_LOW_LEVEL_STRIDE, output_stride)
    if not set(wanted) <= set(strides) or strides[-1] == output_stride == strides[0]:
        raise ValueError(
            f"--backbone {name} offers strides {sorted(set(strides))}; deeplabv3plus_timm needs "
            f"{_LOW_LEVEL_STRIDE} and {output_stride}"
        )
    if net.pretrained_cfg.get("fixed_input_size"):
        height, width = net.pretrained_cfg["input_size"][-2:]
        raise ValueError(
            f"--backbone {name} takes images of {height}x{width} pixels only; choose one that "
            f"takes any size, such as convnext_tiny"
        )
    if not dilated and output_stride < 16:
        raise ValueError(
            f"--backbone {name} cannot be dilated to output stride {output_stride}: "
            f"pass --output_stride 16"
        )
    low_level, out = (len(strides) - 1 - strides[::-1].index(stride) for stride in wanted)
    return _Selection([indices[low_level], indices[out - 1], indices[out]], dilated)


def _probe(timm: Any, name: str, output_stride: int) -> tuple[Any, bool]:
    """The network with all its maps, and whether it takes an output stride."""
    # How timm's networks without dilation answer.
    with suppress(TypeError, AssertionError, NotImplementedError, RuntimeError):
        return timm.create_model(name, features_only=True, output_stride=output_stride), True
    try:
        return timm.create_model(name, features_only=True), False
    except (TypeError, AttributeError, RuntimeError, NotImplementedError) as error:
        raise ValueError(
            f"--backbone {name}: timm gives no feature maps for it ({error})"
        ) from error


def _checked_weights(timm: Any, name: str, path: str) -> dict[str, Tensor]:
    """A file's weights, after they filled the whole model: timm's own loading skips misfits."""
    model = timm.create_model(name, num_classes=0)
    classifier = model.default_cfg.get("classifier") or ()
    prefixes = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    load_into(
        model,
        read_weights(path),
        rename=lambda key: None if key.startswith(tuple(f"{p}." for p in prefixes)) else key,
        source=path,
        architecture=name,
    )
    return model.state_dict()


def _stage_modules(net: nn.Module) -> list[nn.Module]:
    """The modules that end the stages, up to the last used one."""
    info: Any = net.feature_info
    last = max(info.out_indices)
    by_name = dict(net.named_modules())
    stages = []
    for stage in info.info[: last + 1]:
        name = stage["module"]
        found = (
            by_name.get(name) or by_name.get(name.replace(".", "_")) or by_name.get(f"model.{name}")
        )
        if found is None:
            raise ValueError(
                f"--dropout is not offered with this --backbone: its stage {name} cannot be found "
                f"in timm's {type(net).__name__}"
            )
        stages.append(found)
    return stages
