"""Rare classes and hard pixels count more: class weights of a batch and selection by percentile.

As in the published training of MRNet (Zheng and Yang 2020, arXiv 1912.11164). Nothing here waits
for the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from losses.cross_entropy import pixel_cross_entropy
from utils.types import IGNORE_INDEX

LABEL_VALUES = 256  # of 8-bit labels, void included
MOMENTUM = 0.1  # of the running weights of absent classes, as published


def class_counts(labels: Tensor, num_classes: int) -> Tensor:
    """Number of pixels of each class in the batch.

    Args:
        labels: (N, H, W), any integer type, from 0 to 255; ids from ``num_classes`` on count
            nowhere, void among them.
        num_classes: C, at most 255.

    Returns:
        (C,) int64.
    """
    assert num_classes < LABEL_VALUES, num_classes
    index = labels.long()
    # One histogram for each row of pixels: on a GPU fewer additions meet in one cell.
    rows = index.new_zeros(*index.shape[:2], LABEL_VALUES)
    rows.scatter_add_(2, index, index.new_ones(1).expand_as(index))
    return rows.sum((0, 1))[:num_classes]


class ClassBalance(nn.Module):
    """Class weights that follow from the labels of each batch, and a running vector.

    With max the greatest weight, n_c the pixels of class c in a batch of N images::

        w_c = (max if n_c < small_object_pixels N else 1) O_c
        O <- 0.9 O + 0.1 (max if n_c = 0 else 1)

    where O starts at 1, is updated before use, and stays at 1 without ``often``. An absent class
    counts as small, so that its weight can come near to max^2. The bound of small classes does not
    depend on the size of the crop, as published.

    Attributes:
        often_weights: O, (C,) float32 in [1, max]; part of the state, so that a run can resume.

    Args:
        num_classes: C.
        max_value: the greatest value of either factor, at least 1; published runs take 7.
        often: whether classes absent from many batches gain weight.
        small_object_pixels: classes with fewer pixels per image are small.

    Raises:
        ValueError: if the greatest value is below 1 or the bound of pixels negative.
    """

    often_weights: Tensor

    def __init__(
        self,
        num_classes: int,
        max_value: float = 2.0,
        often: bool = False,
        small_object_pixels: int = 4096,
    ) -> None:
        super().__init__()
        if not max_value >= 1:
            raise ValueError(f"the greatest class weight is {max_value:g}; it must be at least 1")
        if small_object_pixels < 0:
            raise ValueError(
                f"small objects have fewer than {small_object_pixels} pixels; give 0 or more"
            )
        self.max_value = max_value
        self.often = often
        self.small_object_pixels = small_object_pixels
        self.register_buffer("often_weights", torch.ones(num_classes))

    @torch.no_grad()
    def forward(self, counts: Tensor, images: int) -> Tensor:
        """Update the running vector and return the weights of this batch.

        Args:
            counts: (C,), ``class_counts`` of the full labels, summed over all processes.
            images: N, number of images that were counted.

        Returns:
            (C,) float32, in [1, max^2].
        """
        if self.often:
            self.often_weights.lerp_(self.factors(counts == 0), MOMENTUM)
        return self.factors(counts < self.small_object_pixels * images) * self.often_weights

    def factors(self, chosen: Tensor) -> Tensor:
        """The greatest value where ``chosen`` (C,) bool holds, 1 elsewhere: (C,) float32."""
        return torch.ones_like(self.often_weights).masked_fill_(chosen, self.max_value)


def percentile(values: Tensor, q: float, *, valid: Tensor | None = None) -> Tensor:
    """The q-th percentile with linear interpolation, as ``numpy.percentile`` has it.

    The two values around it are found by partial selection, which sorts nothing, has no limit of
    elements and spreads one long vector over the whole GPU.

    Args:
        values: any shape, floating, at least one value.
        q: in [0, 100].
        valid: bool of the same shape: the values that count. As their number is known to the
            device alone, all are sorted. Infinity where there are none.

    Returns:
        Scalar of the values' type, outside the graph.

    Raises:
        ValueError: if q is outside [0, 100].
    """
    if not 0 <= q <= 100:
        raise ValueError(f"the percentile is {q:g}; it must be from 0 to 100")
    flat = values.detach().flatten()
    if valid is not None:
        return sorted_percentile(flat.masked_fill(~valid.flatten(), math.inf), valid.sum(), q)
    position = (len(flat) - 1) * (q / 100)
    low = math.floor(position)
    pair = neighbours(flat, low).double()
    return pair[0].lerp(pair[1], position - low).to(values.dtype)


def neighbours(values: Tensor, low: int) -> Tensor:
    """The order statistics ``low`` and ``low`` + 1, counted from 0, of a vector (n,).

    Returns:
        (2,), ascending; the last one twice where ``low`` is n - 1.
    """
    from_above = low >= len(values) // 2  # the shorter of the two sides is selected
    count = len(values) - low if from_above else low + 2
    side = values.topk(count, largest=from_above, sorted=False).values
    # The innermost two of the side, the smaller one first.
    pair = side.topk(min(2, count), largest=not from_above).values
    return (pair if from_above else pair.flip(0)).expand(2)


def sorted_percentile(values: Tensor, count: Tensor, q: float) -> Tensor:
    """The q-th percentile of the ``count`` (a scalar) smallest of the values (n,)."""
    ordered = values.sort().values
    last = (count - 1).clamp(min=0)
    position = last.double() * (q / 100)
    low = position.long()
    pair = ordered[torch.stack([low, torch.minimum(low + 1, last)])].double()
    inside = pair[0].lerp(pair[1], position - low).to(values.dtype)
    return torch.where(count > 0, inside, math.inf)


def harder_labels(loss_map: Tensor, labels: Tensor, threshold: Tensor) -> Tensor:
    """Labels with void where the loss is strictly below the threshold.

    Args:
        loss_map: (N, H, W), such as ``weighted_loss_map``.
        labels: (N, H, W), any integer type.
        threshold: scalar on the same device, such as a ``percentile`` of the map.

    Returns:
        (N, H, W), of the labels' type.
    """
    return torch.where(loss_map.detach() < threshold, IGNORE_INDEX, labels)


def pixel_weights(labels: Tensor, class_weights: Tensor) -> Tensor:
    """The weight of the class of each pixel, 0 where the label is none of the classes.

    Args:
        labels: (N, H, W), any integer type, from 0 to 255.
        class_weights: (C,).

    Returns:
        (N, H, W), of the weights' type.
    """
    table = F.pad(class_weights, (0, LABEL_VALUES - len(class_weights)))
    return table.index_select(0, labels.flatten().int()).view(labels.shape)


def weighted_loss_map(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """w_y (-log softmax(logits)_y) of every pixel, 0 where the label is void.

    Args:
        logits: (N, C, H, W), unnormalised.
        labels: (N, H, W), any integer type.
        class_weights: (C,).

    Returns:
        (N, H, W), float32 or wider, at least 0.
    """
    return pixel_cross_entropy(logits, labels) * pixel_weights(labels, class_weights)


def sums_of_map(loss_map: Tensor, labels: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of the weighted mean, given the map and what is left of its labels.

    So the map that pixels are selected by also trains the network, at the price of one softmax.

    Args:
        loss_map: (N, H, W), ``weighted_loss_map`` of the full labels.
        labels: (N, H, W), the same labels or ``harder_labels`` of them.
        class_weights: (C,), those of the map.

    Returns:
        Two scalars; both are 0 when no pixel is labelled, the numerator's gradient, too.
    """
    numerator = loss_map.masked_fill(labels == IGNORE_INDEX, 0).sum()
    return numerator, pixel_weights(labels, class_weights).sum().to(numerator.dtype)


def weighted_sums(logits: Tensor, labels: Tensor, class_weights: Tensor) -> tuple[Tensor, Tensor]:
    """sum_x w_y(x) CE(x) and sum_x w_y(x) over the labelled pixels x.

    Their quotient is torch's weighted mean; apart, they can be summed over processes first.

    Args:
        logits: (N, C, H, W), unnormalised.
        labels: (N, H, W), any integer type.
        class_weights: (C,).

    Returns:
        Two scalars, float32 or wider; the first has a gradient, and both are 0 when no pixel is
        labelled.
    """
    return sums_of_map(weighted_loss_map(logits, labels, class_weights), labels, class_weights)
