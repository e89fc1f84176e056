"""Focal loss: cross entropy that fades where the model is already right."""

from __future__ import annotations

import torch
from torch import Tensor

from losses.cross_entropy import Normalize, mean_over_pixels, pixel_cross_entropy
from losses.underfitting import Underfitting
from utils.types import IGNORE_INDEX


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    gamma: float = 0.0,
    alpha: float = 1.0,
    normalize: Normalize = "all",
    ignore_index: int = IGNORE_INDEX,
    underfit: Underfitting | None = None,
) -> Tensor:
    """Mean of alpha (1 - p_y)^gamma CE (Lin et al. 2017, Eq. 5).

    With the published defaults, alpha 1, gamma 0 and the mean over all pixels, it is cross
    entropy divided by the number of pixels, void ones included; gamma is usually 2.

    Args:
        logits: (N, C, H, W), unnormalised.
        labels: (N, H, W), any integer type.
        weight: (N, H, W), factor of each pixel.
        gamma: focusing exponent, at least 0.
        alpha: factor of the whole loss.
        normalize: "all" divides by the number of pixels, "valid" by that of labelled ones.
        ignore_index: label of pixels that do not count.
        underfit: of ``mean_over_pixels``.

    Returns:
        Scalar in float32 or wider; exactly 0, with zero gradient, when no pixel is labelled.
    """
    loss = pixel_cross_entropy(logits, labels, ignore_index=ignore_index)
    if gamma:
        # 1 - p_y = -expm1(-CE). The floor keeps x^gamma differentiable where p_y is 1.
        wrong = (-torch.expm1(-loss)).clamp(min=torch.finfo(loss.dtype).tiny)
        loss = wrong**gamma * loss
    if weight is not None:
        loss = loss * weight
    share = (labels != ignore_index).to(loss.dtype)
    return mean_over_pixels(alpha * loss, share, normalize, underfit)
