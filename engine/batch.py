"""From a loader's batch to one on the device."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from datasets.transforms import normalize
from utils.types import Batch

IMAGES = ("image", "target_image")


def prepare(batch: Batch, device: torch.device, *, channels_last: bool = False) -> Batch:
    """Move a batch to the device, without waiting, and normalise its images there.

    Args:
        batch: as a loader yields it, images uint8 (N, 3, H, W).
        device: where the network is.
        channels_last: memory layout of the images.

    Returns:
        A new batch: images float32 with ImageNet's mean and deviation, everything else unchanged.
    """
    moved: dict[str, Any] = {
        key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for key in IMAGES:
        if key in moved:
            moved[key] = normalize(moved[key].contiguous(memory_format=layout))
    return cast(Batch, moved)
