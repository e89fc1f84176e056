"""Cross entropy that counts a pixel more the less sure a network is about it."""

from __future__ import annotations

from torch import Tensor

from losses.cross_entropy import Normalize, cross_entropy
from losses.underfitting import Underfitting
from utils.types import IGNORE_INDEX

INSTANCE_EXPONENT = 2  # of the published instance-wise loss


def uncertainty_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    uncertainty: Tensor,
    normalize: Normalize = "all",
    ignore_index: int = IGNORE_INDEX,
    underfit: Underfitting | None = None,
) -> Tensor:
    """Mean of (1 + U)^2 CE (Almeida, Dutra, Renna 2024, arXiv 2407.12609).

    Args:
        logits: (N, C, H, W), unnormalised.
        labels: (N, H, W), any integer type.
        uncertainty: (N, H, W), U in nats, at least 0; no gradient flows into it.
        normalize: "all" divides by the number of pixels, void included, as published; "valid" by
            that of labelled ones.
        ignore_index: label of pixels that do not count.
        underfit: of ``mean_over_pixels``.

    Returns:
        Scalar in float32 or wider: cross entropy where U is 0, four times it where U is 1.
    """
    return uce(
        logits,
        labels,
        uncertainty=uncertainty,
        alpha=INSTANCE_EXPONENT,
        normalize=normalize,
        ignore_index=ignore_index,
        underfit=underfit,
    )


def uce(
    logits: Tensor,
    labels: Tensor,
    *,
    uncertainty: Tensor,
    alpha: float = 0.0,
    normalize: Normalize = "all",
    ignore_index: int = IGNORE_INDEX,
    underfit: Underfitting | None = None,
) -> Tensor:
    """Mean of (1 + sigma)^alpha CE: pixel-wise uncertainty-aware cross entropy (U-CE).

    Args:
        logits: (N, C, H, W), unnormalised.
        labels: (N, H, W), any integer type.
        uncertainty: (N, H, W), sigma, the deviation of the predicted class's probability over
            stochastic passes, in [0, 1]; no gradient flows into it.
        alpha: exponent; 0, the published default, is cross entropy.
        normalize: "all" divides by the number of pixels, void included, as published; "valid" by
            that of labelled ones.
        ignore_index: label of pixels that do not count.
        underfit: of ``mean_over_pixels``.

    Returns:
        Scalar in float32 or wider.
    """
    weight = (1 + uncertainty.detach()) ** alpha
    return cross_entropy(
        logits,
        labels,
        weight=weight,
        normalize=normalize,
        ignore_index=ignore_index,
        underfit=underfit,
    )
