"""Pseudo-masks from class activation maps: smoothing by the coefficient of variation, proportions.

Li et al., "Pseudo-mask matters in weakly-supervised semantic segmentation" (ICCV 2021,
arXiv:2108.12995): an uneven map is lifted, a dense CRF says which pixels a class claims, and where
classes overlap the one wins for which the pixel is the larger share of all that it claims.
"""

from __future__ import annotations

import torch
from torch import Tensor

from uncertainty.dense_crf import CrfSettings, DenseCRF, unary_of
from utils.types import IGNORE_INDEX

BACKGROUND_POWER = 11.0
HEAT_MAP_POWER = 24.0
CAM_THRESHOLD = 0.05
CV_SCALE = 0.3
MOST_VARIATION = 0.99  # one or more would make 0 ** (1 - cv) infinite


def coefficient_of_variation(
    maps: Tensor, *, cam_threshold: float = CAM_THRESHOLD, cv_scale: float = CV_SCALE
) -> Tensor:
    """How uneven each map is where it responds: scale * deviation / mean, cut to [0, 0.99].

    The published code does not cut it, and gets infinities where it exceeds 1.

    Args:
        maps: (K, H, W), in [0, 1].
        cam_threshold: pixels above it count.
        cv_scale: of the quotient.

    Returns:
        (K,) float64; 0 where no pixel counts. The deviation is that of the population.
    """
    values = maps.double()
    counts = values > cam_threshold
    number = counts.sum((1, 2)).clamp(min=1)
    mean = (values * counts).sum((1, 2)) / number
    squares = (values - mean[:, None, None]).square() * counts
    deviation = (squares.sum((1, 2)) / number).sqrt()
    return (cv_scale * deviation / (mean + 1e-8)).clamp(0, MOST_VARIATION)


def smoothed(
    maps: Tensor, *, cam_threshold: float = CAM_THRESHOLD, cv_scale: float = CV_SCALE
) -> Tensor:
    """Maps (K, H, W) in [0, 1] raised to the power 1 - cv; 0 where they are below the threshold."""
    variation = coefficient_of_variation(maps, cam_threshold=cam_threshold, cv_scale=cv_scale)
    kept = maps.masked_fill(maps < cam_threshold, 0)
    return kept ** (1 - variation).to(maps.dtype)[:, None, None]


def claimed(
    foreground: Tensor,
    image: Tensor | None,
    *,
    crf: CrfSettings | None,
    background_power: float = BACKGROUND_POWER,
) -> Tensor:
    """The pixels that each class claims on its own, against a background (1 - v)^power.

    Args:
        foreground: (K, H, W), in [0, 1].
        image: (3, H, W) uint8, on the same device; only a CRF reads it.
        crf: None compares the two channels as they are.
        background_power: of the background.

    Returns:
        (K, H, W) bool: the foreground's probability is greater than one half.
    """
    both = torch.stack([(1 - foreground) ** background_power, foreground], 1)
    if crf is None:
        return both[:, 1] > both[:, 0]
    assert image is not None, "a dense CRF reads the image"
    return DenseCRF(image, crf)(unary_of(both))[:, 1] > 0.5


def proportional_mask(
    classes: Tensor,
    maps: Tensor,
    image: Tensor | None,
    *,
    crf: CrfSettings | None,
    background_power: float = BACKGROUND_POWER,
    cam_threshold: float = CAM_THRESHOLD,
    cv_scale: float = CV_SCALE,
    background: int | None = None,
) -> Tensor:
    """The pseudo-mask of one image (section 3 of the paper).

    Args:
        classes: (K,) int64, train ids of the image's foreground classes.
        maps: (K, H, W) float32 in [0, 1], their activation maps.
        image: (3, H, W) uint8, on the maps' device; only a CRF reads it.
        crf: of the decision which pixels a class claims; None: no CRF.
        background_power: of the background against which a class claims pixels.
        cam_threshold: lower values of a map count as 0.
        cv_scale: of the coefficient of variation.
        background: train id of pixels that no class claims; None: they are 255.

    Returns:
        (H, W) uint8 train ids. A claimed pixel at which the map is 0 is not the class's.
    """
    rest = IGNORE_INDEX if background is None else background
    if not len(classes):
        return torch.full(maps.shape[1:], rest, dtype=torch.uint8, device=maps.device)
    lifted = smoothed(maps, cam_threshold=cam_threshold, cv_scale=cv_scale)
    claims = claimed(lifted, image, crf=crf, background_power=background_power)
    own = maps.double() * claims
    shares = own / (1 + own.sum((1, 2), keepdim=True))
    unclaimed = (~claims.any(0)).to(shares.dtype)
    winner = torch.cat([unclaimed[None], shares]).argmax(0)  # the first of equals
    ids = torch.cat([classes.new_tensor([rest]), classes]).to(torch.uint8)
    return ids[winner]


def heat_maps(
    maps: Tensor,
    image: Tensor,
    *,
    crf: CrfSettings,
    background_power: float = HEAT_MAP_POWER,
) -> Tensor:
    """Class activation maps as probabilities that a dense CRF has fitted to the image's edges.

    Args:
        maps: (K, H, W) float32 in [0, 1].
        image: (3, H, W) uint8, on the same device.
        crf: its settings.
        background_power: the background is (1 - the greatest map)^power.

    Returns:
        (K, H, W) float32 in [0, 1]; with the background's they add up to 1.
    """
    if not len(maps):
        return maps
    rest = (1 - maps.amax(0, keepdim=True)) ** background_power
    return DenseCRF(image, crf)(unary_of(torch.cat([rest, maps])[None]))[0, 1:]
