"""Cross entropy whose class weights come from each image: a class counts more the rarer it is."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from losses.cross_entropy import pixel_cross_entropy
from utils.types import IGNORE_INDEX

Over = Literal["image", "batch"]
Reduction = Literal["mean", "sum"]


def class_shares(labels: Tensor, num_classes: int, *, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Share of each class among the labelled pixels of each image.

    Nothing here waits for the device.

    Args:
        labels: (N, H, W), any integer type, below ``num_classes`` or ``ignore_index``.
        num_classes: C.
        ignore_index: label of pixels that do not count; it may be C.

    Returns:
        (N, C) float32 in [0, 1]; a row sums to 1, or is 0 where an image has no labelled pixel.
    """
    known = labels.long().masked_fill(labels == ignore_index, num_classes)
    # One histogram for each row of pixels: on a GPU fewer additions meet in one cell.
    rows = known.new_zeros(*known.shape[:2], num_classes + 1)
    rows.scatter_add_(2, known, known.new_ones(1).expand_as(known))
    counts = rows.sum(1)[:, :num_classes]
    return counts.float() / counts.sum(1, keepdim=True).clamp(min=1)


def rarity_weights(shares: Tensor, bound: float) -> Tensor:
    """w_c = 1 + bound (1 - h_c) for classes that are present, 1 for the others.

    Args:
        shares: (N, C), h in [0, 1].
        bound: what is added at most, at least 0.

    Returns:
        (N, C), in [1, 1 + bound].

    Raises:
        ValueError: if the bound is negative.
    """
    if bound < 0:
        raise ValueError(f"the bound of the class weights is {bound:g}; it must be at least 0")
    return torch.where(shares > 0, 1 + bound * (1 - shares), 1.0)


def reduce_images(losses: Tensor, reduction: Reduction) -> Tensor:
    """Mean or sum of the losses (N,) of the images of a batch.

    The mean counts every image, also one without a labelled pixel, whose loss is 0: it is the sum
    divided by N. A published learning rate for the sum over B images per process becomes B times
    as large with the mean, and the weight decay is divided by B; with one image per process, as
    AbeT was trained, nothing changes.
    """
    return losses.mean() if reduction == "mean" else losses.sum()


def image_weighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    bound: float = 1.0,
    over: Over = "image",
    reduction: Reduction = "mean",
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Weighted mean sum_p w_y(p) CE(p) / sum_p w_y(p) of every image (Zhu et al. 2019, code).

    The weights are ``rarity_weights`` of the shares of the classes. Differs from the published
    code in that void never counts as the last class, and in the mean over images, where
    ``reduction="sum"`` is what was published.

    Args:
        logits: (N, C, H, W), unnormalised; computed in float32 or wider.
        labels: (N, H, W), any integer type.
        weight: (N, H, W), factor of each pixel's CE; it does not enter the divisor.
        bound: greatest extra weight of a class; 0 is the plain mean of each image, AbeT takes 6
            on Mapillary Vistas.
        over: whether shares are of the pixels of each "image" or of the whole "batch" of this
            process. The divisor is the image's own in both.
        reduction: over the images, see ``reduce_images``.
        ignore_index: label of pixels that do not count.

    Returns:
        Scalar in float32 or wider; exactly 0, with zero gradient, when no pixel is labelled.

    Raises:
        ValueError: if the bound is negative.
    """
    num_classes = logits.shape[1]
    loss = pixel_cross_entropy(logits, labels, ignore_index=ignore_index)
    if over == "batch":
        shares = class_shares(labels.flatten(0, 1)[None], num_classes, ignore_index=ignore_index)
        shares = shares.expand(len(labels), -1)
    else:
        shares = class_shares(labels, num_classes, ignore_index=ignore_index)
    valid = labels != ignore_index
    known = labels.long().masked_fill(~valid, 0).flatten(1)
    rarity = rarity_weights(shares, bound).to(loss.dtype).gather(1, known).view_as(loss) * valid
    loss = loss * rarity
    if weight is not None:
        loss = loss * weight
    total = rarity.sum((1, 2))
    # At least 1 wherever a pixel is labelled, since no weight is less.
    return reduce_images(loss.sum((1, 2)) / total.clamp(min=1), reduction)
