"""A temperature for each pixel from a small network (local temperature scaling)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from uncertainty.calibrators.base import Calibrator, divided
from utils.types import Prediction

KERNEL, DILATION = 5, 2
PADDING = DILATION * (KERNEL // 2)
MAPS = 8  # on the logits: t1 to t4, then the gates g1 to g3 and gI
PUBLISHED_FLOOR = 1e-8
CLAMPED_FLOOR = 0.05
RANDOM_SCALE = 1e-3  # standard deviation of randomly drawn weights
READS = ("both", "logits", "image")
FLOORS = ("original", "clamp")
INITS = ("zero", "random")


class LocalTemperatureHead(nn.Module):
    """The temperature head of Ding et al. 2021 ("Local temperature scaling") as a tree of gates.

    Nine 5x5 convolutions of dilation 2 with one output each and reflected borders: c1 to c4, g1 to
    g3 and gI on the logits z, cI on the image I in [0, 1]. With s = sigmoid and t_i = c_i(z) + 1:

        a = t1 s(g1) + t2 (1 - s(g1))      b = t3 s(g2) + t4 (1 - s(g2))
        m = a s(g3) + b (1 - s(g3))        tI = cI(I) + 1
        T = relu(m s(gI) + tI (1 - s(gI)) + 1) + 1e-8

    ``maps`` computes the eight on the logits as one convolution with eight outputs in the order
    c1, c2, c3, c4, g1, g2, g3, gI; ``image_map`` is cI. For 19 classes: 3,884 parameters.

    Starting at zero, T is 2 everywhere, c1 to c4 receive equal gradients and g1 to g3 none for
    ever, so that nine convolutions act as three. Random weights undo that.

    Args:
        num_classes: C.
        reads: "logits" or "image" lets all nine convolutions read that alone (the ablations).
        init_t: T where all convolutions give zero: 2 as published, where one is added twice, or 1.
        init: "zero" as published, or "random": normal weights of standard deviation 0.001.
        floor: "original" adds 1e-8 after the ReLU, below which a pixel has no gradient and logits
            grow a hundred million times; "clamp" keeps T at 0.05 at least.
        seed: of the random weights.

    Raises:
        ValueError: for an unknown choice, or init_t not above 0.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        reads: Literal["both", "logits", "image"] = "both",
        init_t: float = 2.0,
        init: Literal["zero", "random"] = "zero",
        floor: Literal["original", "clamp"] = "original",
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("reads", reads, READS),
            ("init", init, INITS),
            ("floor", floor, FLOORS),
        ):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        if not init_t > 0:
            raise ValueError(f"init_t is {init_t:g}; a temperature must be above 0")
        self.num_classes = num_classes
        self.reads, self.init_t, self.init, self.floor = reads, init_t, init, floor
        self.seed = seed
        self.maps = convolution(3 if reads == "image" else num_classes, MAPS)
        self.image_map = convolution(num_classes if reads == "logits" else 3, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start anew: zeros, or small normal weights and zero biases."""
        generator = torch.Generator().manual_seed(self.seed)
        for layer in (self.maps, self.image_map):
            nn.init.zeros_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            if self.init == "random":
                nn.init.normal_(layer.weight, std=RANDOM_SCALE, generator=generator)

    def forward(self, logits: Tensor, image: Tensor) -> Tensor:
        """The temperature of each pixel.

        Args:
            logits: (N, C, H, W).
            image: (N, 3, H, W) of the same size, RGB in [0, 1].

        Returns:
            (N, 1, H, W), above 0.

        Raises:
            ValueError: if a side is shorter than the 5 pixels that reflected borders need.
        """
        height, width = logits.shape[2:]
        if min(height, width) <= PADDING:
            raise ValueError(
                f"the image has {height}x{width} pixels; local temperature scaling needs at least "
                f"{PADDING + 1} rows and columns, since it reflects {PADDING} at each border"
            )
        parts = self.maps(image if self.reads == "image" else logits)
        t1, t2, t3, t4 = (parts[:, :4] + 1).split(1, 1)
        g1, g2, g3, g_image = parts[:, 4:].sigmoid().split(1, 1)
        of_image = self.image_map(logits if self.reads == "logits" else image) + 1
        left, right = mixed(t1, t2, g1), mixed(t3, t4, g2)
        # both sides of every gate start at 1, so that this is the temperature at the start
        total = mixed(mixed(left, right, g3), of_image, g_image) + (self.init_t - 1)
        if self.floor == "clamp":
            return total.clamp(min=CLAMPED_FLOOR)
        return total.relu() + PUBLISHED_FLOOR

    def settings(self) -> dict[str, Any]:
        """The arguments that make a head of this kind."""
        names = ("num_classes", "reads", "init_t", "init", "floor", "seed")
        return {name: getattr(self, name) for name in names}


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """A 5x5 convolution of dilation 2 that keeps the size by reflecting the borders."""
    return nn.Conv2d(
        inputs, outputs, KERNEL, padding=PADDING, dilation=DILATION, padding_mode="reflect"
    )


def mixed(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """First where the share is 1, second where it is 0."""
    return first * share + second * (1 - share)


class LocalTemperature(Calibrator):
    """Divides the logits of each pixel by the temperature of a trained head.

    Args:
        head: trained; it is put into evaluation mode and read outside the graph.
        mean: (3,) that was subtracted from images in [0, 1] to normalise them.
        std: (3,) that they were then divided by.
    """

    kind = "local"

    def __init__(
        self,
        head: LocalTemperatureHead,
        mean: Sequence[float] | Tensor,
        std: Sequence[float] | Tensor,
    ) -> None:
        self.head = head.eval()
        self.mean = torch.as_tensor(mean, dtype=torch.float32).view(3)
        self.std = torch.as_tensor(std, dtype=torch.float32).view(3)
        self.num_classes = head.num_classes

    @torch.no_grad()
    def calibrate(self, prediction: Prediction, images: Tensor) -> Prediction:
        """Divide the logits; an ensemble's temperature is read from the ensemble's logits.

        Raises:
            ValueError: if images and logits differ in size, or are too small for the head.
        """
        logits = prediction.logits
        if images.shape[2:] != logits.shape[2:]:
            raise ValueError(
                f"images of {tuple(images.shape[2:])} and logits of {tuple(logits.shape[2:])}: "
                "local temperature scaling needs both at one size"
            )
        if self.mean.device != logits.device:
            self.head.to(logits.device)
            self.mean, self.std = self.mean.to(logits.device), self.std.to(logits.device)
        plain = denormalised(images.float(), self.mean, self.std)
        return divided(prediction, self.head(logits.float(), plain))

    def state(self) -> dict[str, Any]:
        """The head with its settings, and the normalisation of the images."""
        weights = {name: value.cpu() for name, value in self.head.state_dict().items()}
        return {
            "settings": self.head.settings(),
            "weights": weights,
            "mean": self.mean.cpu(),
            "std": self.std.cpu(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The calibrator whose ``state`` this is."""
        head = LocalTemperatureHead(**state["settings"])
        head.load_state_dict(state["weights"])
        return cls(head, state["mean"], state["std"])


def denormalised(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalised images (N, 3, H, W) back in [0, 1]; mean and std are (3,)."""
    return (images * std[:, None, None] + mean[:, None, None]).clamp(0, 1)
