"""Gaussian filtering of scattered values on the permutohedral lattice, in plain torch.

Adams, Baek and Davis 2010, "Fast High-Dimensional Filtering Using the Permutohedral Lattice".
Each point lies in a simplex of the lattice A*_d. Values are splatted to the simplex's d + 1
vertices with barycentric weights, blurred by (1/2, 1, 1/2) along the d + 1 directions of the
lattice, and sliced back with the same weights. All three are products with sparse matrices whose
rows are added up one after the other, so that equal inputs give equal bytes each time.
"""

from __future__ import annotations

from itertools import combinations
from math import prod, sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

MAX_CODES = 2**62  # vertices that an int64 tells apart
MAX_CELLS = 2**16  # along one axis, for which float32 still places points within a cell
MARGIN = 8  # cells of an axis beyond the points' own, for vertices and their neighbours


class SparseRows(NamedTuple):
    """A sparse matrix by rows: what is in row i lies from ``offsets[i]`` to ``offsets[i + 1]``."""

    columns: Tensor  # (E,), int32
    weights: Tensor  # (E,), float32
    offsets: Tensor  # (rows + 1,), int32

    def __matmul__(self, dense: Tensor) -> Tensor:
        """The product with a dense matrix (columns, K), float32, contiguous: (rows, K)."""
        return embedding_bag(
            self.columns,
            dense,
            self.offsets,
            mode="sum",
            per_sample_weights=self.weights,
            include_last_offset=True,
        )


class Lattice(NamedTuple):
    """The lattice of one set of N points: M vertices and an empty one behind them."""

    splat: SparseRows  # (M + 1, N)
    blur: tuple[SparseRows, ...]  # d + 1 times (M + 1, M + 1)
    slice: SparseRows  # (N, M + 1)

    def filter(self, values: Tensor) -> Tensor:
        """Approximate sum_j exp(-|f_i - f_j|^2 / 2) v_j, up to a factor that all i share.

        Args:
            values: (N, K), float32, contiguous, on the lattice's device.

        Returns:
            (N, K), float32.
        """
        blurred = self.splat @ values
        for direction in self.blur:
            blurred = direction @ blurred
        return self.slice @ blurred

    def scaled(self, factors: Tensor) -> Lattice:
        """The lattice that multiplies values by ``factors`` before and after it filters them.

        Args:
            factors: (N,), float32.
        """
        splat = self.splat._replace(weights=self.splat.weights * factors[self.splat.columns.long()])
        corners = len(self.blur)
        weights = self.slice.weights.view(-1, corners) * factors[:, None]
        return self._replace(splat=splat, slice=self.slice._replace(weights=weights.flatten()))


class Simplices(NamedTuple):
    """The simplex of each point; vertex r of it has all coordinates equal to r modulo d + 1."""

    origins: Tensor  # (d + 1, N), int64, vertex 0 divided by d + 1
    ranks: Tensor  # (d + 1, N), int64, position of each coordinate in falling order
    weights: Tensor  # (d + 1, N), float32, barycentric, by vertex


class VertexCodes(NamedTuple):
    """Vertices as numbers, and how to go from one to the next."""

    codes: Tensor  # (d + 1, N), int64, row r holds those of the vertices r
    strides: tuple[int, ...]  # d + 1, what one step along each axis adds; 0 for the last one
    block: int  # what the next r adds

    def neighbours(self, found: Tensor, axis: int) -> Tensor:
        """Codes of the vertices that follow some others, (M,), in one of the d + 1 directions.

        A step adds 1 to all coordinates and takes d + 1 from one of them.
        """
        step = self.block - self.strides[axis]
        last = (len(self.strides) - 1) * self.block
        around = sum(self.strides) - len(self.strides) * self.block
        return found + step + (found >= last) * around


def build_lattice(features: Tensor) -> Lattice:
    """The lattice of points whose Gaussian kernel has unit standard deviation.

    Args:
        features: (N, d), any floating type, computed in float32; N and d at least 1.

    Raises:
        ValueError: if the features spread too far to number the lattice's vertices.
    """
    elevated = elevate(features.float())
    refuse_wide_spread(elevated)
    simplices = enclosing_simplices(elevated)
    numbered = vertex_codes(simplices)
    corners, points = numbered.codes.shape
    ordered, order = numbered.codes.flatten().sort(stable=True)
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    starts = begins.nonzero().squeeze(1)
    vertices = torch.empty_like(order)
    vertices[order] = begins.cumsum(0) - 1
    splat = SparseRows(
        (order % points).int(),
        simplices.weights.flatten()[order],
        torch.cat([starts, starts.new_full((2,), order.numel())]).int(),
    )
    slicing = SparseRows(
        vertices.view(corners, points).t().flatten().int(),
        simplices.weights.t().flatten(),
        torch.arange(0, order.numel() + 1, corners, device=order.device, dtype=torch.int32),
    )
    found = ordered[starts]
    return Lattice(splat, blur_directions(found, numbered), slicing)


def elevate(features: Tensor) -> Tensor:
    """Points (N, d) in the hyperplane of R^(d+1) whose coordinates add up to 0: (d + 1, N).

    The factor sqrt(2/3) (d + 1) makes the blur's standard deviation one (Adams et al., page 6).
    """
    columns = features.t()
    dimensions = len(columns)
    total = torch.zeros_like(columns[0])
    elevated = []
    for i in range(dimensions, 0, -1):
        factor = sqrt(2 / 3) * (dimensions + 1) / sqrt(i * (i + 1))
        scaled = columns[i - 1] * factor
        elevated.append(total - i * scaled)
        total = total + scaled
    return torch.stack([total, *reversed(elevated)])


def refuse_wide_spread(elevated: Tensor) -> None:
    """Check that points (d + 1, N) spread over few enough cells of the lattice.

    Raises:
        ValueError: if they do not, or are not finite.
    """
    corners = len(elevated)
    cells = ((elevated.amax(1) - elevated.amin(1)).max() / corners).item()
    if not (cells < MAX_CELLS and corners * (cells + MARGIN) ** (corners - 1) < MAX_CODES):
        raise ValueError(
            f"{corners - 1} features spread over {cells:.0f} cells of the permutohedral lattice, "
            "more than it can number: use greater standard deviations"
        )


def enclosing_simplices(elevated: Tensor) -> Simplices:
    """The simplex that holds each point (d + 1, N) of the hyperplane, by rounding and sorting."""
    corners = len(elevated)
    origins = (elevated / corners).round()
    rest = elevated - origins * corners
    ranks = torch.zeros_like(elevated, dtype=torch.int64)
    for i, j in combinations(range(corners), 2):
        smaller = rest[i] < rest[j]
        ranks[i] += smaller
        ranks[j] += ~smaller
    # Rounding may leave the hyperplane; the coordinates that moved farthest are moved back.
    ranks += origins.sum(0).long()
    back = (ranks < 0).long() - (ranks >= corners).long()
    ranks += corners * back
    origins += back
    rest = elevated / corners - origins
    rising = torch.empty_like(rest).scatter_(0, corners - 1 - ranks, rest)
    return Simplices(origins.long(), ranks, rising.diff(dim=0, prepend=rising[-1:] - 1))


def vertex_codes(simplices: Simplices) -> VertexCodes:
    """One number for each vertex of each simplex, the same wherever the vertex is the same.

    Vertex r has the coordinates (d + 1) b_i + r with whole b_i; r and b_0 ... b_(d-1), which
    determine the last coordinate, are the digits of the code.
    """
    ranks, axes = simplices.ranks, simplices.origins[:-1]
    dimensions = len(axes)
    # One below the origin for the vertices themselves, one more on both sides for neighbours.
    lowest = axes.amin(1) - 2
    extents = (axes.amax(1) - lowest + 2).tolist()
    strides = [prod(extents[i + 1 :]) for i in range(dimensions)]
    block = prod(extents)
    places = torch.tensor([*strides, 0], device=axes.device)
    first = (axes * places[:-1, None]).sum(0, keepdim=True) - (lowest * places[:-1]).sum()
    # Vertex r + 1 is one step from vertex r, along the axis whose rest is the least of those left.
    numbers = torch.arange(dimensions + 1, device=axes.device)[:, None].expand_as(ranks)
    rising = torch.empty_like(ranks).scatter_(0, dimensions - ranks, numbers)
    further = (block - places[rising[:-1]]).cumsum(0)
    return VertexCodes(torch.cat([first, first + further]), (*strides, 0), block)


def blur_directions(found: Tensor, numbered: VertexCodes) -> tuple[SparseRows, ...]:
    """The products with (1/2, 1, 1/2) along each direction; a missing neighbour counts as 0.

    Args:
        found: (M,), int64, codes of the vertices, rising.
        numbered: what the codes mean.
    """
    empty = len(found)
    here = torch.arange(empty + 1, device=found.device, dtype=torch.int32)
    weights = torch.tensor([1.0, 0.5, 0.5], device=found.device).repeat(empty + 1)
    offsets = torch.arange(0, weights.numel() + 1, 3, device=found.device, dtype=torch.int32)
    products = []
    for axis in range(len(numbered.strides)):
        forward = numbered.neighbours(found, axis)
        places = torch.searchsorted(found, forward, out_int32=True).clamp_(max=empty - 1)
        after = torch.where(found[places] == forward, places, empty)
        before = torch.full_like(here, empty)
        # Vertices without a next one all write to the last place, which is put right.
        before[after] = here[:-1]
        before[-1] = empty
        after = pad(after, (0, 1), value=empty)
        columns = torch.stack([here, after, before], 1).flatten()
        products.append(SparseRows(columns, weights, offsets))
    return tuple(products)
