"""Cross entropy over the pixels of a segmentation, plain and with class weights."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.underfitting import Underfitting, pretended_underfitting
from utils.types import IGNORE_INDEX

Normalize = Literal["valid", "all"]


def pixel_cross_entropy(
    logits: Tensor, labels: Tensor, *, ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """-log softmax(logits)[label] of every pixel, 0 where the label is ``ignore_index``.

    Args:
        logits: (N, C, H, W), unnormalised; computed in float32 or wider, also under autocast.
        labels: (N, H, W), any integer type.
        ignore_index: label of pixels that do not count.

    Returns:
        (N, H, W), nats, at least 0.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide, labels.long(), ignore_index=ignore_index, reduction="none")


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    class_weights: Tensor | None = None,
    normalize: Normalize = "valid",
    ignore_index: int = IGNORE_INDEX,
    underfit: Underfitting | None = None,
) -> Tensor:
    """Mean cross entropy: sum_x weight(x) w_y(x) CE(x) divided by what ``normalize`` says.

    Args:
        logits: (N, C, H, W), unnormalised.
        labels: (N, H, W), any integer type.
        weight: (N, H, W), factor of each pixel; it does not enter the divisor.
        class_weights: (C,), factor w_c of each class.
        normalize: "valid" divides by the labelled pixels, or by the sum of their class weights
            as torch does; "all" by the number of all pixels.
        ignore_index: label of pixels that do not count.
        underfit: of ``mean_over_pixels``.

    Returns:
        Scalar in float32 or wider; exactly 0, with zero gradient, when no pixel is labelled.
    """
    loss = pixel_cross_entropy(logits, labels, ignore_index=ignore_index)
    share = (labels != ignore_index).to(loss.dtype)
    if class_weights is not None:
        known = labels.long().masked_fill(labels == ignore_index, 0)
        share = share * class_weights.to(loss)[known]
        loss = loss * share
    if weight is not None:
        loss = loss * weight
    return mean_over_pixels(loss, share, normalize, underfit)


def mean_over_pixels(
    loss: Tensor, share: Tensor, normalize: Normalize, underfit: Underfitting | None = None
) -> Tensor:
    """The mean of losses that are weighted already, transformed where the network fits too well.

    Args:
        loss: (N, H, W), 0 where there is no label.
        share: (N, H, W), of ``divisor``.
        normalize: of ``divisor``; with "valid" pixels without a share count nowhere.
        underfit: settings of ``pretended_underfitting``; None for the mean alone.
    """
    total = divisor(share, normalize)
    if underfit is None:
        return loss.sum() / total
    labelled = share > 0 if normalize == "valid" else None
    return pretended_underfitting(loss, **underfit._asdict(), labelled=labelled, divisor=total)


def divisor(share: Tensor, normalize: Normalize) -> Tensor:
    """What a sum over pixels is divided by; 1 where there is nothing to divide by.

    Args:
        share: (N, H, W), class weight of a labelled pixel (1 without class weights), 0 elsewhere.
        normalize: "valid" for the sum of ``share``, "all" for the number of pixels.
    """
    if normalize == "all":
        return share.new_full((), share.numel())  # a copy from the host would wait for the device
    total = share.sum()
    return torch.where(total > 0, total, torch.ones_like(total))
