"""Pictures of images, labels and predictions as RGB arrays."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datasets.transforms import denormalize
from engine.predict import resize_images
from utils.class_map import class_map
from utils.sheets import Colour
from utils.types import Batch, Prediction

Array = NDArray[np.uint8]


def predicted_ids(prediction: Prediction) -> Array:
    """The most probable class of each pixel, (N, H, W)."""
    ids: Array = class_map(prediction.logits).cpu().numpy()
    return ids


def pictures(batch: Batch, prediction: Prediction) -> Array:
    """The images as people see them, RGB (N, H, W, 3), at the size of the prediction."""
    height, width = prediction.logits.shape[-2:]
    images = denormalize(resize_images(batch["image"], (height, width)))
    rgb: Array = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return rgb


def full_palette(palette: Tensor) -> Array:
    """A colour for each of the 256 values of a label: black where the palette has none."""
    full = np.zeros((256, 3), np.uint8)
    full[: len(palette)] = palette.cpu().numpy()
    return full


def colours(ids: Array, palette: Array) -> Array:
    """Train ids (H, W) as RGB (H, W, 3) through a palette (256, 3)."""
    return cv2.LUT(cv2.merge([ids] * 3), palette[None])  # type: ignore[return-value]


def class_legend(ids: Array, names: Sequence[str], palette: Array) -> dict[str, Colour]:
    """Colours of the classes that train ids show, by name, in the order of the train ids.

    Args:
        ids: of any shape; 255 is none of the classes.
        names: by train id.
        palette: (256, 3).
    """
    seen = np.bincount(ids.ravel(), minlength=256)
    coloured_names = zip(names, palette.tolist(), strict=False)
    return {name: tuple(rgb) for i, (name, rgb) in enumerate(coloured_names) if seen[i]}


def overlay(image: Array, ids: Array, palette: Array) -> Array:
    """An image (H, W, 3) tinted by class, 0.4 image + 0.6 colour, with bright outlines.

    Black stands for nothing to show (void, and the background of VOC and Kvasir): there the
    image stays as it is.
    """
    colour = colours(ids, palette)
    tinted = cv2.addWeighted(image, 0.4, colour, 0.6, 0)
    untinted = (palette == 0).all(axis=1)[ids]
    tinted[untinted] = image[untinted]
    lines = outlines(ids)
    tinted[lines] = 102 + 0.6 * tinted[lines]  # 0.4 white
    return tinted  # type: ignore[return-value]


def outlines(ids: Array) -> NDArray[np.bool_]:
    """Where the class differs from that of the pixel above or to the left, (H, W).

    The lines widen with the image, one pixel for every 500.
    """
    lines = np.zeros(ids.shape, np.uint8)
    lines[1:] |= ids[1:] != ids[:-1]
    lines[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    width = max(1, round(min(ids.shape) / 500))
    return cv2.dilate(lines, np.ones((width, width), np.uint8)).astype(bool)


def png(image: Array) -> bytes:
    """Encode grey (H, W) or RGB (H, W, 3) as PNG."""
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # type: ignore[assignment]
    done, content = cv2.imencode(".png", image)
    assert done, f"OpenCV cannot encode an array of shape {image.shape} as PNG"
    return content.tobytes()
