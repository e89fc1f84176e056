"""Kvasir-SEG: polyps in colonoscopy images, two classes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

from datasets.base import Item, SegDataset
from datasets.files import pair
from datasets.taxonomy import KVASIR, KVASIR_TRAIN_IDS

_SHARES = {"train": range(8), "val": range(8, 9), "test": range(9, 10)}  # of ten buckets


class Kvasir(SegDataset):
    """Kvasir-SEG, 1000 images of 332x487 to 1920x1072 pixels with binary masks.

    The data comes without splits: an image belongs to the split that the SHA-256 of its name
    falls into, about 80 % train, 10 % val and 10 % test, whatever else is in the folder. A mask
    value above 127 is polyp, because the masks are JPEG files.
    """

    name = "kvasir"
    background = 0
    defaults: ClassVar[dict[str, Any]] = {"crop_size": (352, 352), "train_transform": "resize"}
    layout = """\
  images/cju0qkwl35piu0993l0dewei2.jpg ...
  masks/cju0qkwl35piu0993l0dewei2.jpg ..."""
    classes = KVASIR
    train_ids = KVASIR_TRAIN_IDS

    def files(self) -> list[Item]:
        """The pairs whose names fall into the split."""
        images = self.images_in(self.root / "images")
        pairs = pair(images, self.labels_in(self.root / "masks"))
        return [
            Item(key, image, mask)
            for key, image, mask in pairs
            if bucket(image) in _SHARES[self.split]
        ]


def bucket(image: Path) -> int:
    """A number from 0 to 9 that depends on the file's name without its suffix."""
    return int(hashlib.sha256(image.stem.encode()).hexdigest(), 16) % 10
