"""DeepLab with a main and an auxiliary head, as of MRNet (IJCAI 2020) and AdaptSegNet (2018)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from network.deeplab import SegmentationHead
from network.heads import PLAIN, HeadOptions
from network.pyramid_head import PyramidHead, PyramidOptions

# How names of the published network begin and what takes that place.
_PUBLISHED = {
    **{
        f"{name}.": f"backbone.{name}."
        for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    },
    **{
        f"{layer}.{published}.": f"{head}.classifier.{own}."
        for layer, head in (("layer5", "aux_classifier"), ("layer6", "classifier"))
        for published, own in (
            ("conv2d_list", "pyramid.branches"),
            ("bottleneck", "bottleneck"),
            ("head.1", "classes"),
        )
    },
}
_ONLY_THERE = "layer6.head.1.weight"  # by this name the published network is known


def main_head(
    channels: Mapping[str, int],
    num_classes: int,
    options: PyramidOptions,
    head: HeadOptions = PLAIN,
) -> PyramidHead:
    """The main head on ``out`` and ``aux``, concatenated in that order.

    Args:
        channels: channels of the backbone's features by name.
        num_classes: number of output channels.
        options: see ``PyramidOptions``.
        head: how the last features become logits.
    """
    return PyramidHead(channels, num_classes, ("out", "aux"), options, head)


def auxiliary_head(
    channels: Mapping[str, int],
    num_classes: int,
    options: PyramidOptions,
    main: SegmentationHead,
) -> PyramidHead:
    """The auxiliary head on ``aux``: linear, without temperature, upsampled as the main head is.

    Args:
        channels: channels of the backbone's features by name.
        num_classes: number of output channels.
        options: see ``PyramidOptions``.
        main: the head beside it.
    """
    return PyramidHead(channels, num_classes, ("aux",), options, align_corners=main.align_corners)


def published_name(name: str) -> str | None:
    """From a name in a published file of MRNet to ours, None for another name."""
    for published, own in _PUBLISHED.items():
        if name.startswith(published):
            return own + name.removeprefix(published)
    return None


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published file of MRNet under our names.

    A state of another network, without the published class head, stays as it is; so do names that
    the published network has not, for the check that the state fits.
    """
    if _ONLY_THERE not in state:
        return dict(state)
    return {published_name(name) or name: value for name, value in state.items()}
