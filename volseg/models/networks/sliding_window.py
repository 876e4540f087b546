"""The sliding-window pixel classifier as a dense network.

Ciresan, Giusti, Gambardella, Schmidhuber: Deep Neural Networks Segment Neuronal Membranes in Electron Microscopy
Images, NIPS 2012. A small network classifies the centre pixel of a square window:

    window 95: conv 4 -> 92, pool -> 46, conv 5 -> 42, pool -> 21, conv 4 -> 18, pool -> 9, conv 4 -> 6, pool -> 3,
               fully connected on 3x3 -> classes

Neighbouring windows repeat most computations. In the dense form poolings have stride 1, and the layers after them are
dilated by 2, then by 4: filter rarefaction (Long et al. 2015, section 3.2). The results are the same, computed once.
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
"""Kernels of the convolutions, each followed by a 2x2 pooling; those of window 65 are not from the paper."""


class SlidingWindow(nn.Module):
    """A pixel classifier run densely: every output pixel is what the classifier says of the window around it.

    Unpadded: the output is (window - 1) / 2 pixels smaller on each side. The stride is 1. ReLU follows all layers but
    the last.

    Args:
        in_channels: 1, or 3, 5 .. for neighbouring sections.
        out_channels: classes; 2, for a softmax.
        width: channels of each convolution.
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
        dilation, side, channels = 1, window, in_channels
        for kernel in STAGES[window]:
            convolutions.append(nn.Conv2d(channels, width, kernel, dilation=dilation))
            poolings.append(nn.MaxPool2d(2, stride=1, dilation=dilation))
            dilation, side, channels = 2 * dilation, (side - kernel + 1) // 2, width
        self.convolutions = nn.ModuleList(convolutions)
        self.poolings = nn.ModuleList(poolings)
        self.connected = nn.Conv2d(width, hidden, side, dilation=dilation)
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
        """Classify single windows with strided poolings, as the original classifier does.

        Args:
            windows: (N, in_channels, window, window).

        Returns:
            (N, out_channels), before any activation: the dense output at the windows' centre pixels.
        """
        x = windows
        for convolve in self.convolutions:
            x = F.max_pool2d(torch.relu(F.conv2d(x, *_weights(convolve))), 2)
        x = torch.relu(F.conv2d(x, *_weights(self.connected)))
        out: Tensor = self.head(x)[..., 0, 0]
        return out


def _weights(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a convolution, to apply it without dilation."""
    return convolution.get_parameter("weight"), convolution.get_parameter("bias")
