"""Uncertainty by response scaling: how easily a pixel changes sides when a class is widened.

URN (Li et al. 2022, "Uncertainty Estimation via Response Scaling for Pseudo-mask Noise Mitigation
in Weakly-supervised Semantic Segmentation", arXiv 2112.07431). The probability of one class at a
time is raised to powers below 1 (a wide response) and above 1 (a narrow one), and the map is
decoded again for each power; a pixel that is inside the class for some powers and outside for
others is uncertain. The decoded map of the unchanged probabilities is the cyclic pseudo mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from uncertainty.response_decoders import Decoder, Decoding
from uncertainty.response_variance import PRESETS, Normalize, Reduce, response_uncertainty

MOST_SCALES = 255  # how often a pixel is in a class is counted in uint8


class Response(NamedTuple):
    """What response scaling finds in one image."""

    label: Tensor  # (H, W), uint8, train ids: the cyclic pseudo mask
    uncertainty: Tensor  # (H, W), float32, in [0, 1]


def cyclic_labels(
    probabilities: Tensor, decoding: Decoding, image_labels: Tensor | None = None
) -> Tensor:
    """The decoded map of unchanged probabilities, the cyclic pseudo mask.

    Args:
        probabilities: (C, H, W), of at most 255 classes.
        decoding: ready for the image.
        image_labels: (C,), nonzero for the classes that may appear; None: all, as published.

    Returns:
        (H, W), uint8, train ids.
    """
    if image_labels is None:
        return decoding.labels(probabilities)
    allowed = image_labels.to(probabilities.device).nonzero()[:, 0]
    return allowed.byte()[decoding.labels(probabilities[allowed]).long()]


class ResponseScaling:
    """Cyclic pseudo mask and uncertainty of single images (URN, sections of the method).

    Only the classes that the cyclic mask holds are scaled and compared; their probabilities are
    not normalised again.

    Args:
        scales: the powers, such as one of ``PRESETS``.
        decoder: such as ``argmax_decoder``, see ``uncertainty.response_decoders``.
        reduce: over the classes, see ``response_uncertainty``.
        normalize: see ``response_uncertainty``.

    Raises:
        ValueError: if there are no scales, too many, or one that is not finite and above 0.
    """

    def __init__(
        self,
        scales: Sequence[float],
        decoder: Decoder,
        reduce: Reduce = "max",
        normalize: Normalize = "image",
    ) -> None:
        if not 1 <= len(scales) <= MOST_SCALES:
            raise ValueError(
                f"{len(scales)} response scales are given; it takes 1 to {MOST_SCALES}, such as"
                f" {' '.join(f'{scale:g}' for scale in PRESETS['voc'])}"
            )
        for scale in scales:
            if not (math.isfinite(scale) and scale > 0):
                raise ValueError(f"response scale {scale:g} must be a finite number above 0")
        self.scales = tuple(scales)
        self.decoder = decoder
        self.reduce = reduce
        self.normalize = normalize

    @torch.no_grad()
    def __call__(
        self,
        probabilities: Tensor,
        image: Tensor | None = None,
        image_labels: Tensor | None = None,
    ) -> Response:
        """Label and uncertainty of one image, on the device of the probabilities.

        Args:
            probabilities: (C, H, W), floating point, in [0, 1], of at most 255 classes.
            image: (3, H, W) uint8, RGB, which some decoders read.
            image_labels: (C,), nonzero for the classes that may appear, the background among them;
                None: all, as published.

        Raises:
            ValueError: if probabilities are outside [0, 1] or nan, or sizes do not fit.
        """
        refuse_unfit(probabilities, image, image_labels)
        decoding = self.decoder(None if image is None else image.to(probabilities.device))
        label = cyclic_labels(probabilities, decoding, image_labels)
        kept = probabilities[label.unique().long()]
        uncertainty = response_uncertainty(
            decoding.wins(kept, self.scales),
            len(self.scales),
            reduce=self.reduce,
            normalize=self.normalize,
        )
        return Response(label, uncertainty)


def refuse_unfit(probabilities: Tensor, image: Tensor | None, image_labels: Tensor | None) -> None:
    """Check what ``ResponseScaling`` is called with.

    Raises:
        ValueError: saying what does not fit and what would.
    """
    low, high = (float(each) for each in probabilities.aminmax())
    if not (low >= 0 and high <= 1 + 1e-3):  # nan compares false; means of softmaxes may exceed 1
        raise ValueError(
            f"the probabilities reach from {low:g} to {high:g}; expected finite numbers from 0 to 1"
        )
    classes, height, width = probabilities.shape
    if image is not None and image.shape[1:] != (height, width):
        raise ValueError(
            f"the image has {image.shape[1]}x{image.shape[2]} pixels (height x width) and its"
            f" probabilities {height}x{width}; they must be equal"
        )
    if image_labels is None:
        return
    if image_labels.shape != (classes,):
        raise ValueError(
            f"the image labels are of {image_labels.numel()} classes and the probabilities of"
            f" {classes}; they must be equal, the background counted"
        )
    if not image_labels.any():
        raise ValueError("the image labels name no class; they must name at least one")
