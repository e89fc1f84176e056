"""The last layers: linear or cosine classes and a learned temperature, from the same features.

AbeT (arXiv 2401.12129): with penultimate features f, class weights w_c and the temperature
T = sigmoid(BN(w_T . f)) + floor, the logits are z_c = g_c / T, where g_c = w_c . f + b_c of a
linear head and g_c = n(w_c) . n(f) of a cosine head, n(v) = v / (|v| + 1e-4).

The published network upsamples f to the size of the image before its heads. Products with weights
commute with that (both are linear), so that C + 1 maps are upsampled instead of all P channels.
The norm does not commute, but the square of the norm of a blend of four neighbours is a quadratic
form in their inner products (``network.upsampling``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from network.upsampling import inner_products, upsample, upsampled_square_norm, wide

NORM_OFFSET = 1e-4  # added to the norms of a cosine head
LEAST_SQUARE = 1e-20  # of a norm, whose root would have no gradient at 0


class LinearHead(nn.Conv2d):
    """One weighted sum of the features a class (``utils.types.ClassHead``).

    Args:
        in_channels: P.
        num_classes: C.
        bias: whether a constant is added to each.
        align_corners: of the upsampling.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, bias: bool = True, align_corners: bool = False
    ) -> None:
        super().__init__(in_channels, num_classes, 1, bias=bias)
        self.align_corners = align_corners
        self.activation_limit: float | None = None
        self.weight_mask: Tensor | None = None

    def forward(self, features: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Features (N, P, h, w) to numerators (N, C, H, W), at the features' size without one."""
        kept = masked(self.weight, self.weight_mask)
        scores = F.conv2d(limited(features, self.activation_limit), kept, self.bias)
        return upsample(scores, size, align_corners=self.align_corners)

    def class_weights(self) -> Tensor:
        """The weights (C, P)."""
        return self.weight.flatten(1)

    def class_features(self, features: Tensor) -> Tensor:
        """The features (N, P, h, w) as they are."""
        return features


class CosineHead(nn.Conv2d):
    """The cosine between features and the weights of each class (``utils.types.ClassHead``).

    It is computed in float32 or wider, and lies in (-1, 1).

    Args:
        in_channels: P.
        num_classes: C.
        align_corners: of the upsampling.
        fast: in training mode the features are normalised before they are upsampled, which is
            cheaper and gives other numbers: neighbours weigh the same whatever their norms, and
            between two of equal norm cosines come out smaller, since |up(f)| <= up(|f|).
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, align_corners: bool = False, fast: bool = False
    ) -> None:
        super().__init__(in_channels, num_classes, 1, bias=False)
        self.align_corners = align_corners
        self.fast = fast
        self.activation_limit: float | None = None
        self.weight_mask: Tensor | None = None

    def forward(self, features: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Features (N, P, h, w) to cosines (N, C, H, W), at the features' size without one."""
        with full_precision(features):
            features = limited(wide(features), self.activation_limit)
            kept = masked(wide(self.class_weights())[..., None, None], self.weight_mask)
            products = F.conv2d(features, kept)
            if size is None or (self.fast and self.training):
                cosines = products / _offset_norm(inner_products(features, features))
                return upsample(cosines, size, align_corners=self.align_corners)
            products = upsample(products, size, align_corners=self.align_corners)
            square = upsampled_square_norm(features, size, align_corners=self.align_corners)
            return divided(products, _offset_norm(square))

    def class_weights(self) -> Tensor:
        """The normalised weights (C, P)."""
        weights = self.weight.flatten(1)
        return weights / (weights.norm(dim=1, keepdim=True) + NORM_OFFSET)

    def class_features(self, features: Tensor) -> Tensor:
        """The normalised features (N, P, h, w)."""
        features = wide(features)
        return features / _offset_norm(inner_products(features, features))


class LearnedTemperature(nn.Module):
    """A temperature of each pixel, sigmoid(BN(w . f)) + floor, in float32 or wider.

    The batch statistics are those of the full-size map, as published.

    Args:
        in_channels: P.
        floor: added to the sigmoid; published: 1e-12, which float32 cannot tell from 0 beside
            a sigmoid that is not tiny itself.
        align_corners: of the upsampling.
    """

    def __init__(
        self, in_channels: int, floor: float = 1e-3, *, align_corners: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(1)
        self.floor = floor
        self.align_corners = align_corners

    def forward(self, features: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Features (N, P, h, w) to temperatures (N, 1, H, W) in (floor, 1 + floor]."""
        with full_precision(features):
            raw = F.conv2d(wide(features), wide(self.conv.weight))
            raw = upsample(raw, size, align_corners=self.align_corners)
            return torch.sigmoid(self.norm(raw)) + self.floor


class HeadOptions(NamedTuple):
    """How features become logits.

    Attributes:
        kind: a key of ``CLASS_HEADS``.
        temperature: one of ``TEMPERATURES``.
        floor: of a learned temperature.
        fast: see ``CosineHead``.
    """

    kind: str = "linear"
    temperature: str = "none"
    floor: float = 1e-3
    fast: bool = False

    def class_head(
        self, in_channels: int, num_classes: int, *, bias: bool = True, align_corners: bool = False
    ) -> LinearHead | CosineHead:
        """The module from features to numerators; ``bias`` concerns a linear one."""
        if self.kind == "cosine":
            return CosineHead(in_channels, num_classes, align_corners=align_corners, fast=self.fast)
        return LinearHead(in_channels, num_classes, bias=bias, align_corners=align_corners)

    def temperature_layer(
        self, in_channels: int, *, align_corners: bool = False
    ) -> LearnedTemperature | None:
        """The module from features to temperatures, if they are learned."""
        if self.temperature == "none":
            return None
        return LearnedTemperature(in_channels, self.floor, align_corners=align_corners)


PLAIN = HeadOptions()

CLASS_HEADS = {
    "linear": "weighted sums of the penultimate features",
    "cosine": "cosines between the penultimate features and each class's weights",
}
TEMPERATURES = {
    "none": "logits as the head gives them",
    "learned": "logits divided by a temperature that each pixel's features decide",
}


def full_precision(features: Tensor) -> AbstractContextManager[object]:
    """Outside autocast on the features' device."""
    kind = features.device.type
    return nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False)


def limited(features: Tensor, limit: float | None) -> Tensor:
    """Features cut to a limit."""
    return features if limit is None else features.clamp(max=limit)


def masked(weights: Tensor, mask: Tensor | None) -> Tensor:
    """Weights (C, P, 1, 1) with those outside a mask (C, P) set to 0."""
    return weights if mask is None else weights * mask[..., None, None]


def divided(maps: Tensor, by: Tensor) -> Tensor:
    """A quotient, in place where no gradient is wanted."""
    return maps / by if torch.is_grad_enabled() else maps.div_(by)


def _offset_norm(square: Tensor) -> Tensor:
    """The norm from its square, plus the constant that keeps it from 0."""
    return square.clamp(min=LEAST_SQUARE).sqrt() + NORM_OFFSET
