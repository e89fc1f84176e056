"""A fully connected conditional random field over the pixels of one image, by mean field.

Kraehenbuehl and Koltun 2011, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials", with Potts compatibility.
"""

from __future__ import annotations

from math import isfinite, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from uncertainty.permutohedral import Lattice, build_lattice

# Of the marginals that are worked on at once: a few such tensors fill a processor's cache, and
# little of a GPU's memory.
CPU_CHUNK_BYTES, CHUNK_BYTES = 2**23, 2**28
LEAST_PROBABILITY = 1e-5


class CrfSettings(NamedTuple):
    """Standard deviations in pixels and grey levels, weights, and mean field's iterations."""

    gaussian_xy: float = 1.0
    gaussian_weight: float = 3.0
    bilateral_xy: float = 67.0
    bilateral_colour: float = 3.0
    bilateral_weight: float = 4.0
    iterations: int = 10


RESPONSE_CRF = CrfSettings()  # of URN's response scaling (Li et al. 2022)
PSEUDO_MASK_CRF = CrfSettings(3.0, 10.0, 80.0, 13.0, 10.0)  # of PMM's masks (Li et al. 2021)
HEAT_MAP_CRF = PSEUDO_MASK_CRF._replace(gaussian_weight=3.0)  # of PMM's heat maps for its crops


def unary_of(probabilities: Tensor) -> Tensor:
    """Unary energies -log(clamp(p, 1e-5, 1)), in [0, 11.513], of probabilities of any shape."""
    return -probabilities.clamp(LEAST_PROBABILITY, 1).log()


class DenseCRF:
    """The random field of one image, for any number of problems with different unaries.

    Energy of labels x: sum_i u_i(x_i) - sum_ij [x_i = x_j] k_ij / 2 with
    k_ij = w_g K_g(i, j) + w_b K_b(i, j). K_g is a Gaussian of the distance in pixels, K_b of the
    distances in pixels and in colour; both are D^(-1/2) K D^(-1/2) with the sums of rows D
    ("symmetric" normalisation), and include a pixel's message to itself. The kernels are those
    of the permutohedral lattice, which is built once.

    The lattice treats the axes of a feature differently, the kernel that it approximates does
    not. The channels are therefore put into the order of their falling sums, so that the result
    does not depend on the order in which they come.
    """

    def __init__(self, image: Tensor, settings: CrfSettings = RESPONSE_CRF) -> None:
        """Build the kernels.

        Args:
            image: (3, H, W), uint8, on the device where unaries will be.
            settings: of the kernels, and the number of iterations.

        Raises:
            ValueError: if the image has another shape or type, a standard deviation is not
                positive, or a weight or the number of iterations is negative.
        """
        if image.ndim != 3 or len(image) != 3 or image.dtype != torch.uint8 or not image.numel():
            found = f"{image.dtype} {tuple(image.shape)}"
            raise ValueError(f"a dense CRF needs a uint8 image (3, H, W), not {found}")
        _check(settings)
        self.settings = settings
        self.size = tuple(image.shape[1:])
        self.kernels = tuple(_kernels(image, settings))

    @torch.no_grad()
    def __call__(self, unary: Tensor) -> Tensor:
        """Marginals after the iterations of mean field, which starts at softmax(-unary).

        Args:
            unary: (B, C, H, W), energies of B problems, on the image's device; computed in
                float32, outside the graph, as many problems at once as ``CHUNK_BYTES`` allows.

        Returns:
            (B, C, H, W), float32, adding up to 1 over C.

        Raises:
            ValueError: if the unaries are not of the image's size.
        """
        if unary.ndim != 4 or unary.shape[2:] != self.size:
            expected = f"(B, C, {self.size[0]}, {self.size[1]})"
            raise ValueError(f"unaries of the image are {expected}, not {tuple(unary.shape)}")
        marginals = torch.empty_like(unary, dtype=torch.float32)
        budget = CPU_CHUNK_BYTES if unary.device.type == "cpu" else CHUNK_BYTES
        at_once = max(1, budget // (4 * max(1, unary.shape[1:].numel())))
        for start in range(0, len(unary), at_once):
            problems = slice(start, start + at_once)
            marginals[problems] = self._mean_field(unary[problems])
        return marginals

    def _mean_field(self, unary: Tensor) -> Tensor:
        """Marginals of problems that fit into memory together."""
        count, classes, height, width = unary.shape
        by_pixel = unary.permute(2, 3, 0, 1).float().contiguous()
        scores = by_pixel.neg().view(height * width, count, classes)
        marginals = softmax_(scores.clone())
        for _ in range(self.settings.iterations):
            field = scores.clone()
            for kernel in self.kernels:
                field += kernel.filter(marginals.flatten(1)).view_as(field)
            marginals = softmax_(field)
        return marginals.view(height, width, count, classes).permute(2, 3, 0, 1)


def softmax_(scores: Tensor) -> Tensor:
    """Softmax over the last axis, in place: the usual one is slow there for few classes."""
    scores -= scores.amax(-1, keepdim=True)
    scores.exp_()
    scores /= scores.sum(-1, keepdim=True)
    return scores


def _check(settings: CrfSettings) -> None:
    """Refuse settings that mean nothing.

    Raises:
        ValueError: naming the setting.
    """
    for name, value in settings._asdict().items():
        if not isfinite(value) or value < 0 or (value == 0 and name.endswith(("xy", "colour"))):
            bound = "at least 0" if name.endswith(("weight", "iterations")) else "greater than 0"
            raise ValueError(f"the CRF's {name} is {value}, but must be {bound}")


def _kernels(image: Tensor, settings: CrfSettings) -> list[Lattice]:
    """The kernels whose weight is not 0, each times its weight."""
    height, width = image.shape[1:]
    places = torch.cartesian_prod(
        torch.arange(height, device=image.device), torch.arange(width, device=image.device)
    ).flip(1)  # x before y
    colours = _ordered(image).flatten(1).t()
    kernels = []
    if settings.gaussian_weight > 0:
        kernels.append(_normalised(places / settings.gaussian_xy, settings.gaussian_weight))
    if settings.bilateral_weight > 0:
        features = [places / settings.bilateral_xy, colours / settings.bilateral_colour]
        kernels.append(_normalised(torch.cat(features, 1), settings.bilateral_weight))
    return kernels


def _ordered(image: Tensor) -> Tensor:
    """The channels by falling sum; those of equal sums by what they hold."""
    channels = [channel.cpu().numpy() for channel in image]
    order = sorted(range(3), key=lambda i: (-int(channels[i].sum()), channels[i].tobytes()))
    return image[order]


def _normalised(features: Tensor, weight: float) -> Lattice:
    """The lattice of features (N, d) that applies weight D^(-1/2) K D^(-1/2)."""
    lattice = build_lattice(features)
    sums = lattice.filter(features.new_ones(len(features), 1)).squeeze(1)
    return lattice.scaled(sums.rsqrt() * sqrt(weight))
