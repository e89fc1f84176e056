"""Dice loss for data sets of two classes, alone and mixed with cross entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.cross_entropy import Normalize, cross_entropy
from utils.types import IGNORE_INDEX

SMOOTH = 1e-6


def dice_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """1 - (2 sum p y + s) / (sum p + sum y + s), p the sigmoid of channel 1, s = 1e-6.

    The sums run over the labelled pixels of the whole batch.

    Args:
        logits: (N, 2, H, W), background and foreground.
        labels: (N, H, W), 0, 1 or ``ignore_index``.
        weight: (N, H, W), factor of each pixel in all three sums.
        ignore_index: label of pixels that do not count.

    Returns:
        Scalar in [0, 1], float32 or wider; 0, with zero gradient, when no pixel is labelled.

    Raises:
        ValueError: if there are not exactly two classes.
    """
    if logits.shape[1] != 2:
        raise ValueError(f"dice is for data sets of 2 classes; this one has {logits.shape[1]}")
    foreground = logits[:, 1].to(torch.promote_types(logits.dtype, torch.float32))
    share = (labels != ignore_index).to(foreground.dtype)
    if weight is not None:
        share = share * weight
    probs = torch.sigmoid(foreground)
    truth = (labels == 1).to(probs.dtype) * share
    total = (probs * share).sum() + truth.sum()
    return 1 - (2 * (probs * truth).sum() + SMOOTH) / (total + SMOOTH)


def hybrid_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    normalize: Normalize = "valid",
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """0.5 ``cross_entropy`` + 0.5 ``dice_loss``, for data sets of two classes.

    Args:
        logits: (N, 2, H, W), background and foreground.
        labels: (N, H, W), 0, 1 or ``ignore_index``.
        weight: (N, H, W), factor of each pixel in both parts.
        normalize: divisor of the cross entropy.
        ignore_index: label of pixels that do not count.

    Raises:
        ValueError: if there are not exactly two classes.
    """
    dice = dice_loss(logits, labels, weight=weight, ignore_index=ignore_index)
    entropy = cross_entropy(
        logits, labels, weight=weight, normalize=normalize, ignore_index=ignore_index
    )
    return 0.5 * entropy + 0.5 * dice
