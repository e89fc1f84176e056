"""Depthwise convolution whose gradients avoid slow bfloat16 kernels on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise 3x3 convolution, strided or dilated: (N, C, H, W) to (N, C, h, w).

    oneDNN has fast bfloat16 gradients for depthwise convolutions only without stride and
    dilation; the others took a fifth of a training step of MobileNetV2. So under bfloat16 on the
    CPU both are taken apart into convolutions without. The outputs are the same sums.

    Args:
        weight: (C, 1, 3, 3), shared with the convolution that this one replaces.
        stride: in both directions.
        dilation: in both directions; 1 if the convolution is strided. Nothing is padded.
    """

    def __init__(self, weight: nn.Parameter, stride: int = 1, dilation: int = 1) -> None:
        channels = weight.shape[0]
        assert stride == 1 or dilation == 1
        super().__init__(
            channels, channels, 3, stride, dilation=dilation, groups=channels, bias=False
        )
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        """Filter each channel."""
        slow = x.device.type == "cpu" and x.dtype == torch.bfloat16 and torch.is_grad_enabled()
        if slow and self.stride[0] > 1:
            return self._subsampled(x)
        if slow and self.dilation[0] > 1:
            return self._in_phases(x)
        return super().forward(x)

    def _subsampled(self, x: Tensor) -> Tensor:
        """The convolution without stride, of which every stride-th output is kept."""
        step = self.stride[0]
        x = F.conv2d(x, self.weight, groups=self.groups)
        return x[..., ::step, ::step].contiguous(memory_format=torch.channels_last)

    def _in_phases(self, x: Tensor) -> Tensor:
        """Every dilation-th pixel makes an image of its own, to be filtered without dilation."""
        step = self.dilation[0]
        height, width = (side - 2 * step for side in x.shape[-2:])
        x = F.pad(x, (0, -x.shape[3] % step, 0, -x.shape[2] % step)).permute(0, 2, 3, 1)
        n, rows, columns, c = x.shape
        x = x.reshape(n, rows // step, step, columns // step, step, c).permute(0, 2, 4, 1, 3, 5)
        x = x.reshape(n * step * step, rows // step, columns // step, c).permute(0, 3, 1, 2)
        x = F.conv2d(x, self.weight, groups=self.groups)
        rows, columns = x.shape[-2:]
        x = x.permute(0, 2, 3, 1).reshape(n, step, step, rows, columns, c)
        x = x.permute(0, 3, 1, 4, 2, 5).reshape(n, rows * step, columns * step, c)
        return (
            x[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        )
