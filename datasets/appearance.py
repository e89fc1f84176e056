"""The contract of whatever changes how a data set's images look, and never their labels."""

from __future__ import annotations

import hashlib
from typing import Protocol

from torch import Tensor

from datasets.items import Item


class Appearance(Protocol):
    """Changes how an image looks and leaves what it shows where it is.

    Its ``repr`` tells it from every other one and is the same in every process.
    """

    @property
    def name(self) -> str:
        """What it adds to the condition of an item, such as ``fog:3``."""
        ...

    def __call__(self, image: Tensor, id: str, /) -> Tensor:
        """A new image (3, H, W) uint8 of the same size; ``image`` itself stays as it is.

        Args:
            image: (3, H, W) uint8, in any memory layout.
            id: of the image as its data set lists it.
        """
        ...


def as_seen(item: Item, appearance: Appearance | None) -> Item:
    """An item with the appearance in its condition: ``fog:3``, or ``night+fog:3``."""
    if appearance is None:
        return item
    return item._replace(condition="+".join(filter(None, (item.condition, appearance.name))))


def joint_fingerprint(content: str, appearance: Appearance | None) -> str:
    """SHA-256 over a data set's own fingerprint and how its images look, if they are changed."""
    if appearance is None:
        return content
    look = repr(appearance)
    assert " at 0x" not in look, "an appearance needs a repr that every process shares"
    return hashlib.sha256(f"{content} {appearance.name} {look}".encode()).hexdigest()
