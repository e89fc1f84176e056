"""Drawn textures: a cloud, and crystals of ice."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datasets.corruptions.filters import Size, reference_size, resized, scale_of

COARSEST = 128  # published pixels between the values of a cloud's coarsest octave
DETAIL = 2.0  # crystals are drawn with at most this many pixels for a published one
FERNS = (52, 22)  # published pixels between the seeds of large and of small crystals
BRANCHES = 256  # length of the random pattern that branches are read from
THIN, THICK = (0.42, 0.52, 0.62), (0.92, 0.97, 1.0)  # colours of ice, R, G, B


def plasma(size: Size, decay: float, generator: torch.Generator) -> Tensor:
    """A cloud (H, W) in [0, 1]: noise at every scale, each octave weaker by the decay squared.

    The published diamond-square map halves its step and divides its amplitude by the square of
    ``wibbledecay`` in turn; octaves of interpolated noise do the same for any size.
    """
    cloud = torch.zeros(1, *size)
    step, weight = COARSEST, 1.0
    while step >= 1:
        cells = [length // step + 2 for length in size]
        values = 2 * torch.rand(1, *cells, generator=generator) - 1
        grown = resized(values, (cells[0] * step, cells[1] * step), "bicubic")
        cloud += weight * grown[:, step // 2 : step // 2 + size[0], step // 2 : step // 2 + size[1]]
        step //= 2
        weight /= decay**2
    cloud -= cloud.min()
    return (cloud / cloud.max().clamp(min=1e-6))[0]


def crystals(image: Tensor, generator: torch.Generator) -> Tensor:
    """Ice for an image (3, H, W): ferns that grow from scattered seeds; float32 in [0, 1].

    Drawn, since the published photographs are not part of this project.
    """
    size = reference_size(image)
    detail = min(scale_of(image), DETAIL)
    fine = (round(size[0] * detail), round(size[1] * detail))
    cover = resized(plasma(size, 1.5, generator)[None], fine)[0]
    bend = resized(torch.stack([plasma(size, 1.4, generator) for _ in range(2)]), fine)
    y = torch.arange(fine[0])[:, None] / detail + 30 * bend[0]
    x = torch.arange(fine[1])[None] / detail + 30 * bend[1]
    ferns = torch.zeros(fine)
    for spacing in FERNS:
        ferns = torch.maximum(ferns, _ferns(y, x, spacing, generator))
    thickness = cover.mul_(1.6).clamp_(0, 1) * (0.55 + 0.45 * ferns) + 0.25 * ferns
    thickness = resized(thickness[None], (image.shape[1], image.shape[2]), "bicubic").clamp_(0, 1)
    thin, thick = (torch.tensor(colour)[:, None, None] for colour in (THIN, THICK))
    return thickness * (thin + (thick - thin) * thickness)


def _ferns(y: Tensor, x: Tensor, spacing: int, generator: torch.Generator) -> Tensor:
    """Crystals (H, W) in [0, 1]: each place belongs to its nearest seed's spine and branches.

    Args:
        y: rows of the places, in published pixels.
        x: columns, likewise.
        spacing: mean distance of the seeds, one in each square of a jittered grid.
        generator: of the seeds.
    """
    cells = [int(along.max()) // spacing + 3 for along in (y, x)]
    seeds = torch.rand(2, *cells, generator=generator)
    turns = 2 * math.pi * torch.rand(cells, generator=generator)
    seeds[0] += torch.arange(-1, cells[0] - 1)[:, None]
    seeds[1] += torch.arange(-1, cells[1] - 1)
    seed_y, seed_x = seeds.mul_(spacing).flatten(1)
    own = (y / spacing).long() * cells[1] + (x / spacing).long()
    cell, nearest = own, torch.full(y.shape, math.inf)
    for step in range(9):  # the square of a place and its neighbours; the grid has a margin
        index = own + (step // 3 * cells[1] + step % 3)
        distance = (y - seed_y.take(index)).square_().add_((x - seed_x.take(index)).square_())
        cell = torch.where(distance < nearest, index, cell)
        nearest = torch.minimum(nearest, distance)
    down, right = y - seed_y.take(cell), x - seed_x.take(cell)
    turn = turns.take(cell)
    along = down * turn.sin() + right * turn.cos()
    across = (right * turn.sin() - down * turn.cos()).abs_()
    pattern = torch.rand(BRANCHES, generator=generator)
    place = (along - across) * (14 / spacing) + cell * 37  # branches leave the spine at 45 degrees
    low = place.floor()
    left, after = (pattern.take((low + step).long() % BRANCHES) for step in (0, 1))
    branches = (1 - 2.6 * (left + (after - left) * (place - low) - 0.5).abs()).clamp_(min=0)
    branches *= torch.exp(-across / (0.35 * spacing))
    spine = torch.exp(-((across / (0.03 * spacing)) ** 2))
    return torch.maximum(branches, spine) * torch.exp(-nearest / (0.9 * spacing) ** 2)
