"""Class activation maps of whole images: over several scales, or from overlapping boxes.

Both are of "Pseudo-mask Matters" (ICCV 2021, arXiv 2108.12995). Only the maps of an image's
labelled foreground classes are kept, from the network's own resolution on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.multi_crop import Box, crop_boxes
from datasets.transforms import denormalize
from engine.evaluate import PredictionSource
from engine.predict import AMP_DTYPES
from network.cam import CamOutput
from uncertainty.dense_crf import CrfSettings
from uncertainty.pseudo_masks import heat_maps
from utils.activation_maps import OFFSET, range_normalised
from utils.types import Batch, Prediction

Size = tuple[int, int]  # (H, W)
Inference = Callable[["RefinedMaps", Tensor, list[list[int]]], Tensor]

MULTI_SCALES = (0.5, 1.0, 1.5, 2.0)


class MapsOfImages(Protocol):
    """What is read of a CAM network."""

    align_corners: bool

    def maps(self, images: Tensor, size: Sequence[int] | None = None) -> CamOutput:
        """Raw and refined maps of normalised images (N, 3, H, W)."""
        ...


class RefinedMaps:
    """The refined maps of chosen classes, at the size of what the network sees.

    Args:
        network: a CAM network.
        amp: "bf16" or "fp16" runs it under autocast; the maps are float32.
    """

    def __init__(self, network: MapsOfImages, amp: str = "off") -> None:
        self.network = network
        self.amp = amp

    def __call__(self, images: Tensor, chosen: Tensor) -> Tensor:
        """Maps (N, K, H, W) of images (N, 3, H, W), given the train ids (N or 1, K) of each."""
        if self.amp == "off":
            refined = self.network.maps(images).refined
        else:
            with torch.autocast(images.device.type, AMP_DTYPES[self.amp]):
                refined = self.network.maps(images).refined
        maps = refined.float().take_along_dim(chosen[:, :, None, None], 1)
        size = (images.shape[-2], images.shape[-1])
        return resized(maps, size, align_corners=self.network.align_corners)


class MultiScale:
    """The sum over scales and mirrored images, each map then brought to [0, 1].

    Args:
        scales: factors of the size; images are resized bicubically, to a pixel a side at least.
    """

    def __init__(self, scales: Sequence[float] = MULTI_SCALES) -> None:
        self.scales = tuple(scales)

    def __call__(self, refined: RefinedMaps, images: Tensor, classes: list[list[int]]) -> Tensor:
        """Maps (N, K, H, W) of images (N, 3, H, W), given the classes of each."""
        own = (images.shape[-2], images.shape[-1])
        chosen = slots(classes, images.device)
        total = images.new_zeros((*chosen.shape, *own))
        for scale in self.scales:
            size = (max(1, round(own[0] * scale)), max(1, round(own[1] * scale)))
            for seen, mirrored in both_ways(resized_bicubically(images, size)):
                maps = resized(refined(seen, chosen), own)
                total += maps.flip(-1) if mirrored else maps
        return range_normalised(total.relu())


class MultiCrop:
    """The mean over the boxes of several scales and their mirror images, brought to [0, 1].

    Every box is stretched to a square for the network (``datasets.multi_crop.crop_boxes``).

    Args:
        scales: of the boxes.
        crop: side of the square, and of a box in scaled pixels.
        stride: distance of two boxes in scaled pixels.
        batch_size: boxes that the network sees at once.
    """

    def __init__(self, scales: Sequence[float], crop: int, stride: int, batch_size: int) -> None:
        self.scales = tuple(scales)
        self.crop = crop
        self.stride = stride
        self.batch_size = batch_size

    def __call__(self, refined: RefinedMaps, images: Tensor, classes: list[list[int]]) -> Tensor:
        """Maps (N, K, H, W) of images (N, 3, H, W), given the classes of each.

        Every image is seen on its own, so that its maps do not depend on others in the batch.
        """
        most = max(map(len, classes))
        maps = images.new_zeros((len(images), most, *images.shape[-2:]))
        for own, image, ids in zip(maps, images, classes, strict=True):
            if ids:
                own[: len(ids)] = self._of_image(refined, image, ids)
        return maps

    def boxes(self, size: Size) -> list[Box]:
        """The boxes of all scales for an image of a size.

        Raises:
            ValueError: as ``crop_boxes`` does.
        """
        return [
            box for scale in self.scales for box in crop_boxes(size, scale, self.crop, self.stride)
        ]

    def _of_image(self, refined: RefinedMaps, image: Tensor, ids: list[int]) -> Tensor:
        """Maps (K, H, W) of an image (3, H, W)."""
        chosen = slots([ids], image.device)
        size = (image.shape[-2], image.shape[-1])
        total, covered = image.new_zeros((len(ids), *size)), image.new_zeros(size)
        boxes = self.boxes(size)
        for first in range(0, len(boxes), self.batch_size):
            part = boxes[first : first + self.batch_size]
            crops = torch.cat([self._stretched(image, box) for box in part])
            for seen, mirrored in both_ways(crops):
                maps = refined(seen, chosen)
                maps = maps.flip(-1) if mirrored else maps
                for (top, left, bottom, right), of_box in zip(part, maps, strict=True):
                    own = resized(of_box[None], (bottom - top, right - left))[0]
                    total[:, top:bottom, left:right] += own
                    covered[top:bottom, left:right] += 1
        return between_limits(total / covered.clamp(min=1))

    def _stretched(self, image: Tensor, box: Box) -> Tensor:
        """A box of an image as a square (1, 3, crop, crop)."""
        top, left, bottom, right = box
        cut = image[None, :, top:bottom, left:right]
        return F.interpolate(cut, (self.crop, self.crop), mode="bilinear", antialias=True)


class CamPredictor(PredictionSource):
    """The maps of the labelled classes of a batch, for ``CamWriter`` alone.

    They stand in the field of the logits, which they are not: (N, K, H, W) in [0, 1], float32, in
    the order of ``foreground_ids``; those of an image with fewer than K classes come first.

    Args:
        refined: of the network.
        inference: ``MultiScale`` or ``MultiCrop``.
        background: train id of the class that has no map.
        crf: fits the maps to the edges of the image, as probabilities; None leaves them.
    """

    def __init__(
        self,
        refined: RefinedMaps,
        inference: Inference,
        background: int | None,
        crf: CrfSettings | None = None,
    ) -> None:
        self.refined = refined
        self.inference = inference
        self.background = background
        self.crf = crf

    def of_batch(self, batch: Batch) -> Prediction:
        """The maps of a batch on its device, at the size of its images."""
        images = batch["image"]
        # The one wait for the device: before the passes, when the batch before is written already.
        classes = foreground_ids(batch["image_labels"].cpu(), self.background)
        if not any(classes):
            return Prediction(images.new_zeros((len(images), 0, *images.shape[-2:])))
        maps = self.inference(self.refined, images, classes)
        if self.crf is not None:
            pictures = denormalize(images)
            for own, picture, ids in zip(maps, pictures, classes, strict=True):
                own[: len(ids)] = heat_maps(own[: len(ids)], picture, crf=self.crf)
        return Prediction(maps)


def foreground_ids(image_labels: Tensor, background: int | None) -> list[list[int]]:
    """The train ids of the foreground classes of each image, ascending.

    Args:
        image_labels: (N, C), positive where the class is in the image.
        background: the class that is none of them.
    """
    return [
        [index for index, there in enumerate(row) if there and index != background]
        for row in (image_labels > 0).tolist()
    ]


def slots(classes: list[list[int]], device: torch.device) -> Tensor:
    """Train ids (N, K) int64, K the most of an image; those with fewer repeat class 0 behind."""
    most = max(map(len, classes))
    return torch.tensor([ids + [0] * (most - len(ids)) for ids in classes], device=device)


def both_ways(images: Tensor) -> tuple[tuple[Tensor, bool], tuple[Tensor, bool]]:
    """The images and their mirror images, with whether they are mirrored."""
    return (images, False), (images.flip(-1), True)


def resized(maps: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    """Maps (N, K, h, w) at (H, W), bilinear."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)


def resized_bicubically(images: Tensor, size: Size) -> Tensor:
    """Images (N, 3, h, w) at (H, W), with antialiasing."""
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bicubic", antialias=True)


def between_limits(maps: Tensor) -> Tensor:
    """(v - min) / (max - min + 1e-5) of each map (..., H, W); 0 for values below min + 1e-5.

    The published code subtracts the minimum from those zeros, too; here no value is below 0.
    """
    least, most = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return torch.where(maps < least + OFFSET, 0, (maps - least) / (most - least + OFFSET))
