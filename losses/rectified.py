"""Cross entropy of pseudo labels, rectified where two heads disagree.

Zheng and Yang, "Rectifying pseudo label learning via uncertainty estimation for domain adaptive
semantic segmentation" (IJCV 2021, arXiv 2003.03773).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from losses.agreement import log_probabilities, pixel_divergence
from losses.class_balance import pixel_weights
from losses.cross_entropy import Normalize
from utils.distributed import ratio_over_processes
from utils.types import IGNORE_INDEX

Direction = Literal["per_head", "main_aux", "aux_main", "mse"]


def head_variance(
    log_probs: Tensor, log_other: Tensor, direction: Direction, *, is_main: bool
) -> Tensor:
    """V of every pixel: the distance of one head's distribution to the other head's.

    Args:
        log_probs: (N, C, H, W), ``log_probabilities`` of the head that is trained.
        log_other: (N, C, H, W), those of the other head.
        direction: "per_head" is KL(other || head), as the published code has it; "main_aux" is
            KL(main || aux), the paper's; "aux_main" the reverse; "mse" the squared difference of
            the probabilities, summed over the classes.
        is_main: whether ``log_probs`` is the main head's.

    Returns:
        (N, H, W), at least 0: nats, or in [0, 2] for "mse".
    """
    if direction == "mse":
        return (log_probs.exp() - log_other.exp()).square().sum(1)
    if direction == ("main_aux" if is_main else "aux_main"):
        return pixel_divergence(log_probs, log_other)
    return pixel_divergence(log_other, log_probs)


def rectified_mean(
    log_probs: Tensor,
    variance: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    detach: bool = False,
    normalize: Normalize = "all",
) -> Tensor:
    """mean(w_y (-log p_y) exp(-V)) + mean(V), see ``rectified_cross_entropy``.

    Args:
        log_probs: (N, C, H, W), ``log_probabilities`` of the head that is trained.
        variance: (N, H, W), V, at least 0.
        labels: (N, H, W), any integer type.
        class_weights: (C,).
        detach: whether exp(-V) has no gradient.
        normalize: of both means.
    """
    known = None if class_weights is None else class_weights.to(log_probs.dtype)
    loss = F.nll_loss(
        log_probs, labels.long(), known, ignore_index=IGNORE_INDEX, reduction="none"
    ) * torch.exp(-(variance.detach() if detach else variance))
    if normalize == "all":
        return loss.mean() + variance.mean()
    labelled = (labels != IGNORE_INDEX).to(variance.dtype)
    share = labelled if known is None else pixel_weights(labels, known)
    return ratio_over_processes(loss.sum(), share.sum()) + ratio_over_processes(
        (variance * labelled).sum(), labelled.sum()
    )


def rectified_cross_entropy(
    logits: Tensor,
    other: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    direction: Direction = "per_head",
    is_main: bool,
    detach: bool = False,
    normalize: Normalize = "all",
) -> Tensor:
    """mean(w_y CE exp(-V)) + mean(V), V the ``head_variance``: the loss of one head.

    Gradient flows into both heads. As published, void pixels stay in both means: they dilute the
    cross entropy, keep their V, and the class weights are not divided by.

    Args:
        logits: (N, C, H, W) of the head that is trained; computed in float32 or wider.
        other: (N, C, H, W), logits of the other head.
        labels: (N, H, W), any integer type; void 255.
        class_weights: (C,), w; None for 1.
        direction: of V, see ``head_variance``.
        is_main: whether ``logits`` is the main head's.
        detach: whether exp(-V) has no gradient, so that the heads cannot lower the cross entropy
            by disagreeing; mean(V) keeps its own.
        normalize: "all" takes both means over all pixels, as published; "valid" divides the cross
            entropy by the class weights of the labelled pixels and takes V over those alone.

    Returns:
        Scalar, at least 0, float32 or wider. When no pixel is labelled: mean(V) with "all", and 0
        with zero gradient with "valid".
    """
    log_probs, log_other = log_probabilities(logits), log_probabilities(other)
    variance = head_variance(log_probs, log_other, direction, is_main=is_main)
    return rectified_mean(
        log_probs,
        variance,
        labels,
        class_weights=class_weights,
        detach=detach,
        normalize=normalize,
    )


def rectified_losses(
    main: Tensor,
    aux: Tensor,
    labels: Tensor,
    *,
    class_weights: Tensor | None = None,
    direction: Direction = "per_head",
    detach: bool = False,
    normalize: Normalize = "all",
) -> tuple[Tensor, Tensor]:
    """``rectified_cross_entropy`` of the main and of the auxiliary head, with one softmax of each.

    Args:
        main: (N, C, H, W), logits of the main head.
        aux: (N, C, H, W), logits of the auxiliary head.
        labels: (N, H, W), any integer type; void 255.
        class_weights: (C,), None for 1.
        direction: of V.
        detach: whether exp(-V) has no gradient.
        normalize: of both means.

    Returns:
        The main head's loss and the auxiliary head's, scalars.
    """
    log_main, log_aux = log_probabilities(main), log_probabilities(aux)
    of_main = head_variance(log_main, log_aux, direction, is_main=True)
    # Only the published code's V depends on the head that is trained.
    of_aux = of_main
    if direction == "per_head":
        of_aux = head_variance(log_aux, log_main, direction, is_main=False)
    main_loss, aux_loss = (
        rectified_mean(
            log_probs,
            variance,
            labels,
            class_weights=class_weights,
            detach=detach,
            normalize=normalize,
        )
        for log_probs, variance in ((log_main, of_main), (log_aux, of_aux))
    )
    return main_loss, aux_loss
