"""Discriminators of label maps at several scales (Wang et al. 2018), as MRNet has them."""

from __future__ import annotations

from torch import Tensor, nn

SCALES = 3
DEVIATION = 0.02  # of the weights as drawn
_SLOPE = 0.2
_WIDTHS = ((32, 2), (32, 1), (32, 2), (32, 1), (64, 2))  # channels and stride of each convolution
_RESIDUAL_BLOCKS = 4


def _conv_relu(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1),
        nn.LeakyReLU(_SLOPE, inplace=True),
    ]


class ResidualBlock(nn.Module):
    """x + conv(LeakyReLU(conv(x))), with nothing after the sum: (N, C, h, w) to the same.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_conv_relu(channels, channels), nn.Conv2d(channels, channels, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The input and what two convolutions make of it."""
        return x + self.body(x)


def patch_discriminator(in_channels: int) -> nn.Sequential:
    """From (N, in, H, W) to one number a patch, (N, 1, H / 8, W / 8), rounded up."""
    layers: list[nn.Module] = []
    channels = in_channels
    for width, stride in _WIDTHS:
        layers += _conv_relu(channels, width, stride)
        channels = width
    layers += [ResidualBlock(channels) for _ in range(_RESIDUAL_BLOCKS)]
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))


class MultiScaleDiscriminator(nn.Module):
    """Three patch discriminators of their own weights, the k-th on maps that are halved k times.

    Args:
        num_classes: C.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.halve = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
        self.scales = nn.ModuleList(patch_discriminator(num_classes) for _ in range(SCALES))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                assert module.bias is not None
                nn.init.normal_(module.weight, std=DEVIATION)
                nn.init.zeros_(module.bias)

    def forward(self, probabilities: Tensor) -> list[Tensor]:
        """Class probabilities (N, C, H, W) to maps (N, 1, h, w), one for each scale, no sigmoid.

        h is H / 8, H / 16 and H / 32, rounded up.
        """
        outputs = []
        maps = probabilities
        for number, scale in enumerate(self.scales):
            maps = self.halve(maps) if number else maps
            outputs.append(scale(maps))
        return outputs
