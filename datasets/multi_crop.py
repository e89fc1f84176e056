"""Boxes that cover an image at several scales: CAMs of large objects' parts and of small objects.

As released with PMM (arXiv 2108.12995): a box is cut out of the image, stretched to the network's
input, and keeps those image labels whose object it shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
import torch
from torch import Tensor

from datasets.crops import Size, resize_image, resize_map
from datasets.items import Item, by
from datasets.samples import Sample, map_parts

Box = tuple[int, int, int, int]  # (top, left, bottom, right); the last two are outside of it
HeatMaps = Callable[[Item], tuple[Tensor, Tensor]]  # train ids (K,) and their maps (K, H, W)

MULTI_CROP_SCALES = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0)
CROP, STRIDE = 448, 300  # as published
HOT = 0.9  # a heat map above this is the object
KEPT = 0.1  # least share of the object in the box, or of the box that is object


def usual_stride(crop: int) -> int:
    """The published stride, 300 of 448, for a crop of another side in pixels."""
    return max(1, crop * STRIDE // CROP)


def crop_boxes(size: Size, scale: float, crop: int = CROP, stride: int = STRIDE) -> list[Box]:
    """The boxes that cover an image at one scale, row by row, in the image's own pixels.

    Along an axis of w = int(W s) scaled pixels there are n = 1 + ceil(max(0, w - crop) / stride)
    spans, [stride j, min(w, stride (j + 1))] and as the last one [max(0, w - crop), w], divided by
    s and rounded down. So all but the last are as long as the stride, as published, and where
    W s is not whole a pixel or two at the far end can be in no box.

    Args:
        size: (H, W) of the image.
        scale: s, above 0.
        crop: greatest side of a box, in scaled pixels.
        stride: distance of two boxes, in scaled pixels.

    Raises:
        ValueError: if the stride is not in [scale, crop] or the image vanishes at the scale.
    """
    if not 0 < scale <= stride <= crop:
        raise ValueError(
            f"boxes of {crop} pixels every {stride} at scale {scale:g} do not cover an image: it"
            " must be 0 < scale <= stride <= crop"
        )
    if min(size) * scale < 1:
        raise ValueError(f"an image of {by(size)} pixels is empty at scale {scale:g}")
    rows, columns = (_spans(length, scale, crop, stride) for length in size)
    return [(top, left, bottom, right) for top, bottom in rows for left, right in columns]


def _spans(length: int, scale: float, crop: int, stride: int) -> list[tuple[int, int]]:
    """Start and end of the boxes along one axis."""
    scaled = int(length * scale)
    count = 1 + ceil(max(0, scaled - crop) / stride)
    spans = list(pairwise(min(scaled, stride * place) for place in range(count)))
    spans.append((max(0, scaled - crop), scaled))
    return [(int(start / scale), int(end / scale)) for start, end in spans]


def kept_labels(hot: Tensor, box: Box) -> Tensor:
    """Which objects a box shows: more than a tenth of the object, or of the box by the object.

    Args:
        hot: (K, H, W) bool, the pixels of each object.
        box: in the same pixels.

    Returns:
        (K,) bool.
    """
    top, left, bottom, right = box
    inside = hot[:, top:bottom, left:right].sum((1, 2))
    whole, area = hot.sum((1, 2)), (bottom - top) * (right - left)
    return (inside > KEPT * whole) | (inside > KEPT * area)


@dataclass(frozen=True)
class MultiCrop:
    """Cut a random box of a random scale out, with the image labels that it keeps.

    One of the scales is drawn, then its boxes are tried in random order until one keeps a label of
    the foreground; the last one is taken without. The box has its own size: ``Stretch`` is to
    follow the changes of colour. The sample's ``image_labels`` become those of the box.

    Attributes:
        heat_maps: train ids (K,) of the image's foreground classes and their heat maps (K, H, W),
            in [0, 1], of an item, which is known by its id; the image's own size.
        background: train id of the class that every box shows; None if there is none.
        crop: of ``crop_boxes``.
        stride: of ``crop_boxes``; None for the usual one.
        scales: that are drawn from.

    Raises:
        ValueError: if there are no scales or the stride does not suit them.
    """

    heat_maps: HeatMaps
    background: int | None = None
    crop: int = CROP
    stride: int | None = None
    scales: tuple[float, ...] = MULTI_CROP_SCALES

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError("boxes need at least one scale")
        for scale in self.scales:
            crop_boxes((self.crop, self.crop), scale, self.crop, self.steps)

    @property
    def steps(self) -> int:
        """Distance of two boxes in scaled pixels."""
        return usual_stride(self.crop) if self.stride is None else self.stride

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Cut the same box out of every part.

        Raises:
            ValueError: if the heat maps have another size than the image or lack a label.
        """
        labels = sample["image_labels"]
        height, width = sample["label"].shape
        classes, maps = self._read(sample, (height, width), labels)
        hot = (maps > HOT) & (labels[classes] > 0)[:, None, None]
        scale = self.scales[int(rng.integers(len(self.scales)))]
        boxes = crop_boxes((height, width), scale, self.crop, self.steps)
        for index in rng.permutation(len(boxes)).tolist():
            kept = kept_labels(hot, boxes[index])
            if kept.any():
                break
        top, left, bottom, right = boxes[index]
        changed = map_parts(
            sample,
            lambda image: image[:, top:bottom, left:right],
            lambda values: values[top:bottom, left:right],
        )
        changed["image_labels"] = self._labels_of_box(labels, classes[kept])
        return changed

    def _read(self, sample: Sample, size: Size, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Train ids (K,) and heat maps (K, H, W) of a sample.

        Raises:
            ValueError: if they have another size or a label has no heat map.
        """
        scene, condition = sample.get("scene", ""), sample.get("condition", "")
        classes, maps = self.heat_maps(Item(sample["id"], None, None, scene, condition))
        if tuple(maps.shape[1:]) != size:
            raise ValueError(
                f"the heat maps of {sample['id']} have {by(maps.shape[1:])} pixels, its image"
                f" {by(size)} (rows x columns): make them anew"
            )
        missing = labels.clone()
        missing[classes] = 0
        if self.background is not None:
            missing[self.background] = 0
        if missing.any():
            raise ValueError(
                f"{sample['id']} is labelled with the train id {int(missing.argmax())}, of which"
                " there is no heat map: make them anew, from the same image labels"
            )
        return classes, maps

    def _labels_of_box(self, labels: Tensor, kept: Tensor) -> Tensor:
        """Image labels (C,) float32 that hold the kept train ids (K,) and the background."""
        of_box = torch.zeros_like(labels)
        of_box[kept] = 1
        if self.background is not None:
            of_box[self.background] = 1
        return of_box


@dataclass(frozen=True)
class Stretch:
    """Resize to a fixed size, whatever the aspect ratio: bilinear, maps by the nearest values.

    Attributes:
        size: (H, W).
    """

    size: Size

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Resize every part; nothing is drawn."""
        return map_parts(
            sample,
            lambda image: resize_image(image, self.size),
            lambda values: resize_map(values, self.size),
        )
