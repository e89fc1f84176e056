"""Images without labels, for prediction."""

from __future__ import annotations

import glob
import os
from pathlib import Path

import torch
from torchvision import tv_tensors

from datasets.base import Item, SampleKey, SegDataset
from datasets.files import IMAGE_SUFFIXES, by_key, read_image
from datasets.samples import Sample


class Unlabelled(SegDataset):
    """An image, the images in and below a folder, or those a glob pattern matches.

    Args:
        pattern: path or pattern; a sample's id is its path below the common folder.

    Raises:
        ValueError: if there is no image, or two have the same name but for the suffix.
    """

    name = "unlabelled"
    splits = ("predict",)

    def __init__(self, pattern: str) -> None:
        super().__init__(pattern, "predict")

    def files(self) -> list[Item]:
        """Every image once, by name."""
        paths = self._matches()
        if not paths:
            raise ValueError(
                f"{self.root} is no image, no folder with images and matches none;"
                f" images end with {', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        folder = Path(os.path.commonpath([path.parent for path in paths]))
        return [Item(name, path, None) for name, path in by_key(paths, folder).items()]

    def _matches(self) -> list[Path]:
        if self.root.is_file():
            return [self.root]
        pattern = str(self.root / "**" / "*") if self.root.is_dir() else str(self.root)
        found = (Path(name) for name in sorted(glob.glob(pattern, recursive=True)))  # noqa: PTH207
        return [p for p in found if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]

    def __getitem__(self, key: int | SampleKey) -> Sample:
        """The image as it is."""
        item = self.items[key[1] if isinstance(key, tuple) else key]
        assert item.image is not None
        image = torch.from_numpy(read_image(item.image)).permute(2, 0, 1)
        names = {"id": item.id, "dataset": self.name, "scene": "", "condition": ""}
        return Sample(image=tv_tensors.Image(image), **names)  # type: ignore[typeddict-item]
