"""The ways in which training cuts samples to one size, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from datasets.crops import ScaleFilter, Size
from datasets.fit_crop import CornerPadding, FitCrop
from datasets.items import by
from datasets.long_side_crop import PUBLISHED_SIDES, PlacedCrop, RandomLongSide
from datasets.multi_crop import MULTI_CROP_SCALES, HeatMaps, MultiCrop, Stretch
from datasets.resize_crop import RandomResizeCrop
from datasets.samples import RandomTransform
from datasets.scale_crop import RandomScaleCrop

Kind = Literal["resize", "scale_crop", "resize_crop", "fit_crop", "long_side_crop", "multi_crop"]


@dataclass(frozen=True)
class CutSettings:
    """What the kinds of ``train_transform`` can be told; each reads what concerns it.

    Attributes:
        scale_range: least and greatest scale of ``scale_crop``, ``resize_crop``, ``fit_crop``.
        scale_filter: how ``scale_crop`` resamples the image, with antialiasing.
        input_size: (H, W) that ``resize_crop`` starts from; None for each image's own size.
        crop_classes: of ``resize_crop``: it tries to show more label values than these.
        autoaug: of ``resize_crop``: whether AutoAugment changes the colours.
        base_size: of ``fit_crop``: limit of the shorter side at scale 1; None for that of a crop.
        long_side: least and greatest longer side of ``long_side_crop``.
        heat_maps: that ``multi_crop`` finds the labels of a box by.
        background: train id of the class that its boxes always show; None if there is none.
        crop_scales: scales of its boxes.
        crop_stride: distance of its boxes; None for the usual one.
    """

    scale_range: tuple[float, float] = (0.5, 2.0)
    scale_filter: ScaleFilter = "bilinear"
    input_size: Size | None = None
    crop_classes: int = 0
    autoaug: bool = False
    base_size: int | None = None
    long_side: tuple[int, int] = PUBLISHED_SIDES
    heat_maps: HeatMaps | None = None
    background: int | None = None
    crop_scales: tuple[float, ...] = MULTI_CROP_SCALES
    crop_stride: int | None = None


class Cut(NamedTuple):
    """The transforms that lead to samples of one size; colours, flip and blur lie between."""

    first: tuple[RandomTransform, ...] = ()
    last: tuple[RandomTransform, ...] = ()


def build_cut(kind: Kind, size: Size, settings: CutSettings) -> Cut:
    """The transforms of a kind that end with samples of ``size`` (H, W).

    Raises:
        ValueError: if a setting does not suit the size, or ``multi_crop`` has no heat maps.
    """
    scales = settings.scale_range
    match kind:
        case "resize":  # done once and for all before what is random
            return Cut()
        case "scale_crop":
            return Cut((RandomScaleCrop(size, scales, settings.scale_filter),))
        case "resize_crop":
            classes, autoaug = settings.crop_classes, settings.autoaug
            return Cut((RandomResizeCrop(size, settings.input_size, scales, classes, autoaug),))
        case "fit_crop":
            return Cut((FitCrop(size, settings.base_size, scales),), (CornerPadding(size),))
        case "long_side_crop":
            return Cut((RandomLongSide(settings.long_side),), (PlacedCrop(size),))
        case "multi_crop":
            return Cut((_boxes(size, settings),), (Stretch(size),))


def _boxes(size: Size, settings: CutSettings) -> MultiCrop:
    """The boxes of ``multi_crop``.

    Raises:
        ValueError: if there are no heat maps or the size is not square.
    """
    if settings.heat_maps is None:
        raise ValueError(
            "multi_crop finds the labels of a box by heat maps: name the folder of CAMs that a"
            " first classifier made, or train on long_side_crop, which needs none"
        )
    if size[0] != size[1]:
        raise ValueError(f"multi_crop cuts squares, not {by(size)}: give one number, such as 448")
    return MultiCrop(
        settings.heat_maps,
        settings.background,
        size[0],
        settings.crop_stride,
        settings.crop_scales,
    )
