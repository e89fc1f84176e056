"""From a method to predictions: whole images or windows, mirrored and scaled, then fused."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.evaluate import LOGIT_FIELDS, MAP_FIELDS, replace_fields, resize
from engine.fuse_heads import HeadFusion
from engine.fusion import Fusion, Members, WindowMean, with_ensemble_mean
from utils.types import Prediction

Size = tuple[int, int]  # (H, W)
AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEAST_PROBABILITY = torch.finfo(torch.float32).tiny  # what underflows has a finite log so
PUBLISHED = HeadFusion()
LONG_OF_SHORT = 4  # greatest long side in short sides, of ``fitting_sides``


class Predicts(Protocol):
    """What a predictor reads of a method."""

    def predict(
        self, images: Tensor, needs: frozenset[str] = frozenset(), at_stride: bool = False
    ) -> Prediction:
        """Predict normalised images (N, 3, H, W) at their size, or as small as the heads do.

        With two heads, the logits are those of the main one.
        """
        ...


class Predictor:
    """How a method is run over images; a ``Predict`` itself.

    With nothing asked for it is ``method.predict``, the heads fused where there are two. Otherwise
    every pass (scale, mirrored or not) resizes the images on their device, predicts, fuses the
    heads, and brings all maps back to the images' size; the passes are then fused. Temperatures
    and features are averaged. The logits of an ensemble are the log of the mean softmax of its
    fused members.

    Args:
        method: its ``predict`` is called, nothing else.
        infer_size: (H, W) that the network sees, or a function from the images' own size to it,
            such as ``fitting``; None for their own. Bilinear with antialiasing, as the loaders do.
        short_side: instead of ``infer_size``: every pass fits the images into a box of this short
            side times its scale, see ``fitting_sides``, as URN's probabilities are made.
        window: (H, W) of the windows that the network sees one by one, None for whole images. A
            side of the image that is shorter than the window is seen whole, without padding.
        overlap: least share of a window that the next one covers again; the last window is
            shifted back inside. Raw logits are averaged where windows overlap.
        flip: also predict the images mirrored left and right.
        scales: factors of the size, one pass (or two with ``flip``) for each.
        fuse: "logits" averages the passes' logits, "probs" their softmax: log of the mean softmax;
            "members" takes every pass (of every member) for a member of an ensemble.
        amp: "bf16" or "fp16" runs the network under autocast; the results are float32.
        heads: how the heads of a network with two become one.
        upsample: "logits" takes maps that the network has upsampled; "probs" takes the softmax
            of the fused heads at their own resolution and upsamples the probabilities, of whole
            images directly to the images' size, as MRNet is evaluated. Logits are then their log.
        align_corners: how the network upsamples its heads.
    """

    def __init__(  # noqa: PLR0913 - an argument per flag
        self,
        method: Predicts,
        *,
        infer_size: Size | Callable[[Size], Size] | None = None,
        short_side: int | None = None,
        window: Size | None = None,
        overlap: float = 1 / 3,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        fuse: Literal["logits", "probs", "members"] = "logits",
        amp: Literal["off", "bf16", "fp16"] = "off",
        heads: HeadFusion = PUBLISHED,
        upsample: Literal["logits", "probs"] = "logits",
        align_corners: bool = False,
    ) -> None:
        self.method = method
        assert infer_size is None or short_side is None, "both say what the network sees"
        self.infer_size = infer_size
        self.short_side = short_side
        self.window = window
        self.overlap = overlap
        sides = (False, True) if flip else (False,)
        self.passes = [(scale, mirrored) for scale in scales for mirrored in sides]
        self.fuse = fuse
        self.amp = amp
        self.heads = heads
        self.upsample = upsample
        self.align_corners = align_corners

    def __call__(self, images: Tensor, needs: frozenset[str] = frozenset()) -> Prediction:
        """Predict normalised images (N, 3, H, W) at their own size."""
        fused = Members() if self.fuse == "members" else Fusion(self.fuse)
        for scale, mirrored in self.passes:
            fused.add(self._one_pass(images, scale, mirrored, needs))
        prediction = fused.result()
        if len(self.passes) > 1 or self.infer_size or self.short_side or self.window:
            return with_ensemble_mean(prediction)
        return prediction

    def _one_pass(
        self, images: Tensor, scale: float, mirrored: bool, needs: frozenset[str]
    ) -> Prediction:
        """One whole-image prediction at the images' size."""
        own: Size = (images.shape[-2], images.shape[-1])
        seen = resize_images(images, self.seen_size(own, scale))
        if mirrored:
            seen = seen.flip(-1)
        size: Size = (seen.shape[-2], seen.shape[-1])
        window = size if self.window is None else smaller(self.window, size)
        whole = window == size
        prediction = self._forward(seen, needs) if whole else self._windows(seen, window, needs)
        if mirrored:
            prediction = replace_fields(prediction, MAP_FIELDS, lambda maps: maps.flip(-1))
        if self.upsample == "logits":
            return resize(prediction, own)
        prediction = self._upsampled(prediction, own) if whole else resize(prediction, own)
        return replace_fields(prediction, LOGIT_FIELDS, log_of)

    def seen_size(self, own: Size, scale: float) -> Size:
        """What the network sees in a pass over images of this size, (H, W)."""
        if self.short_side is not None:
            return fitting_sides(own, self.short_side * scale)
        chosen = self.infer_size(own) if callable(self.infer_size) else self.infer_size
        height, width = chosen or own
        return round(height * scale), round(width * scale)

    def _forward(self, images: Tensor, needs: frozenset[str]) -> Prediction:
        """One call of the network, its heads fused, in float32 unless autocast is asked for.

        To upsample probabilities, it has the heads' resolution and probabilities for logits.
        """
        options = {"at_stride": True} if self.upsample == "probs" else {}
        if self.amp == "off":
            prediction = self.method.predict(images, needs, **options)
        else:
            with torch.autocast(images.device.type, AMP_DTYPES[self.amp]):
                prediction = self.method.predict(images, needs, **options)
            prediction = replace_fields(prediction, Prediction._fields, Tensor.float)
        prediction = self.heads(prediction, needs)
        if self.upsample == "logits":
            return prediction
        return replace_fields(prediction, LOGIT_FIELDS, softmax_of)

    def _upsampled(self, prediction: Prediction, size: Size) -> Prediction:
        """Maps at the heads' resolution brought to a size as the network would."""
        return resize(prediction, size, align_corners=self.align_corners)

    def _windows(self, images: Tensor, window: Size, needs: frozenset[str]) -> Prediction:
        """The mean over overlapping windows.

        As many windows are predicted at once as hold half the pixels of the images, so that
        memory falls and small windows still fill the device.
        """
        size, (height, width) = images.shape[-2:], window
        places = [
            (top, left)
            for top in starts(size[0], height, self.overlap)
            for left in starts(size[1], width, self.overlap)
        ]
        at_once = max(1, size[0] * size[1] // (2 * height * width))
        total = WindowMean(images)
        for first in range(0, len(places), at_once):
            chosen = places[first : first + at_once]
            crops = [images[..., top : top + height, left : left + width] for top, left in chosen]
            prediction = self._upsampled(self._forward(torch.cat(crops), needs), window)
            total.add(prediction, chosen)
        return total.result()


def fitting(size: Size, box: Size) -> Size:
    """The largest size of the same aspect that fits into a box."""
    factor = min(box[0] / size[0], box[1] / size[1])
    return round(size[0] * factor), round(size[1] * factor)


def fitting_sides(size: Size, short: float) -> Size:
    """The largest size of the same aspect whose short side is at most N and its long side 4 N.

    Which side is which follows from the image. As published (mmcv's ``imrescale``), the limits are
    the whole parts of N and 4 N and the sides are rounded half up.

    Args:
        size: (H, W) of the image.
        short: N, at least 1.
    """
    factor = min(int(short) / min(size), int(LONG_OF_SHORT * short) / max(size))
    height, width = (max(1, int(side * factor + 0.5)) for side in size)
    return height, width


def smaller(window: Size, size: Size) -> Size:
    """The part of a size that a window covers."""
    return min(window[0], size[0]), min(window[1], size[1])


def starts(length: int, window: int, overlap: float) -> list[int]:
    """Where the windows along one axis begin; the last one ends with the axis."""
    stride = max(1, round(window * (1 - overlap)))
    count = math.ceil((length - window) / stride) + 1
    return [min(index * stride, length - window) for index in range(count)]


def resize_images(images: Tensor, size: Size) -> Tensor:
    """Resize (N, 3, H, W), bilinear with antialiasing."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)


def softmax_of(logits: Tensor) -> Tensor:
    """Probabilities (..., C, h, w) of logits."""
    return logits.softmax(-3)


def log_of(probabilities: Tensor) -> Tensor:
    """Finite logits of probabilities."""
    return probabilities.clamp(min=LEAST_PROBABILITY).log()
