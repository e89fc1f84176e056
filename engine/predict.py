"""From a method to predictions: whole images or windows, mirrored and scaled, then fused."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.evaluate import LOGIT_FIELDS, MAP_FIELDS, replace_fields, resize
from network.ensemble import log_mean_softmax
from utils.types import Prediction

Size = tuple[int, int]  # (H, W)
AMP_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Predicts(Protocol):
    """What a predictor reads of a method."""

    def predict(self, images: Tensor, needs: frozenset[str] = frozenset()) -> Prediction:
        """Predict normalised images (N, 3, H, W) at their own size."""
        ...


class Predictor:
    """How a method is run over images; a ``Predict`` itself.

    With nothing asked for it is ``method.predict``. Otherwise every pass (scale, mirrored or not)
    resizes the images on their device, predicts, and brings all maps back to the images' size;
    the passes are then fused. Temperatures and features are averaged. The logits of an ensemble
    are the log of the mean softmax of its fused members.

    Args:
        method: its ``predict`` is called, nothing else.
        infer_size: (H, W) that the network sees, or a function from the images' own size to it,
            such as ``fitting``; None for their own. Bilinear with antialiasing, as the loaders do.
        window: (H, W) of the windows that the network sees one by one, None for whole images. A
            side of the image that is shorter than the window is seen whole, without padding.
        overlap: least share of a window that the next one covers again; the last window is
            shifted back inside. Raw logits are averaged where windows overlap.
        flip: also predict the images mirrored left and right.
        scales: factors of the size, one pass (or two with ``flip``) for each.
        fuse: "logits" averages the passes' logits, "probs" their softmax: log of the mean softmax;
            "members" takes every pass (of every member) for a member of an ensemble.
        amp: "bf16" or "fp16" runs the network under autocast; the results are float32.
    """

    def __init__(
        self,
        method: Predicts,
        *,
        infer_size: Size | Callable[[Size], Size] | None = None,
        window: Size | None = None,
        overlap: float = 1 / 3,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        fuse: Literal["logits", "probs", "members"] = "logits",
        amp: Literal["off", "bf16", "fp16"] = "off",
    ) -> None:
        self.method = method
        self.infer_size = infer_size
        self.window = window
        self.overlap = overlap
        sides = (False, True) if flip else (False,)
        self.passes = [(scale, mirrored) for scale in scales for mirrored in sides]
        self.fuse = fuse
        self.amp = amp

    def __call__(self, images: Tensor, needs: frozenset[str] = frozenset()) -> Prediction:
        """Predict normalised images (N, 3, H, W) at their own size."""
        fused = Members() if self.fuse == "members" else Fusion(self.fuse)
        for scale, mirrored in self.passes:
            fused.add(self._one_pass(images, scale, mirrored, needs))
        prediction = fused.result()
        if len(self.passes) > 1 or self.infer_size or self.window:
            return with_ensemble_mean(prediction)
        return prediction

    def _one_pass(
        self, images: Tensor, scale: float, mirrored: bool, needs: frozenset[str]
    ) -> Prediction:
        """One whole-image prediction at the images' size."""
        own: Size = (images.shape[-2], images.shape[-1])
        chosen = self.infer_size(own) if callable(self.infer_size) else self.infer_size
        height, width = chosen or own
        seen = resize_images(images, (round(height * scale), round(width * scale)))
        if mirrored:
            seen = seen.flip(-1)
        prediction = self._windows(seen, needs) if self.window else self._forward(seen, needs)
        if mirrored:
            prediction = replace_fields(prediction, MAP_FIELDS, lambda maps: maps.flip(-1))
        return resize(prediction, own)

    def _forward(self, images: Tensor, needs: frozenset[str]) -> Prediction:
        """One call of the network, in float32 unless autocast is asked for."""
        if self.amp == "off":
            return self.method.predict(images, needs)
        with torch.autocast(images.device.type, AMP_DTYPES[self.amp]):
            prediction = self.method.predict(images, needs)
        return replace_fields(prediction, Prediction._fields, lambda values: values.float())

    def _windows(self, images: Tensor, needs: frozenset[str]) -> Prediction:
        """The mean over overlapping windows.

        As many windows are predicted at once as hold half the pixels of the images, so that
        memory falls and small windows still fill the device.
        """
        assert self.window is not None
        size = tuple(images.shape[-2:])
        height, width = (min(part, whole) for part, whole in zip(self.window, size, strict=True))
        if (height, width) == size:
            return self._forward(images, needs)
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
            total.add(self._forward(torch.cat(crops), needs), chosen)
        return total.result()


def fitting(size: Size, box: Size) -> Size:
    """The largest size of the same aspect that fits into a box."""
    factor = min(box[0] / size[0], box[1] / size[1])
    return round(size[0] * factor), round(size[1] * factor)


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


def with_ensemble_mean(prediction: Prediction) -> Prediction:
    """The logits as the log of the members' mean softmax, where there are members."""
    members = prediction.member_logits
    if members is None:
        return prediction
    return prediction._replace(logits=log_mean_softmax(members))


class Fusion:
    """Running mean over passes of one size: of logits, or of the softmax as its log."""

    def __init__(self, fuse: str) -> None:
        self.fuse = fuse
        self.count = 0
        self.total: dict[str, Tensor] = {}

    def add(self, prediction: Prediction) -> None:
        """Take in one pass."""
        self.count += 1
        for name, value in _present(prediction):
            if name not in self.total:
                self.total[name] = value
            elif self._in_probs(name):
                if self.count == 2:
                    self.total[name] = self.total[name].log_softmax(-3)
                self.total[name] = torch.logaddexp(self.total[name], value.log_softmax(-3))
            else:
                self.total[name] = self.total[name] + value

    def result(self) -> Prediction:
        """The mean; a single pass as it came."""
        if self.count == 1:
            return Prediction(**self.total)
        return Prediction(
            **{
                name: value - math.log(self.count) if self._in_probs(name) else value / self.count
                for name, value in self.total.items()
            }
        )

    def _in_probs(self, name: str) -> bool:
        return self.fuse == "probs" and name in LOGIT_FIELDS


class Members:
    """Passes of one size as members of an ensemble, those of each pass together."""

    def __init__(self) -> None:
        self.passes: list[Prediction] = []

    def add(self, prediction: Prediction) -> None:
        """Take in one pass."""
        self.passes.append(prediction)

    def result(self) -> Prediction:
        """All members with the mean of what belongs to the whole; a single pass as it came."""
        first = self.passes[0]
        if len(self.passes) == 1:
            return first
        logits = torch.cat([as_members(one.member_logits, one.logits) for one in self.passes])
        temperatures = None
        if first.temperature is not None:
            temperatures = torch.cat(
                [
                    as_members(one.member_temperatures, one.temperature)
                    for one in self.passes
                    if one.temperature is not None
                ]
            )
        features = [one.features for one in self.passes if one.features is not None]
        return Prediction(
            log_mean_softmax(logits),
            member_logits=logits,
            temperature=None if temperatures is None else temperatures.mean(0),
            member_temperatures=temperatures,
            features=torch.stack(features).mean(0) if features else None,
        )


def as_members(members: Tensor | None, whole: Tensor) -> Tensor:
    """Maps of members (M, N, ...), or those of the only one (N, ...) as such."""
    return whole[None] if members is None else members


class WindowMean:
    """Sums of windows and how many cover each pixel.

    Args:
        images: (N, 3, H, W), of which the windows are parts.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = len(images)
        self.size = images.shape[-2:]
        self.covered = images.new_zeros(self.size)
        self.windows = 0
        self.total: dict[str, Tensor] = {}

    def add(self, prediction: Prediction, places: Sequence[tuple[int, int]]) -> None:
        """Take in the windows at these places, (top, left), all images of each together."""
        height, width = prediction.logits.shape[-2:]
        spots = [(slice(top, top + height), slice(left, left + width)) for top, left in places]
        self.windows += len(places)
        for spot in spots:
            self.covered[spot] += 1
        for name, value in _present(prediction):
            parts = value.split(self.images, dim=1 if name.startswith("member_") else 0)
            if name not in MAP_FIELDS:  # features: one vector for the whole image
                self.total[name] = self.total.get(name, 0) + torch.stack(parts).sum(0)
                continue
            if name not in self.total:
                self.total[name] = value.new_zeros((*parts[0].shape[:-2], *self.size))
            for part, spot in zip(parts, spots, strict=True):
                self.total[name][..., *spot] += part

    def result(self) -> Prediction:
        """The means."""
        return Prediction(
            **{
                name: value / (self.covered if name in MAP_FIELDS else self.windows)
                for name, value in self.total.items()
            }
        )


def _present(prediction: Prediction) -> Iterator[tuple[str, Tensor]]:
    return (item for item in prediction._asdict().items() if item[1] is not None)
