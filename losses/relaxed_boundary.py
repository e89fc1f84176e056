"""Boundary label relaxation: near a boundary any class of the neighbourhood is right.

Zhu et al. 2019, arXiv 1812.01593, section 3.3, with the weights of the published code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from losses.image_weighted import Reduction, rarity_weights, reduce_images
from utils.types import IGNORE_INDEX


def relaxed_target(
    labels: Tensor,
    num_classes: int,
    *,
    window: int = 1,
    strict_classes: Sequence[int] = (),
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Which labels occur in the (2 window + 1)^2 neighbourhood of each pixel.

    Void is the last channel; what lies outside of the image counts as void.

    Args:
        labels: (N, H, W), any integer type, below ``num_classes`` or ``ignore_index``.
        num_classes: C, at most 255.
        window: distance up to which neighbours count, at least 0.
        strict_classes: pixels of these classes keep their own label alone.
        ignore_index: label of void pixels; it may be C.

    Returns:
        (N, C + 1, H, W) bool.

    Raises:
        ValueError: if the window is negative or a strict class is none of the classes.
    """
    check_settings(num_classes, window, strict_classes)
    known = labels.long().masked_fill(labels == ignore_index, num_classes)
    padded = F.pad(known, (window,) * 4, value=num_classes)[:, None]
    shape = (len(padded), num_classes + 1, *padded.shape[2:])
    planes = torch.zeros(shape, dtype=torch.bool, device=labels.device)
    planes.scatter_(1, padded, True)
    target = union_of_shifts(union_of_shifts(planes, window, axis=3), window, axis=2)
    if strict_classes and window:
        target.masked_fill_(is_one_of(known, strict_classes)[:, None], False)
        target.scatter_(1, known[:, None], True)  # their own label, and what others had anyway
    return target


def check_settings(num_classes: int, window: int, strict_classes: Sequence[int]) -> None:
    """Refuse what no target can be built for.

    Raises:
        ValueError: if the window is negative or a strict class is none of the C classes.
    """
    assert num_classes <= 255, num_classes
    if window < 0:
        raise ValueError(f"the border window is {window}; it must be 0 (no relaxation) or more")
    for index in strict_classes:
        if not 0 <= index < num_classes:
            raise ValueError(
                f"strict class {index} is none of the {num_classes} classes;"
                f" give ids from 0 to {num_classes - 1}"
            )


def union_of_shifts(planes: Tensor, window: int, *, axis: int) -> Tensor:
    """Running "or" over 2 window + 1 neighbours along an axis, which gets 2 window shorter."""
    size = planes.shape[axis] - 2 * window
    union = planes.narrow(axis, 0, size)
    if window:
        union = union.clone()
    for offset in range(1, 2 * window + 1):
        union |= planes.narrow(axis, offset, size)
    return union


def is_one_of(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Whether each label is one of the classes: a bool mask of the same shape."""
    mask = torch.zeros_like(labels, dtype=torch.bool)
    for index in classes:  # torch.isin would bring the ids to the device, and wait
        mask |= labels == index
    return mask


def boundary_pixels(labels: Tensor) -> Tensor:
    """Whether a pixel has another label above, below, left or right of it.

    Args:
        labels: (N, H, W), any integer type; void is a label like the others.

    Returns:
        (N, H, W) bool; the edge of the image is no boundary.
    """
    boundary = torch.zeros_like(labels, dtype=torch.bool)
    vertical = labels[:, 1:] != labels[:, :-1]
    horizontal = labels[:, :, 1:] != labels[:, :, :-1]
    boundary[:, 1:] |= vertical
    boundary[:, :-1] |= vertical
    boundary[:, :, 1:] |= horizontal
    boundary[:, :, :-1] |= horizontal
    return boundary


class SetCrossEntropy(Function):
    """What ``set_cross_entropy`` computes, with a backward pass of its own to save memory.

    Only logits and sets are kept for the backward pass: automatic differentiation would keep two
    more float maps of all classes.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, members: Tensor) -> Tensor:
        """From logits and sets (N, C, H, W) to nats (N, H, W)."""
        wide = widened(logits)
        highest = wide.amax(1, keepdim=True)
        work = (wide - highest).exp_()  # the one float map of all classes, used twice
        log_total = work.sum(1, keepdim=True).log_()
        # Finite, so that an empty set gives finite numbers, which are replaced at the end.
        work.copy_(wide).masked_fill_(~members, torch.finfo(work.dtype).min)
        highest_inside = work.amax(1, keepdim=True)
        log_inside = work.sub_(highest_inside).exp_().sum(1, keepdim=True).log_()
        ctx.save_for_backward(logits, members, highest_inside + log_inside)
        nats = (highest - highest_inside) + (log_total - log_inside)
        return torch.where(members.any(1), nats[:, 0], 0).clamp(min=0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        """Softmax over all classes less softmax over the set, times the gradient (N, H, W)."""
        logits, members, log_sum_inside = ctx.saved_tensors
        wide = widened(logits)
        gradient = wide.softmax(1)
        inside = (wide - log_sum_inside).masked_fill_(~members, float("-inf")).exp_()
        gradient.sub_(inside).mul_(upstream.masked_fill(~members.any(1), 0)[:, None])
        return gradient.to(logits.dtype), None


def widened(logits: Tensor) -> Tensor:
    """Logits in float32 or wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def set_cross_entropy(logits: Tensor, members: Tensor) -> Tensor:
    """-log sum_(c in set) softmax(logits)_c of every pixel.

    Args:
        logits: (N, C, H, W), unnormalised; computed in float32 or wider.
        members: (N, C, H, W) bool, the set of each pixel.

    Returns:
        (N, H, W), nats, at least 0; 0, with zero gradient, where the set is empty.
    """
    return SetCrossEntropy.apply(logits, members)


def relaxed_boundary_loss(  # noqa: PLR0913 - the published settings, each by its name
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    bound: float = 1.0,
    window: int = 1,
    relaxed: bool = True,
    strict_classes: Sequence[int] = (),
    boundary_weight: float = 2.0,
    reduction: Reduction = "mean",
    ignore_index: int = IGNORE_INDEX,
) -> Tensor:
    """Class-weighted -log of the probability of the labels around each pixel, image by image.

    With t(p) the ``relaxed_target`` of pixel p without void, k(p) = sum_c t_c(p), the pixels with
    k = 0 left out, and omega the ``rarity_weights`` of the counts of t::

        L = sum_p f(p) sum_c t_c(p) omega_c (-log q_c(p)) / (pixels - left out + 1)
        q_c = max(softmax_c, t_c sum_j t_j softmax_j),  f = 1 / k

    All q_c of the set are the probability of the set, so that -log is taken once a pixel. As
    published, the shares in omega have void, too, in the divisor, and a void pixel within reach of
    a class trains that class.

    Once relaxation is off, the window is halved by integer division (1 gives plain labels), pixels
    of a boundary enter counts and k ``boundary_weight`` times, and f = k: they weigh double. The
    published training relaxes up to and with epoch ``rlx_off_epoch``, while its learning rate
    starts anew at that epoch already (see ``utils.scheduler``).

    Differs from the published code where that is wrong: finite for any finite logits, and the k
    of an image divides its own loss alone. ``reduction="sum"`` is what was published.

    Args:
        logits: (N, C, H, W), unnormalised; computed in float32 or wider.
        labels: (N, H, W), any integer type.
        weight: (N, H, W), factor of each pixel's loss; it does not enter the divisor.
        bound: greatest extra weight of a class.
        window: distance up to which neighbours count, at least 0.
        relaxed: whether relaxation is on.
        strict_classes: pixels of these classes keep their own label alone.
        boundary_weight: of pixels that touch another label, void included, once relaxation is
            off; above 0, and 1 treats all pixels alike.
        reduction: over the images, see ``reduce_images``.
        ignore_index: label of void pixels.

    Returns:
        Scalar in float32 or wider; exactly 0, with zero gradient, when no pixel is labelled.

    Raises:
        ValueError: if the window or the bound is negative, a strict class is none of the classes
            or the boundary weight is not positive.
    """
    if boundary_weight <= 0:
        raise ValueError(f"the boundary weight is {boundary_weight:g}; it must be above 0")
    num_classes = logits.shape[1]
    check_settings(num_classes, window, strict_classes)  # of the window as given, not halved
    target = relaxed_target(
        labels,
        num_classes,
        window=window if relaxed else window // 2,
        strict_classes=strict_classes,
        ignore_index=ignore_index,
    )
    members = target[:, :num_classes]
    loss = set_cross_entropy(logits, members)
    code = torch.ones_like(loss)
    if not relaxed:
        code = torch.where(boundary_pixels(labels), boundary_weight, code)
    omega = rarity_weights(count_shares(target, code), bound).to(loss.dtype)
    size = members.sum(1, dtype=torch.uint8)  # enough for 255 classes
    k = size.clamp(min=1) * code
    factor = sum_of_weights(members, omega) * (1 / k if relaxed else k)
    if weight is not None:
        factor = factor * weight
    counted = (size > 0).sum((1, 2))
    return reduce_images((factor * loss).sum((1, 2)) / (counted + 1), reduction)


def count_shares(target: Tensor, code: Tensor) -> Tensor:
    """Share of each class in all entries of a target, void among them.

    Args:
        target: (N, C + 1, H, W) bool, void last.
        code: (N, H, W), how often a pixel's entries count.

    Returns:
        (N, C) in [0, 1], float32.
    """
    # Plane by plane: on a CPU ten times as fast as one sum over a map of all planes.
    counts = torch.stack([(plane * code).sum((1, 2)) for plane in target.unbind(1)], 1)
    return (counts[:, :-1] / counts.sum(1, keepdim=True)).float()


def sum_of_weights(members: Tensor, omega: Tensor) -> Tensor:
    """Sum of the class weights (N, C) over the set of each pixel (N, C, H, W): (N, H, W)."""
    total = omega.new_zeros(members[:, 0].shape)
    for plane, one in zip(members.unbind(1), omega.unbind(1), strict=True):
        total += plane * one[:, None, None]
    return total
