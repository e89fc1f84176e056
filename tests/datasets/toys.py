"""A data set that is drawn, so that tests of the machinery need no files."""

from dataclasses import dataclass

import torch

from datasets.base import Item, SegDataset
from datasets.taxonomy import SegClass, same_ids


@dataclass(frozen=True)
class Shifted:
    """An appearance: adds an amount and what the image's id begins and ends with."""

    amount: int
    name: str = "shift:1"

    def __call__(self, image, image_id):
        return image + self.amount + ord(image_id[0]) + ord(image_id[-1])


class Toy(SegDataset):
    """Twelve images of noise, or of the sizes that are given."""

    name = "toy"
    splits = ("train", "val")
    classes = (SegClass("a", (0, 0, 0)), SegClass("b", (255, 0, 0)), SegClass("c", (0, 9, 0)))
    train_ids = same_ids(classes)

    def __init__(self, split="train", *, sizes=((6, 8),) * 12, bad=(), **common):
        self.sizes, self.bad, self.reads = tuple(sizes), bad, []
        super().__init__(None, split, **common)

    def files(self):
        return [Item(f"item{index}", None, None, "scene") for index in range(len(self.sizes))]

    def read(self, index):
        self.reads.append(index)
        if index in self.bad:
            raise ValueError(f"item {index} is bad")
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, *self.sizes[index]), generator=generator)
        label = torch.randint(0, 3, self.sizes[index], generator=generator)
        if not self.reads_labels:
            label = self.other_label(index)
        return image.to(torch.uint8), label.to(torch.uint8)

    def read_raw_label(self, index):
        return self.read(index)[1]

    def native_size(self, index):
        return self.sizes[index]
