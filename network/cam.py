"""Class activation maps and their refinement by the correlation of pixels, as of SEAM.

Wang et al., "Self-supervised Equivariant Attention Mechanism for Weakly Supervised Semantic
Segmentation" (CVPR 2020, arXiv 2004.04581), with the background as a channel of its own, as in
"Pseudo-mask Matters" (ICCV 2021, arXiv 2108.12995).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from network.backbone.base import Backbone
from network.heads import full_precision
from network.upsampling import upsample, wide
from utils.activation_maps import OFFSET, largest_only, range_normalised, with_background
from utils.types import SegOutput

AFFINITIES = 1 << 26  # of pairs of pixels that are in memory at once, 256 MiB
LEAST_PROBABILITY = 1e-5
_PUBLISHED = {  # modules of the released classifiers that are not the backbone's
    "fc8": "classifier",
    "f8_3": "correlation.sides.middle",
    "f8_4": "correlation.sides.aux",
    "f9": "correlation.joint",
}
_ONLY_THERE = "f9.weight"
_SIDES = {"middle": 64, "aux": 128}  # features of the backbone and what they are reduced to


class CamOutput(NamedTuple):
    """The activation maps of a batch, float32 or wider."""

    raw: Tensor  # (N, C, h, w), of the class head; any sign
    refined: Tensor  # (N, C, h, w), in [0, 1], spread over pixels that look alike


class PixelCorrelation(nn.Module):
    """Average maps over the pixels of an image, weighted by how alike their features are.

    With unit features f of pixels i and j the weight is a_ij = ReLU(<f_i, f_j>), and the result
    sum_i p_i a_ij / (sum_i a_ij + 1e-5). The features read the image, ``middle`` and ``aux``;
    no gradient goes back into them, nor into the maps.

    The (h w)^2 weights are made for a block of pixels j at a time, of at most ``AFFINITIES``
    (2^26) values, and once more in the backward pass: memory stays below 256 MiB per copy (three
    in the backward pass) for maps of any size, and up to that many weights in the batch (six maps
    of 56 x 56) are made at once. The result does not depend on it; time grows with (h w)^2.

    Args:
        channels: channels of the backbone's features by name.
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.sides = nn.ModuleDict(
            {
                name: nn.Conv2d(channels[name], width, 1, bias=False)
                for name, width in _SIDES.items()
            }
        )
        width = sum(_SIDES.values())
        self.joint = nn.Conv2d(3 + width, width, 1, bias=False)
        for side in self.sides.values():
            nn.init.kaiming_normal_(side.weight)  # type: ignore[arg-type]
        nn.init.xavier_uniform_(self.joint.weight, gain=4)

    def forward(self, maps: Tensor, images: Tensor, features: Mapping[str, Tensor]) -> Tensor:
        """Refine maps (N, C, h, w).

        Args:
            maps: (N, C, h, w).
            images: (N, 3, H, W), normalised.
            features: of the backbone, of any size.

        Returns:
            (N, C, h, w), float32 or wider, between the least and the greatest value of a map.
        """
        size = maps.shape[-2:]
        sides = [
            upsample(side(features[name].detach()).relu(), size, align_corners=True)
            for name, side in self.sides.items()
        ]
        with full_precision(maps):
            seen = torch.cat([upsample(images, size, align_corners=True), *sides], 1)
            embedded = F.conv2d(seen, wide(self.joint.weight)).flatten(2)
            embedded = embedded / (embedded.norm(dim=1, keepdim=True) + OFFSET)
            return _averaged(wide(maps.detach()).flatten(2), embedded).unflatten(2, size)


def _averaged(maps: Tensor, features: Tensor) -> Tensor:
    """Maps (N, C, L) averaged over alike pixels, given unit features (N, D, L)."""
    images, _, pixels = features.shape
    sources = torch.cat([maps, torch.ones_like(maps[:, :1])], 1)
    block = max(1, AFFINITIES // (images * pixels))
    if block >= pixels or not torch.is_grad_enabled():
        parts = [_block_of(sources, features, part) for part in features.split(block, 2)]
    else:
        parts = [
            checkpoint(
                _block_of, sources, features, part, use_reentrant=False, preserve_rng_state=False
            )
            for part in features.split(block, 2)
        ]
    return torch.cat(parts, 2)


def _block_of(sources: Tensor, features: Tensor, targets: Tensor) -> Tensor:
    """The averages at a block of pixels; the last of the sources is 1 and gives the divisor."""
    sums = sources @ (features.transpose(1, 2) @ targets).relu()
    return sums[:, :-1] / (sums[:, -1:] + OFFSET)


class CamNetwork(nn.Module):
    """A classifier whose class head is applied to every pixel of the last feature.

    Args:
        backbone: gives the features ``middle``, ``aux`` and ``out``.
        num_classes: number of channels, the background's included.
        background: its channel; None where every class is foreground.
        correlation: refine the maps by ``PixelCorrelation``.
        dropout: probability with which channels of the last feature are dropped before the class
            head in training mode; published: 0.5 on the wide ResNet-38, else 0.

    Attributes:
        align_corners: how maps at their own resolution are upsampled.
        background: as above; a state that is loaded brings its own.
    """

    align_corners = True
    background_channel: Tensor  # scalar int64, -1 for none

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        background: int | None,
        correlation: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels = {tap: feature.channels for tap, feature in backbone.taps.items()}
        self.backbone = backbone
        self.num_classes = num_classes
        self.background = background
        channel = torch.tensor(-1 if background is None else background)
        self.register_buffer("background_channel", channel)
        self.register_load_state_dict_post_hook(_take_background)
        self.dropout = nn.Dropout2d(dropout) if dropout > 0 else nn.Identity()
        self.correlation = PixelCorrelation(channels) if correlation else None
        # behind it, for --reset_head takes the last convolution of a state for the class head
        self.classifier = nn.Conv2d(channels["out"], num_classes, 1, bias=False)
        nn.init.xavier_uniform_(self.classifier.weight)

    def set_background(self, background: int | None) -> None:
        """Take another channel for the background's, or none."""
        self.background = background
        self.background_channel.fill_(-1 if background is None else background)

    def maps(self, images: Tensor, size: Sequence[int] | None = None) -> CamOutput:
        """The activation maps of normalised images.

        Args:
            images: (N, 3, H, W).
            size: (h, w) of the maps; None for that of the last feature.

        Returns:
            The class head's maps; and p, or what ``PixelCorrelation`` makes of it: the positive
            parts of the maps divided by their maxima, the background 1 - the largest of the
            others, of which each pixel keeps the largest alone. No gradient goes through p.

        Raises:
            ValueError: if the images are smaller than the backbone can take.
        """
        return self._maps(images, self._features(images), size)

    def raw_maps(self, images: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The raw maps of ``maps`` alone, (N, C, h, w), without the work for the refined ones.

        Args:
            images: (N, 3, H, W), normalised.
            size: (h, w) of the maps; None for that of the last feature.

        Raises:
            ValueError: as ``maps`` does.
        """
        return upsample(self._raw(self._features(images)), size, align_corners=True)

    def forward(
        self, images: Tensor, pooled_features: bool = False, at_stride: bool = False
    ) -> SegOutput:
        """The refined maps as a segmentation.

        The map of a class, between 0 and 1 in every image, counts where the classifier says that
        the class is there: where the mean of its raw map is above 0. The background is 1 - the
        largest of the others. Logits are log(max(p, 1e-5)).

        Args:
            images: (N, 3, H, W), normalised.
            pooled_features: also return the spatial mean of ``out``, (N, D).
            at_stride: leave the logits at the resolution of the last feature.

        Raises:
            ValueError: as ``maps`` does.
        """
        features = self._features(images)
        raw, refined = self._maps(images, features, None)
        present = raw.mean((2, 3), keepdim=True) > 0
        scores = range_normalised(refined) * present
        scores = upsample(scores, None if at_stride else images.shape[-2:], align_corners=True)
        logits = with_background(scores, self.background).clamp(LEAST_PROBABILITY, 1).log()
        pooled = features["out"].float().mean((2, 3)) if pooled_features else None
        return SegOutput(logits, features=pooled)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile the backbone, which both ``maps`` and ``forward`` run."""
        self.backbone.compile(*args, **kwargs)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of the ``backbone`` and of the new layers, the ``classifier``."""
        new = [self.classifier, *([] if self.correlation is None else [self.correlation])]
        return {
            "backbone": list(self.backbone.parameters()),
            "classifier": [parameter for layer in new for parameter in layer.parameters()],
        }

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        height, width = images.shape[-2:]
        least = self.backbone.smallest_input
        if min(height, width) < least:
            raise ValueError(
                f"activation maps of images of {height}x{width} pixels: this backbone needs at"
                f" least {least} on each side"
            )
        features: dict[str, Tensor] = self.backbone(images)
        return features

    def _maps(
        self, images: Tensor, features: Mapping[str, Tensor], size: Sequence[int] | None
    ) -> CamOutput:
        raw = self._raw(features)
        refined = self._certain(raw.detach())
        if self.correlation is not None:
            refined = self.correlation(refined, images, features)
        return CamOutput(*(upsample(maps, size, align_corners=True) for maps in (raw, refined)))

    def _raw(self, features: Mapping[str, Tensor]) -> Tensor:
        """The class head's maps (N, C, h, w), float32 or wider."""
        return wide(self.classifier(self.dropout(features["out"])))

    @torch.no_grad()
    def _certain(self, raw: Tensor) -> Tensor:
        """The p of raw maps (N, C, h, w), see ``maps``."""
        positive = raw.relu()
        scaled = (positive - OFFSET).relu() / (positive.amax((2, 3), keepdim=True) + OFFSET)
        return largest_only(with_background(scaled, self.background), self.background)


def _take_background(network: nn.Module, _: object) -> None:
    """Read the background's channel from the state that was loaded."""
    assert isinstance(network, CamNetwork)
    channel = int(network.background_channel)
    network.background = None if channel < 0 else channel


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a classifier of SEAM or PMM under our names, whose first class is background.

    A state of another network stays as it is.
    """
    if _ONLY_THERE not in state:
        return dict(state)
    named = {_published_name(name): value for name, value in state.items()}
    named["background_channel"] = torch.tensor(0)
    # as in a network of ours, the class head is the last convolution of the state
    return dict(sorted(named.items(), key=lambda entry: entry[0] == "classifier.weight"))


def _published_name(name: str) -> str:
    module, _, parameter = name.rpartition(".")
    return f"{_PUBLISHED.get(module, f'backbone.{module}')}.{parameter}"
