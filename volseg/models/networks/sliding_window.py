"""The sliding-window pixel classifier, in the dense form that computes nothing twice.

Ciresan, Giusti, Gambardella, Schmidhuber: Deep Neural Networks Segment Neuronal Membranes in Electron Microscopy
Images, NIPS 2012. A small network sees a square window and labels its centre pixel:

    window 95: conv 4 -> 92, pool -> 46, conv 5 -> 42, pool -> 21, conv 4 -> 18, pool -> 9, conv 4 -> 6, pool -> 3,
               fully connected on 3x3 -> classes

Slid over an image it does the same sums again and again. Densely, a pooling moves on by one pixel instead of two, and
whatever follows looks at every second place of its map, then every fourth: filter rarefaction (Long et al. 2015,
section 3.2). The sums are the same, each done once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from volseg.errors import ConfigError
from volseg.models.networks.layers import initialise

if TYPE_CHECKING:
    from torch import Tensor

STAGES = {95: (4, 5, 4, 4), 65: (4, 4, 5)}
"""Kernels of the convolutions, each followed by a 2x2 pooling. Those of window 65 are ours."""


class SlidingWindow(nn.Module):
    """A pixel classifier run densely: every output pixel is what the classifier says of the window around it.

    It pads nothing: an output lacks (window - 1) / 2 pixels on each side. It has a stride of 1. ReLU follows every
    layer but the last.

    Args:
        in_channels: grey values a pixel: 1; also 3, 5 ..: neighbouring sections.
        out_channels: classes; 2, to be put through a soft-max.
        width: maps of each convolution.
        hidden: neurons of the fully connected layer.
        window: side of the window, in pixels: 95 or 65.
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 2, width: int = 48, hidden: int = 200, window: int = 95
    ) -> None:
        super().__init__()
        if window not in STAGES:
            raise ConfigError(f"window {window} is not one of {', '.join(map(str, STAGES))}")
        if width < 1 or hidden < 1:
            raise ConfigError(f"width {width} and hidden {hidden} must both be at least 1")
        self.window = window
        convolutions: list[nn.Module] = []
        poolings: list[nn.Module] = []
        apart, left, channels = 1, window, in_channels
        for kernel in STAGES[window]:
            convolutions.append(nn.Conv2d(channels, width, kernel, dilation=apart))
            poolings.append(nn.MaxPool2d(2, stride=1, dilation=apart))
            apart, left, channels = 2 * apart, (left - kernel + 1) // 2, width
        self.convolutions = nn.ModuleList(convolutions)
        self.poolings = nn.ModuleList(poolings)
        self.connected = nn.Conv2d(width, hidden, left, dilation=apart)
        self.rectify = nn.ReLU(inplace=True)
        self.head = nn.Conv2d(hidden, out_channels, kernel_size=1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, y, x) to (N, out_channels, y - window + 1, x - window + 1), before any activation."""
        for convolve, pool in zip(self.convolutions, self.poolings, strict=True):
            x = pool(self.rectify(convolve(x)))
        out: Tensor = self.head(self.rectify(self.connected(x)))
        return out

    def classify(self, windows: Tensor) -> Tensor:
        """The classifier as it was before it was made dense: strided poolings, one window at a time.

        Args:
            windows: (N, in_channels, window, window).

        Returns:
            (N, out_channels), before any activation: what the dense form says of the windows' centre pixels.
        """
        x = windows
        for convolve in self.convolutions:
            x = F.max_pool2d(torch.relu(F.conv2d(x, *_weights(convolve))), 2)
        x = torch.relu(F.conv2d(x, *_weights(self.connected)))
        out: Tensor = self.head(x)[..., 0, 0]
        return out


def _weights(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    """Kernel and bias, for a convolution that is to be applied without its dilation."""
    return convolution.get_parameter("weight"), convolution.get_parameter("bias")
