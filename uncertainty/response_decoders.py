"""From the probabilities of an image to classes, as often as response scaling asks for it.

URN (Li et al. 2022, arXiv 2112.07431) decodes by a dense CRF. The highest probability alone needs
no pass over altered maps; local affinities refine each altered map alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from uncertainty.dense_crf import RESPONSE_CRF, CrfSettings, DenseCRF, unary_of
from uncertainty.local_affinity import PUBLISHED_AFFINITY, AffinitySettings, LocalAffinity
from uncertainty.response_variance import argmax_wins, highest_others
from utils.class_map import class_map

CRF_VALUES = 1 << 26  # float32 values of the unaries handed on at once: 256 MiB


class Decoding(Protocol):
    """Turns the probabilities of one image into classes, as often as it is asked to."""

    def labels(self, probabilities: Tensor) -> Tensor:
        """The class of every pixel, (H, W) uint8, of probabilities (C, H, W)."""
        ...

    def wins(self, probabilities: Tensor, scales: Sequence[float]) -> Tensor:
        """For how many scales each pixel belongs to each class, (L, H, W) uint8.

        Args:
            probabilities: (L, H, W), of the classes in question; for class k and scale n all but
                its own are as they are, and its own are raised to the power n.
            scales: at most 255.
        """
        ...


# Gets ready for an image (3, H, W) uint8 on the device of the probabilities; some need none.
Decoder = Callable[[Tensor | None], Decoding]


class ArgmaxDecoding:
    """The class of the highest probability, which needs no pass over altered maps."""

    def labels(self, probabilities: Tensor) -> Tensor:
        """The most likely class, (H, W) uint8, the first of equals."""
        return class_map(probabilities[None])[0]

    def wins(self, probabilities: Tensor, scales: Sequence[float]) -> Tensor:
        """``argmax_wins``, (L, H, W) uint8."""
        return argmax_wins(probabilities, scales)


class CrfDecoding:
    """The most likely class after a dense CRF on the image's colours, as published.

    The kernels are built once an image; the altered unaries go through it many at a time.

    Args:
        image: (3, H, W) uint8.
        settings: of the CRF.

    Raises:
        ValueError: without an image.
    """

    def __init__(self, image: Tensor | None, settings: CrfSettings) -> None:
        self.crf = DenseCRF(colours_for("CRF", image), settings)

    def labels(self, probabilities: Tensor) -> Tensor:
        """The most likely class after the CRF, (H, W) uint8."""
        return class_map(self.crf(unary_of(probabilities.float())[None]))[0]

    def wins(self, probabilities: Tensor, scales: Sequence[float]) -> Tensor:
        """For how many scales each class is the most likely after the CRF, (L, H, W) uint8."""
        likely = probabilities.float()
        plain = unary_of(likely)
        wins = torch.zeros(likely.shape, dtype=torch.uint8, device=likely.device)
        altered = list(product(range(len(likely)), scales))
        most = max(1, CRF_VALUES // likely.numel())
        for start in range(0, len(altered), most):
            part = altered[start : start + most]
            unaries = plain.repeat(len(part), 1, 1, 1)
            for unary, (index, scale) in zip(unaries, part, strict=True):
                unary[index] = unary_of(likely[index] ** scale)
            for classes, (index, _) in zip(class_map(self.crf(unaries)), part, strict=True):
                wins[index] += classes == index
        return wins


class AffinityDecoding:
    """The class of the highest probability after means over neighbours of like colour.

    The means of a class do not depend on the other classes: an altered map is refined alone and
    held against the unchanged means of the others.

    Args:
        image: (3, H, W) uint8.
        settings: of the means.

    Raises:
        ValueError: without an image.
    """

    def __init__(self, image: Tensor | None, settings: AffinitySettings) -> None:
        self.affinity = LocalAffinity(colours_for("affinity", image), settings)

    def labels(self, probabilities: Tensor) -> Tensor:
        """The most likely class after the means, (H, W) uint8, the first of equals."""
        likely = probabilities.float()
        # The highest mean of a pixel is at least the classes' average, and no mean is above the
        # highest value of its map: what stays below the least average is nowhere the most likely.
        able = (likely.amax((1, 2)) >= likely.mean(0).min() * (1 - 1e-5)).nonzero()[:, 0]
        return able.byte()[class_map(self.affinity(likely[able])[None])[0].long()]

    def wins(self, probabilities: Tensor, scales: Sequence[float]) -> Tensor:
        """For how many scales each class alone is the most likely after the means."""
        likely = probabilities.float()
        wins = torch.zeros(likely.shape, dtype=torch.uint8, device=likely.device)
        rivals = highest_others(self.affinity(likely))
        for own, rival, count in zip(likely, rivals, wins, strict=True):
            altered = torch.stack([own**scale for scale in scales])
            count += (self.affinity(altered) > rival).sum(0, dtype=torch.uint8)
        return wins


def colours_for(decoder: str, image: Tensor | None) -> Tensor:
    """The image that a decoder reads.

    Raises:
        ValueError: if there is none.
    """
    if image is None:
        raise ValueError(
            f"the {decoder} decoder reads the colours of the image, and there is none: give the"
            " image or choose the argmax decoder"
        )
    return image


def argmax_decoder(image: Tensor | None = None) -> ArgmaxDecoding:  # noqa: ARG001 - a Decoder
    """Decode by the highest probability; the image is not read."""
    return ArgmaxDecoding()


def crf_decoder(settings: CrfSettings = RESPONSE_CRF) -> Decoder:
    """Decode by a dense CRF with these settings; the decoder can be sent to another process."""
    return partial(CrfDecoding, settings=settings)


def affinity_decoder(settings: AffinitySettings = PUBLISHED_AFFINITY) -> Decoder:
    """Decode by means over like neighbours; the decoder can be sent to another process."""
    return partial(AffinityDecoding, settings=settings)


class DecoderKind(NamedTuple):
    """A decoder that is chosen by name.

    Attributes:
        decoder: with the settings of its publication.
        settings: these, as a manifest says them.
    """

    decoder: Decoder
    settings: dict[str, Any]


DECODERS = {
    "crf": DecoderKind(crf_decoder(), RESPONSE_CRF._asdict()),
    "affinity": DecoderKind(affinity_decoder(), PUBLISHED_AFFINITY._asdict()),
    "argmax": DecoderKind(argmax_decoder, {}),
}
