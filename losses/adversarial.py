"""Least-squares adversarial losses of multi-scale discriminators, with the R1 penalty.

Least squares after Mao et al. 2017 (arXiv 1611.04076), R1 after Mescheder et al. 2018 (arXiv
1801.04406), both with the factors of MRNet's published code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

GENERATOR_FACTOR = 2.0
PENALTY_FACTOR = 0.01


def mean_square(output: Tensor, wanted: float) -> Tensor:
    """Mean of (output - wanted)^2 over a map (N, 1, h, w): scalar, float32 or wider."""
    wide = output.to(torch.promote_types(output.dtype, torch.float32))
    return (wide - wanted).square().mean()


def generator_loss(outputs: Sequence[Tensor]) -> Tensor:
    """sum_k 2 mean((D_k - 1)^2): how far the discriminator is from taking target for source.

    Args:
        outputs: maps (N, 1, h, w), one for each scale, of predictions on target images.

    Returns:
        Scalar, at least 0, float32 or wider.
    """
    return GENERATOR_FACTOR * torch.stack([mean_square(output, 1) for output in outputs]).sum()


def discriminator_loss(fake_outputs: Sequence[Tensor], real_outputs: Sequence[Tensor]) -> Tensor:
    """sum_k mean(D_k(fake)^2) + mean((D_k(real) - 1)^2), without the ``gradient_penalty``.

    Args:
        fake_outputs: maps (N, 1, h, w), one for each scale, of predictions on target images.
        real_outputs: the same of predictions on source images.

    Returns:
        Scalar, at least 0, float32 or wider.
    """
    fake = [mean_square(output, 0) for output in fake_outputs]
    real = [mean_square(output, 1) for output in real_outputs]
    return torch.stack(fake + real).sum()


def gradient_penalty(outputs: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """R1: 0.01 sum_k mean over the images of ||d (sum of D_k) / d input||^2.

    The scales' gradients stay apart: it is the sum of their squared norms. The graph is kept, for
    the backward pass through the penalty and for other losses of the same outputs. A discriminator
    must treat the images of a batch independently.

    Args:
        outputs: maps (N, 1, h, w), one for each scale, in float32 or wider: the discriminator must
            have run with autocast off.
        inputs: (N, C, H, W), what the outputs were computed from, with ``requires_grad``.

    Returns:
        Scalar, at least 0, float32 or wider.
    """
    assert all(output.dtype in (torch.float32, torch.float64) for output in outputs), (
        "the gradient penalty needs outputs of a discriminator that ran without autocast"
    )
    with torch.autocast(inputs.device.type, enabled=False):
        norms = [
            torch.autograd.grad(output.sum(), inputs, create_graph=True)[0].square().sum()
            for output in outputs
        ]
        return PENALTY_FACTOR / len(inputs) * torch.stack(norms).sum()
