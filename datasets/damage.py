"""Deliberate damage of label maps: objects that are too wide or too narrow, as pseudo labels are.

As in the toy of "uncertainty by response scaling" every object is either dilated or eroded by a few
pixels. There the objects lie on a background; here the same is done to label maps of any kind.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from utils.types import IGNORE_INDEX

_VOID = 0  # the owner of void pixels
_REACH = 12  # pixels around an object in which most of its lost pixels find another label


@dataclass(frozen=True)
class DamagedLabels:
    """Dilates or erodes every connected component of every class of a label map.

    The components take their turn from the smallest to the largest: each is, with probability
    ``share``, dilated over its neighbours as they are by then, else eroded, and the pixels that it
    loses get the label of the nearest pixel of another class. A component as narrow as the erosion
    vanishes. Two neighbours' shifts of their common border add up. Void pixels stay void, and no
    other pixel becomes void. The same seed and id damage a map in the same way.

    Attributes:
        share: probability of a dilation, in [0, 1].
        dilate: radius of the dilation in pixels, at the label's native size.
        erode: radius of the erosion in pixels.
        seed: of the choices.

    Raises:
        ValueError: if the share is no probability or a radius is negative.
    """

    share: float = 0.5
    dilate: int = 4
    erode: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(
                f"the share of labels that are damaged by a dilation must lie in [0, 1], not"
                f" {self.share}"
            )
        if min(self.dilate, self.erode) < 0:
            raise ValueError(
                "labels are dilated and eroded by 0 pixels or more, not by"
                f" {self.dilate} and {self.erode}"
            )

    def __call__(self, label: Tensor, image_id: str, background: int | None = None) -> Tensor:
        """The damaged map of an image.

        Args:
            label: (H, W) uint8 train ids, void 255; stays as it is.
            image_id: of the image, for the choices.
            background: the train id of what is no object, which is not damaged itself; None where
                every class is one.

        Returns:
            (H, W) uint8.
        """
        parts = find_components(label.numpy(), background)
        choices = np.random.default_rng(np.random.SeedSequence((self.seed, number_of(image_id))))
        grows = choices.random(len(parts.order)) < self.share
        for owner, is_growing in zip(parts.order, grows.tolist(), strict=True):
            if is_growing:
                grow(parts, owner, self.dilate)
            else:
                shrink(parts, owner, self.erode)
        return torch.from_numpy(parts.classes.take(parts.owners))


class Components(NamedTuple):
    """The connected components of a label map; which pixels are whose changes.

    Attributes:
        owners: (H, W) int32, the component of every pixel.
        classes: (K,) uint8, the train id of each component; the first is void.
        boxes: (K, 4) int64, first and last row (exclusive), first and last column (exclusive)
            between which a component has all its pixels.
        order: the components that are objects, from the smallest to the largest.
    """

    owners: NDArray[np.int32]
    classes: NDArray[np.uint8]
    boxes: NDArray[np.int64]
    order: list[int]


def find_components(label: NDArray[np.uint8], background: int | None) -> Components:
    """The components of a label map (H, W) whose pixels touch at a side or a corner.

    All of the background is one, which is no object.
    """
    owners = np.full(label.shape, _VOID, np.int32)
    classes, boxes, areas = [IGNORE_INDEX], [(0, 0, 0, 0)], [0]
    counts = np.bincount(label.ravel(), minlength=IGNORE_INDEX + 1)
    for train_id in np.flatnonzero(counts[:IGNORE_INDEX]).tolist():
        whole = (label == train_id).view(np.uint8)
        left, top, width, height = cv2.boundingRect(whole)
        window = slice(top, top + height), slice(left, left + width)
        mask = whole[window]
        if train_id == background:
            numbers, stats = mask.astype(np.int32), [[0, 0, width, height, 0]]
        else:
            _, numbers, all_stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
            stats = all_stats[1:].tolist()
        owners[window] += (numbers + (len(classes) - 1)) * mask
        classes += [train_id] * len(stats)
        boxes += [(top + y, top + y + h, left + x, left + x + w) for x, y, w, h, _ in stats]
        areas += [area for *_, area in stats]
    # OpenCV numbers components in an order of its own
    keys = sorted(zip(areas, classes, boxes, range(len(classes)), strict=True))
    order = [owner for area, _, _, owner in keys if area]
    return Components(owners, np.array(classes, np.uint8), np.array(boxes), order)


def grow(parts: Components, owner: int, radius: int) -> None:
    """Give a component all pixels but void ones that lie within a radius of its own."""
    crop = _around(parts, owner, radius)
    wide = cv2.dilate((crop == owner).view(np.uint8), disc(radius)).view(bool)
    crop[wide & (crop != _VOID)] = owner


def shrink(parts: Components, owner: int, radius: int) -> None:
    """Give the pixels of a component within a radius of its border to the nearest other class.

    Where there is no other class, the component keeps them.
    """
    others = (parts.classes != parts.classes[owner]) & (parts.classes != IGNORE_INDEX)
    for reach in (_REACH + radius, max(parts.owners.shape)):
        crop = _around(parts, owner, reach)
        mask = (crop == owner).view(np.uint8)
        lost = (mask > cv2.erode(mask, disc(radius))).nonzero()
        if not len(lost[0]):
            return
        is_other = others.take(crop)
        if not is_other.any():
            continue
        distances, nearest = cv2.distanceTransformWithLabels(
            (~is_other).view(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        if distances[lost].max() > reach and crop.size < parts.owners.size:
            continue  # something outside the crop may be nearer
        by_number = np.zeros(int(nearest.max()) + 1, np.int32)
        by_number[nearest[is_other]] = crop[is_other]
        crop[lost] = by_number[nearest[lost]]
        _widen_boxes(parts, np.unique(crop[lost]), parts.boxes[owner])
        return


def disc(radius: int) -> NDArray[np.uint8]:
    """The pixels (2 radius + 1, 2 radius + 1) whose distance to the middle is within a radius."""
    squares = np.arange(-radius, radius + 1) ** 2
    return (squares[:, None] + squares <= radius**2).view(np.uint8)


def number_of(image_id: str) -> int:
    """A number in [0, 2^64) that depends on the id alone, the same in every process."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")


def damaged_fingerprint(content: str, damage: DamagedLabels | None) -> str:
    """SHA-256 over a data set's own fingerprint and the damage to its labels, if there is any."""
    if damage is None:
        return content
    return hashlib.sha256(f"{content} {damage!r}".encode()).hexdigest()


def _around(parts: Components, owner: int, margin: int) -> NDArray[np.int32]:
    """The owners in a component's box and a margin, as a view."""
    top, bottom, left, right = parts.boxes[owner].tolist()
    rows, columns = (
        slice(max(0, a - margin), b + margin) for a, b in ((top, bottom), (left, right))
    )
    return parts.owners[rows, columns]


def _widen_boxes(parts: Components, owners: NDArray[np.int32], box: NDArray[np.int64]) -> None:
    """Make sure that the boxes of some components hold another box."""
    for column, outermost in enumerate((np.minimum, np.maximum, np.minimum, np.maximum)):
        parts.boxes[owners, column] = outermost(parts.boxes[owners, column], box[column])
