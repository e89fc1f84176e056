"""Bilinear upsampling of maps, and of the norm of features that are never upsampled themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK = 1 << 20  # values whose products are summed at once where no gradient is wanted


def wide(values: Tensor) -> Tensor:
    """Values of half precision in float32, others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def upsample(maps: Tensor, size: Sequence[int] | None, *, align_corners: bool = False) -> Tensor:
    """Bilinear to (H, W), at least in float32; as they are where no size is given.

    Casting before is cheaper than casting the large map, and more exact.
    """
    if size is None:
        return maps
    return F.interpolate(wide(maps), tuple(size), mode="bilinear", align_corners=align_corners)


def upsampled_square_norm(
    features: Tensor, size: Sequence[int], *, align_corners: bool = False
) -> Tensor:
    """|up(f)|^2 over the channels, without up(f).

    A pixel of up(f) is a blend sum_ij u_i v_j f_ij of four neighbours, i and j in {0, 1}, and its
    square sum_ij sum_kl u_i u_k v_j v_l <f_ij, f_kl>. The inner products are five maps: of f with
    itself, with its right, its lower and its two diagonal neighbours (the latter two share one
    factor and are added up). They are blended along the columns, then along the rows.

    Args:
        features: (N, P, h, w), float32 or wider.
        size: (H, W) of the result, larger or smaller.
        align_corners: as in ``torch.nn.functional.interpolate``.

    Returns:
        (N, 1, H, W), exact up to rounding.
    """
    own, right, lower, diagonal = NeighbourProducts.apply(features)
    rows = taps(features.shape[-2], size[0], align_corners, features.device, features.dtype)
    columns = taps(features.shape[-1], size[1], align_corners, features.device, features.dtype)
    alike = columns.squares(own, 3) + 2 * columns.cross(right, 3)
    unlike = columns.squares(lower, 3) + columns.cross(diagonal, 3)
    return rows.squares(alike, 2) + 2 * rows.cross(unlike, 2)


class Taps(NamedTuple):
    """Where bilinear interpolation reads along one axis: (1 - share) x[first] + share x[second]."""

    first: Tensor  # (L,), int64
    second: Tensor  # (L,), int64, first + 1 or, at the end of the axis, first
    share: Tensor  # (L,), in [0, 1)

    def squares(self, maps: Tensor, axis: int) -> Tensor:
        """(1 - share)^2 x[first] + share^2 x[second] along an axis of (N, 1, h, w)."""
        share = self._along(axis)
        first, second = maps.index_select(axis, self.first), maps.index_select(axis, self.second)
        return first * (1 - share).square() + second * share.square()

    def cross(self, products: Tensor, axis: int) -> Tensor:
        """(1 - share) share x[first]; x[i] is of i and i + 1 and so one shorter than the axis."""
        share = self._along(axis)
        if products.shape[axis] == 0:  # an axis of length 1 has no neighbours
            shape = list(products.shape)
            shape[axis] = len(self.first)
            return products.new_zeros(shape)
        place = self.first.clamp(max=products.shape[axis] - 1)  # beyond it the share is 0
        return products.index_select(axis, place) * ((1 - share) * share)

    def _along(self, axis: int) -> Tensor:
        """The shares as they multiply maps (N, 1, h, w) along an axis."""
        return self.share.view([-1, 1] if axis == 2 else [-1])


@cache  # made on the device, it would wait for it in every batch
def taps(
    length: int, size: int, align_corners: bool, device: torch.device, dtype: torch.dtype
) -> Taps:
    """The taps that bring an axis of a length to a size, in the arithmetic of torch."""
    target = torch.arange(size, dtype=dtype)
    if align_corners:
        place = target * ((length - 1) / (size - 1) if size > 1 else 0.0)
    else:
        place = ((target + 0.5) * (length / size) - 0.5).clamp(min=0)
    first = place.long().clamp(max=length - 1)
    share = torch.where(first < length - 1, place - first, 0)
    second = (first + 1).clamp(max=length - 1)
    return Taps(first.to(device), second.to(device), share.to(device))


def inner_products(first: Tensor, second: Tensor) -> Tensor:
    """Sums over the channels of products of two maps (N, P, h, w), (N, 1, h, w)."""
    if torch.is_grad_enabled() or first.numel() == 0:
        return (first * second).sum(1, keepdim=True)
    rows = _rows_at_once(first)
    pairs = zip(first.split(rows, 2), second.split(rows, 2), strict=True)
    return torch.cat([(one * other).sum(1, keepdim=True) for one, other in pairs], 2)


class NeighbourProducts(torch.autograd.Function):
    """Inner products of features (N, P, h, w) with themselves and with their neighbours.

    Four maps: with itself (N, 1, h, w), with the right neighbour (N, 1, h, w - 1), with the lower
    one (N, 1, h - 1, w), and of both diagonals of four pixels added up (N, 1, h - 1, w - 1). The
    backward pass is one sum over the nine neighbours of each pixel in place of a map of products
    for each pair, a fifth of the time; it has no derivative of its own.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four maps."""
        ctx.save_for_backward(features)
        above, below = features[:, :, :-1], features[:, :, 1:]
        diagonal = inner_products(above[..., :-1], below[..., 1:])
        return (
            inner_products(features, features),
            inner_products(features[..., :-1], features[..., 1:]),
            inner_products(above, below),
            diagonal + inner_products(above[..., 1:], below[..., :-1]),
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """From the gradients of the four maps to that of the features."""
        (features,) = ctx.saved_tensors
        own, right, lower, diagonal = gradients
        total = torch.empty_like(features)
        height = features.shape[2]
        rows = _rows_at_once(features)
        for top in range(0, height, rows):
            end = min(top + rows, height)
            part = total[:, :, top:end]
            torch.mul(features[:, :, top:end], 2 * own[:, :, top:end], out=part)
            _add_sides(part, features[:, :, top:end], right[:, :, top:end])
            for first, row_part, source in (
                (top, part[:, :, : min(end, height - 1) - top], 1),  # from the row below
                (max(top, 1) - 1, part[:, :, max(top, 1) - top :], 0),  # from the row above
            ):
                pairs = slice(first, first + row_part.shape[2])
                rows_of = features[:, :, first + source : first + source + row_part.shape[2]]
                row_part.addcmul_(rows_of, lower[:, :, pairs])
                _add_sides(row_part, rows_of, diagonal[:, :, pairs])
        return total


def _add_sides(total: Tensor, features: Tensor, products: Tensor) -> None:
    """Add to each pixel its right and left neighbours, times what links the two columns."""
    total[..., :-1].addcmul_(features[..., 1:], products)
    total[..., 1:].addcmul_(features[..., :-1], products)


def _rows_at_once(features: Tensor) -> int:
    """How many rows of features (N, P, h, w) a cache holds."""
    return max(1, BLOCK // max(1, features.shape[0] * features.shape[1] * features.shape[3]))
