"""Averages over neighbours of like colour: a cheap refinement of maps on the colours of an image.

Araslanov and Roth 2020, "Single-Stage Semantic Segmentation from Image Labels", pixel-adaptive mask
refinement: a pixel takes the mean of its neighbours at several distances, weighted by how alike
their colours are, a few times over. It is linear in the maps, so that a map which is altered alone
is refined alone.
"""

from __future__ import annotations

from itertools import product
from math import isfinite
from typing import NamedTuple

import torch
from torch import Tensor

CHUNK_VALUES = 1 << 24  # float32 values of the maps averaged at once: 64 MiB, and a padded copy
LEAST_DEVIATION = 1e-8  # added to what divides: where all neighbours have one colour 0 / 0
SIDES = (-1, 0, 1)


class AffinitySettings(NamedTuple):
    """Where neighbours lie, how alike they have to be, and how often means are taken.

    Attributes:
        distances: in pixels; at each there are eight neighbours, straight and diagonal.
        bandwidth: of differences of colour, as a share of their standard deviation around a pixel.
        iterations: how often the maps are averaged.
    """

    distances: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    bandwidth: float = 0.1
    iterations: int = 10


PUBLISHED_AFFINITY = AffinitySettings()


class LocalAffinity:
    """The neighbours' weights of one image, for any number of maps.

    Pixel i takes sum_j w_ij m_j over its neighbours j, with w_ij the softmax over j of the mean
    over the channels of -|x_i - x_j| / (b s_i); s_i is the standard deviation of the channel over
    the neighbours and i itself, which counts once for each distance. Beyond the border lies the
    nearest pixel of the image. As the weights add up to 1, no mean leaves the range of its map.

    Args:
        image: (3, H, W), uint8, on the device where the maps will be.
        settings: of the weights, and the number of iterations.

    Raises:
        ValueError: if the image has another shape or type, there is no distance or one below 1,
            the bandwidth is not positive or the number of iterations is negative.
    """

    def __init__(self, image: Tensor, settings: AffinitySettings = PUBLISHED_AFFINITY) -> None:
        if image.ndim != 3 or len(image) != 3 or image.dtype != torch.uint8 or not image.numel():
            found = f"{image.dtype} {tuple(image.shape)}"
            raise ValueError(f"local affinities need a uint8 image (3, H, W), not {found}")
        _check(settings)
        self.settings = settings
        self.weights = _weights(image, settings.distances, settings.bandwidth)

    @torch.no_grad()
    def __call__(self, maps: Tensor) -> Tensor:
        """The maps after the iterations.

        Args:
            maps: (M, H, W), floating point, on the image's device; computed in float32, outside
                the graph.

        Returns:
            (M, H, W), float32.

        Raises:
            ValueError: if the maps are not of the image's size.
        """
        size = self.weights.shape[1:]
        if maps.ndim != 3 or maps.shape[1:] != size:
            expected = f"(M, {size[0]}, {size[1]})"
            raise ValueError(f"maps of the image are {expected}, not {tuple(maps.shape)}")
        means = torch.empty(maps.shape, device=maps.device)
        at_once = max(1, CHUNK_VALUES // size.numel())
        for part, averaged in zip(maps.split(at_once), means.split(at_once), strict=True):
            averaged.copy_(part)
            for _ in range(self.settings.iterations):
                self._average(averaged)
        return means

    def _average(self, maps: Tensor) -> None:
        """Replace maps (M, H, W), float32, by their means over the neighbours."""
        neighbours = _neighbours(maps, self.settings.distances)
        maps.zero_()
        for weight, values in zip(self.weights, neighbours, strict=True):
            maps.addcmul_(values, weight)


def _check(settings: AffinitySettings) -> None:
    """Refuse settings that mean nothing.

    Raises:
        ValueError: naming the setting.
    """
    if not settings.distances or min(settings.distances) < 1:
        raise ValueError(f"distances are one or more pixels, not {settings.distances}")
    if not (isfinite(settings.bandwidth) and settings.bandwidth > 0):
        raise ValueError(f"the bandwidth is {settings.bandwidth}, but must be greater than 0")
    if settings.iterations < 0:
        raise ValueError(f"there are {settings.iterations} iterations, but it takes 0 or more")


def _neighbours(maps: Tensor, distances: tuple[int, ...]) -> list[Tensor]:
    """What lies beside each pixel of maps (M, H, W), in each place: views of one padded copy."""
    height, width = maps.shape[1:]
    reach = max(distances)
    rows, columns = (
        torch.arange(-reach, side + reach, device=maps.device).clamp_(0, side - 1)
        for side in (height, width)
    )
    around = maps.index_select(1, rows).index_select(2, columns)
    places = [(d * y, d * x) for d, y, x in product(distances, SIDES, SIDES) if y or x]
    return [
        around[:, reach + y : reach + y + height, reach + x : reach + x + width] for y, x in places
    ]


def _weights(image: Tensor, distances: tuple[int, ...], bandwidth: float) -> Tensor:
    """The neighbours' weights, (8 D, H, W), float32, adding up to 1 over the first axis."""
    colours = image.double()  # in which sums of whole numbers and of their squares are exact
    neighbours = _neighbours(colours, distances)
    own, count = len(distances), 9 * len(distances)
    total, squares = own * colours, own * colours.square()
    for values in neighbours:
        total += values
        squares += values.square()
    deviation = (count * squares - total.square()).div_(count * (count - 1)).sqrt_()
    width = deviation.mul_(bandwidth).add_(LEAST_DEVIATION)
    weights = torch.empty(len(neighbours), *image.shape[1:], device=image.device)
    for weight, values in zip(weights, neighbours, strict=True):
        weight.copy_(((values - colours).abs_() / width).mean(0).neg_())
    weights -= weights.amax(0)
    weights.exp_()
    weights /= weights.sum(0)
    return weights
