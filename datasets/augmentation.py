"""The photometric augmentation that calibrators are fitted on (ReliS, Python's Pillow enhancers).

Every image gets several versions; each applies a few operations drawn with replacement. All of them
leave the label where it is: rotations are not offered, since the label would have to turn too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import functional

from datasets.corruptions.filters import convolve, to_bytes, to_float
from datasets.corruptions.seeding import seeded_generator
from datasets.items import did_you_mean

FACTORS = np.linspace(0.2, 1.8, 90)  # of Pillow's enhancers; 1 changes nothing
SHIFTS = np.linspace(1, 120, 90).astype(int)  # grey levels
THRESHOLDS = np.linspace(255, 75, 90).astype(int)  # grey levels
DEVIATIONS = np.linspace(0, 30, 20)  # grey levels
PUBLISHED_GREY = (0.30, 0.50, 0.11)  # of R, G and B; sums to 0.91, so that white becomes 232
LUMA_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
Operation = Callable[[Tensor, torch.Generator], Tensor]


def drawn_from(levels: np.ndarray, generator: torch.Generator) -> float:
    """One of the levels, each as likely."""
    return float(levels[int(torch.randint(len(levels), (), generator=generator))])


def identity(image: Tensor, _: torch.Generator) -> Tensor:
    """A copy of the image (3, H, W) uint8."""
    return image.clone()


def shift_channels(image: Tensor, generator: torch.Generator) -> Tensor:
    """Add an integer in [-L, L - 1] to each channel; L is one of ``SHIFTS``."""
    bound = int(drawn_from(SHIFTS, generator))
    shifts = torch.randint(-bound, bound, (3, 1, 1), generator=generator)
    return (image.to(torch.int16) + shifts.to(torch.int16)).clamp_(0, 255).to(torch.uint8)


def change_brightness(image: Tensor, generator: torch.Generator) -> Tensor:
    """Blend with black by one of ``FACTORS``."""
    return functional.adjust_brightness(image, drawn_from(FACTORS, generator))


def change_colour(image: Tensor, generator: torch.Generator) -> Tensor:
    """Blend with the image's grey by one of ``FACTORS``."""
    return functional.adjust_saturation(image, drawn_from(FACTORS, generator))


def change_contrast(image: Tensor, generator: torch.Generator) -> Tensor:
    """Blend with the mean grey by one of ``FACTORS``."""
    return functional.adjust_contrast(image, drawn_from(FACTORS, generator))


def black_and_white(image: Tensor, _: torch.Generator) -> Tensor:
    """Grey as published, truncated; the weights darken it by 9 %."""
    return grey(image, PUBLISHED_GREY)


def black_and_white_luma(image: Tensor, _: torch.Generator) -> Tensor:
    """Grey of weights that add up to 1, truncated."""
    return grey(image, LUMA_GREY)


def grey(image: Tensor, weights: tuple[float, float, float]) -> Tensor:
    """A weighted sum of the channels in all three, truncated to (3, H, W) uint8."""
    shares = torch.tensor(weights, dtype=torch.float64)[:, None, None]
    # 1e-9 undoes the rounding of sums that are whole numbers
    summed = (image * shares).sum(0, keepdim=True).add_(1e-9)
    return summed.to(torch.uint8).expand(3, -1, -1).contiguous()


def solarize(image: Tensor, generator: torch.Generator) -> Tensor:
    """Invert the values at or above one of ``THRESHOLDS``."""
    return functional.solarize(image, drawn_from(THRESHOLDS, generator))


def invert(image: Tensor, _: torch.Generator) -> Tensor:
    """White minus the image."""
    return functional.invert(image)


def blur(image: Tensor, _: torch.Generator) -> Tensor:
    """Average over the rim of 5x5 pixels, as Pillow's filter BLUR; mirrored at the borders."""
    rim = torch.full((5, 5), 1 / 16)
    rim[1:4, 1:4] = 0
    return to_bytes(convolve(to_float(image), rim))


def add_noise(image: Tensor, generator: torch.Generator) -> Tensor:
    """Add normal noise; its standard deviation is one of ``DEVIATIONS``."""
    deviation = drawn_from(DEVIATIONS, generator) / 255
    return to_bytes(to_float(image) + deviation * torch.randn(image.shape, generator=generator))


OPERATIONS: dict[str, Operation] = {
    "identity": identity,
    "RGB_rand": shift_channels,
    "brightness": change_brightness,
    "color": change_colour,
    "contrast": change_contrast,
    "black_and_white": black_and_white,
    "black_and_white_luma": black_and_white_luma,
    "solarize": solarize,
    "invert": invert,
    "blur": blur,
    "gaussian_noise": add_noise,
}
PUBLISHED = ("identity", "RGB_rand", "brightness", "color", "contrast", "black_and_white")


@dataclass(frozen=True)
class Augmentation:
    """One augmented version of every image; it depends on seed, version and the image's id alone.

    Attributes:
        version: its number; each gives other pixels.
        seed: of everything random.
        operations: how many are applied in turn.
        names: keys of ``OPERATIONS`` to draw from, with replacement; the published ones if none
            are given.

    Raises:
        ValueError: for an unknown name, no names or no operations.
    """

    version: int
    seed: int
    _: KW_ONLY
    operations: int = 3
    names: tuple[str, ...] = PUBLISHED

    def __post_init__(self) -> None:
        if self.operations < 1 or not self.names:
            raise ValueError(
                f"an augmentation of {self.operations} operations out of {len(self.names)} "
                "changes nothing; give at least one operation and one name"
            )
        for name in self.names:
            if name not in OPERATIONS:
                raise ValueError(
                    f"no augmentation is called {name!r}{did_you_mean(name, OPERATIONS)}; "
                    f"there are {', '.join(OPERATIONS)}, none of which moves the label"
                )

    @property
    def name(self) -> str:
        """As results name it."""
        return "augmented"

    def __call__(self, image: Tensor, id: str, /) -> Tensor:
        """Augment an image (3, H, W) uint8; the same pixels for the same id, in any process."""
        generator = seeded_generator(self.seed, self.name, str(self.version), id)
        for index in torch.randint(len(self.names), (self.operations,), generator=generator):
            image = OPERATIONS[self.names[int(index)]](image, generator)
        return image
