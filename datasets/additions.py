"""Maps of an item that come from elsewhere than its own files, checked against its image."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from datasets.items import Item, by
from utils.types import IGNORE_INDEX


def label_from(
    source: Callable[[Item], Tensor] | None, item: Item, size: tuple[int, int]
) -> Tensor:
    """The train ids (H, W) uint8 that a source gives to an item; void throughout without one.

    Args:
        source: of train ids.
        item: as its data set lists it.
        size: (H, W) of its image.

    Raises:
        ValueError: if the label has another size than the image.
    """
    if source is None:
        return torch.full(size, IGNORE_INDEX, dtype=torch.uint8)
    label = source(item)
    if tuple(label.shape) != size:
        raise ValueError(
            f"the label given for {item.id} has {by(label.shape)} pixels, its image"
            f" {item.image or item.id} has {by(size)} (rows x columns): make it anew"
        )
    return label


def of_size(weight: Tensor, label: Tensor, item: Item) -> Tensor:
    """The weight map (H, W) of an item, if it has the size of its label.

    Raises:
        ValueError: if it has not.
    """
    if weight.shape != label.shape:
        raise ValueError(
            f"the weight map of {item.id} has {by(weight.shape)} pixels, "
            f"its label {by(label.shape)}"
        )
    return weight
