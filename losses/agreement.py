"""Agreement of two heads on unlabelled images: memory regularization, entropy, disagreement.

Zheng and Yang, "Unsupervised scene adaptation with memory regularization in vivo" (IJCAI 2020,
arXiv 1912.11164), with the published code's fused teacher as the default.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Target = Literal["fused", "symmetric"]


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the classes of logits (N, C, H, W), in float32 or wider."""
    return F.log_softmax(logits, 1, dtype=torch.promote_types(logits.dtype, torch.float32))


class PixelDivergence(Function):
    """What ``pixel_divergence`` computes, keeping nothing but its two arguments.

    The softmaxes keep those already; automatic differentiation would keep two more such maps.
    """

    @staticmethod
    def forward(ctx: Any, log_reference: Tensor, log_other: Tensor) -> Tensor:
        """From two maps (N, C, H, W) to nats (N, H, W)."""
        ctx.save_for_backward(log_reference, log_other)
        terms = (log_reference - log_other).mul_(log_reference.exp())
        return terms.sum(1).clamp_(min=0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The gradient (N, H, W) times q (log q - log p + 1) and times -q."""
        log_reference, log_other = ctx.saved_tensors
        share = log_reference.exp().mul_(upstream[:, None])
        to_reference = to_other = None
        if ctx.needs_input_grad[0]:
            to_reference = (log_reference - log_other).add_(1).mul_(share)
        if ctx.needs_input_grad[1]:
            to_other = share.neg_()
        return to_reference, to_other


def pixel_divergence(log_reference: Tensor, log_other: Tensor) -> Tensor:
    """KL(q || p) = sum_c q_c (log q_c - log p_c) of every pixel, q the reference.

    Args:
        log_reference: (N, C, H, W), ``log_probabilities`` of the reference.
        log_other: (N, C, H, W), those of the other.

    Returns:
        (N, H, W), nats, at least 0; exactly 0 where the two are equal.
    """
    return PixelDivergence.apply(log_reference, log_other)


def disagreement(reference: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(other)) of every pixel, with gradient in both.

    Args:
        reference: (N, C, H, W), logits.
        other: (N, C, H, W), logits.

    Returns:
        (N, H, W), nats, at least 0, float32 or wider.
    """
    return pixel_divergence(log_probabilities(reference), log_probabilities(other))


def fused_log_probabilities(log_main: Tensor, log_aux: Tensor, fuse_weight: float) -> Tensor:
    """Log-softmax of main + w aux, given ``log_probabilities`` (N, C, H, W) of both heads.

    They differ from the logits by a constant of each pixel, which no softmax sees.
    """
    return F.log_softmax(torch.add(log_main, log_aux, alpha=fuse_weight), 1)


def memory_regularization(
    main: Tensor, aux: Tensor, *, target: Target = "fused", fuse_weight: float = 0.5
) -> Tensor:
    """Mean over the pixels of KL(m || S(main)) + KL(m || S(aux)), m = S(main + w aux).

    Args:
        main: (N, C, H, W), logits of the main head.
        aux: (N, C, H, W), logits of the auxiliary head.
        target: "fused" takes m without gradient, as the published code; "symmetric" the paper's
            KL(S(aux) || S(main)) + KL(S(main) || S(aux)), with gradient in all four places.
        fuse_weight: w, at least 0.

    Returns:
        Scalar in nats, at least 0, float32 or wider. "symmetric" is 0 only where the heads agree;
        "fused" not even there, unless w is 0 or both are uniform: S(z + w z) is sharper than S(z).
    """
    log_main, log_aux = log_probabilities(main), log_probabilities(aux)
    if target == "symmetric":
        first, second = log_aux, log_main
    else:
        with torch.no_grad():
            first = second = fused_log_probabilities(log_main, log_aux, fuse_weight)
    return (pixel_divergence(first, log_main) + pixel_divergence(second, log_aux)).mean()


def confidence_weighted_entropy(main: Tensor, aux: Tensor, *, fuse_weight: float = 0.5) -> Tensor:
    """Mean over the pixels of sum_c p_c^2 times the entropy of p = S(main + w aux).

    Args:
        main: (N, C, H, W), logits of the main head.
        aux: (N, C, H, W), logits of the auxiliary head.
        fuse_weight: w, at least 0.

    Returns:
        Scalar in nats, in [0, log C], float32 or wider; the factor sum_c p_c^2 has no gradient.
    """
    fused = fused_log_probabilities(log_probabilities(main), log_probabilities(aux), fuse_weight)
    probs = fused.exp()
    confidence = probs.detach().square().sum(1)
    return -(confidence * (probs * fused).sum(1)).mean()
