"""What describes a predicted segment: the inputs of the meta classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from metrics.component_counts import ComponentMap

Array = NDArray[np.float64]

MAPS = ("entropy", "margin", "variation_ratio")
OF_A_MAP = (
    "mean",
    "boundary_mean",
    "interior_mean",
    "variance",
    "boundary_variance",
    "interior_variance",
    "relative_mean",
    "relative_interior_mean",
    "relative_variance",
    "relative_interior_variance",
)
SIZES = ("size", "interior_size", "boundary_size", "relative_size", "relative_interior_size")
CENTRE = ("centre_row", "centre_column")
NEIGHBOURS = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column)


class SegmentPixels(NamedTuple):
    """The P pixels of all segments of an image."""

    places: NDArray[np.int64]  # (P,), in the flattened image, ascending
    owners: NDArray[np.int32]  # (P,), the segment of each pixel, from 0
    interior: NDArray[np.bool_]  # (P,), whether its 8 neighbours are all in the segment


class Moments(NamedTuple):
    """Mean and variance of a map over a part of each segment, (S,); 0 where the part is empty."""

    mean: Array
    variance: Array


def feature_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names of the columns of ``segment_features``, in their order.

    For each map its means and variances over the segment, its boundary and its interior, then
    those over the segment times size / boundary size and those over the interior times interior
    size / boundary size; the sizes; for each class the mean probability, then the share of the
    neighbouring pixels of which it is the most likely class; the centre.
    """
    return (
        *(f"{name}_{statistic}" for name in MAPS for statistic in OF_A_MAP),
        *SIZES,
        *(f"probability_{name}" for name in class_names),
        *(f"neighbour_{name}" for name in class_names),
        *CENTRE,
    )


def segment_pixels(segments: ComponentMap) -> SegmentPixels:
    """The pixels of the segments, with those at the border of the image on the boundary."""
    inside = (segments.ids > 0).astype(np.uint8)
    window = np.ones((3, 3), np.uint8)
    # components are 8-connected: a neighbour within any segment is within this one
    interior = cv2.erode(inside, window, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    places = np.flatnonzero(inside)
    return SegmentPixels(
        places, segments.ids.ravel()[places] - 1, interior.ravel()[places].astype(bool)
    )


def segment_features(
    segments: ComponentMap,
    pixels: SegmentPixels,
    likely: NDArray[np.float32],
    classes: NDArray[np.uint8],
) -> Array:
    """The features of each segment (Rottmann et al. 2020; Chan et al. 2021).

    The maps are the normalised entropy, 1 - p1 + p2 and 1 - p1 of the sorted softmax.

    Args:
        segments: S components of an image (H, W).
        pixels: their pixels, by ``segment_pixels``.
        likely: (C, P), the softmax at these pixels, C at least 2.
        classes: (H, W), the most likely class of every pixel of the image.

    Returns:
        (S, 37 + 2 C), the columns of ``feature_names``.
    """
    count, owners = segments.number, pixels.owners
    size = _total(owners, None, count)
    interior = _total(owners[pixels.interior], None, count)
    boundary = size - interior  # never 0: somewhere a segment ends
    ratios = size / boundary, interior / boundary
    columns = [
        column
        for values in _maps(likely)
        for column in _map_columns(values, pixels, count, *ratios)
    ]
    columns += [size, interior, boundary, *ratios]
    columns += [_total(owners, plane, count) / size for plane in likely]
    columns += list(_neighbour_shares(segments, pixels, classes, len(likely)))
    centre = np.divmod(pixels.places, classes.shape[1])
    columns += [_total(owners, position, count) / size for position in centre]
    return np.stack(columns, axis=1)


def _maps(likely: NDArray[np.float32]) -> tuple[Array, Array, Array]:
    """The three maps at the pixels of a softmax (C, P), each (P,)."""
    exact = likely.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(exact > 0, exact * np.log(exact), 0.0)
    second, first = np.partition(exact, -2, axis=0)[-2:]
    return -terms.sum(0) / np.log(len(exact)), 1 - first + second, 1 - first


def _map_columns(
    values: Array, pixels: SegmentPixels, count: int, relative: Array, relative_interior: Array
) -> list[Array]:
    """The statistics of one map in the order of ``OF_A_MAP``."""
    whole = _moments(values, pixels.owners, count)
    inner = _moments(values[pixels.interior], pixels.owners[pixels.interior], count)
    outer = _moments(values[~pixels.interior], pixels.owners[~pixels.interior], count)
    return [
        *(whole.mean, outer.mean, inner.mean),
        *(whole.variance, outer.variance, inner.variance),
        *(whole.mean * relative, inner.mean * relative_interior),
        *(whole.variance * relative, inner.variance * relative_interior),
    ]


def _moments(values: Array, owners: NDArray[np.int32], count: int) -> Moments:
    """Mean and variance, divided by the number of pixels, over the pixels of each segment."""
    size = np.maximum(_total(owners, None, count), 1)
    mean = _total(owners, values, count) / size
    variance = _total(owners, (values - mean[owners]) ** 2, count) / size
    return Moments(mean, variance)


def _neighbour_shares(
    segments: ComponentMap, pixels: SegmentPixels, classes: NDArray[np.uint8], num_classes: int
) -> Array:
    """Shares (C, S) of the classes among the pixels next to each segment.

    As published a neighbour counts once for each pixel of the segment that it touches; void
    pixels count with their predicted class. All 0 where the segment is the whole image.
    """
    height, width = classes.shape
    edge = ~pixels.interior
    owners = pixels.owners[edge].astype(np.int64)
    rows, columns = np.divmod(pixels.places[edge], width)
    counts = np.zeros(segments.number * num_classes, np.int64)
    for down, right in NEIGHBOURS:
        row, column = rows + down, columns + right
        there = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        row, column, owner = row[there], column[there], owners[there]
        outside = segments.ids[row, column] == 0
        keys = owner * num_classes + classes[row, column]
        counts += np.bincount(keys[outside], minlength=len(counts))
    by_segment = counts.reshape(segments.number, num_classes)
    return (by_segment / np.maximum(by_segment.sum(1, keepdims=True), 1)).T


def _total(
    owners: NDArray[np.int32], values: NDArray[np.floating | np.int64] | None, count: int
) -> Array:
    """Sums of values over the pixels of each segment, (S,); without values their number."""
    return np.bincount(owners, values, count).astype(np.float64)
