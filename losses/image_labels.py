"""Losses of class activation maps that read no more than which classes an image shows.

They are those of SEAM (CVPR 2020, arXiv 2004.04581) with the background as a channel, as
"Pseudo-mask Matters" (ICCV 2021, arXiv 2108.12995) trains them. ``background`` is its channel, and
None where every channel is foreground; its entry in the image labels is 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.activation_maps import foreground, largest_only, range_normalised, with_background

LEAST_SHARE = 0.25  # of pixels that show no foreground
WORST_SHARE = 0.2  # of values that the cross loss reads


def classification_loss(raw: Tensor, image_labels: Tensor, background: int | None) -> Tensor:
    """Multilabel soft margin of the spatial means z of raw maps, over the foreground.

    The mean over images and classes of -y log s(z) - (1 - y) log(1 - s(z)), s the sigmoid.

    Args:
        raw: (N, C, H, W), any sign.
        image_labels: (N, C), 0 or 1.
        background: channel that is left out.

    Returns:
        Scalar in nats, at least 0.
    """
    means = foreground(raw.mean((2, 3)), background)
    return F.binary_cross_entropy_with_logits(means, foreground(image_labels, background))


def background_loss(
    refined: Tensor, image_labels: Tensor, background: int | None, share: float = LEAST_SHARE
) -> Tensor:
    """How much of a foreground class is left in the pixels that show the least of any.

    The mean over images of that of ReLU(max over the labelled foreground) over the lowest
    ``share`` of an image's pixels, rounded down, at least one.

    Args:
        refined: (N, C, H, W).
        image_labels: (N, C), 0 or 1.
        background: channel that is left out.
        share: of the pixels, in (0, 1].

    Returns:
        Scalar, at least 0.
    """
    shown = foreground(refined * image_labels[..., None, None], background).amax(1).flatten(1)
    count = max(1, int(share * shown.shape[1]))
    return shown.topk(count, largest=False, sorted=False).values.relu().mean()


def normalised_maps(maps: Tensor, image_labels: Tensor) -> Tensor:
    """Maps between 0 and 1 in every image, 0 for classes that the image does not show.

    That is a := ReLU(a), then ReLU(a - min - 1e-5) / (max - min + 1e-5), times the label.

    Args:
        maps: (N, C, H, W), any sign.
        image_labels: (N, C), 0 or 1.

    Returns:
        (N, C, H, W), in [0, 1).
    """
    return range_normalised(maps.relu()) * image_labels[..., None, None]


def equivariance_loss(first: Tensor, second: Tensor, background: int | None) -> Tensor:
    """Mean absolute difference of the foreground of two views' maps at the same size.

    Args:
        first: (N, C, h, w), ``normalised_maps`` of one view.
        second: (N, C, h, w), of the other.
        background: channel that is left out.

    Returns:
        Scalar in [0, 1], 0 for equal maps.
    """
    return (foreground(first, background) - foreground(second, background)).abs().mean()


def cross_loss(
    maps: tuple[Tensor, Tensor],
    refined: tuple[Tensor, Tensor],
    background: int | None,
    share: float = WORST_SHARE,
) -> Tensor:
    """How far each view's refined maps are from what the other view's raw maps claim.

    |one(c_2) - r_1| + |one(c_1) - r_2|, each the mean over the largest ``share`` of an image's
    values, rounded down, at least one. In c the background is 1 - the largest of the others, and
    one(c) keeps the largest foreground value of a pixel; no gradient goes into c.

    Args:
        maps: c_1 and c_2, each (N, C, h, w), ``normalised_maps`` of the views' raw maps.
        refined: r_1 and r_2, each (N, C, h, w), those of the refined ones.
        background: the channel that is computed from the others.
        share: of the values, in (0, 1].

    Returns:
        Scalar in [0, 2].
    """
    terms = []
    for claimed, answer in zip(reversed(maps), refined, strict=True):
        target = largest_only(with_background(claimed.detach(), background), background)
        distance = (target - answer).abs().flatten(1)
        count = max(1, int(share * distance.shape[1]))
        terms.append(distance.topk(count, sorted=False).values.mean())
    return torch.stack(terms).sum()
