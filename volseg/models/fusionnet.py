"""FusionNet: a fully residual encoder-decoder with summed long skips.

Quan, Hildebrand, Jeong: FusionNet, arXiv 1612.05360; Front. Comput. Sci. 3:613981 (2021).

       level 0   [C R C]------------------ + -> [C R C] -> 1x1
                    | pool                 ^ deconvolution
       level 1      [C R C]---------- + -> [C R C]
                       | pool         ^
       bridge          [C   R   C]----'

    C: 3x3 convolution, ReLU, batch normalisation.   R: three C and a short skip that adds the input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from volseg.models.layers import initialise, widths

if TYPE_CHECKING:
    from torch import Tensor


def conv_block(channels_in: int, channels_out: int) -> nn.Sequential:
    """3x3 convolution ("same"), ReLU, batch normalisation, in this order."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1),
        nn.ReLU(inplace=True),
        nn.BatchNorm2d(channels_out),
    )


class Residual(nn.Module):
    """Three conv blocks, and a short skip that adds the block's input to their output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(conv_block(channels, channels) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out as in."""
        out: Tensor = x + self.blocks(x)
        return out


def level(channels_in: int, channels_out: int) -> nn.Sequential:
    """What stands at every level, down and up: conv block, residual block, conv block."""
    return nn.Sequential(
        conv_block(channels_in, channels_out), Residual(channels_out), conv_block(channels_out, channels_out)
    )


class FusionNet(nn.Module):
    """FusionNet; as published with width 64 and depth 4.

    Long skips are sums: the upsampled map is *added* to the encoder's map of its level. All convolutions are
    "same", so the output is as large as the input, whose sides must be multiples of 2**depth. The deconvolutions
    have 2x2 kernels (the paper states their stride alone).

    Args:
        in_channels: grey values a pixel: 1.
        out_channels: maps that the last 1x1 convolution makes; 1, to be put through a sigmoid.
        width: channels at full resolution; they double at each pooling.
        depth: number of poolings.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 64, depth: int = 4) -> None:
        super().__init__()
        channels = widths(width, depth)
        self.down = nn.ModuleList(level(a, b) for a, b in zip([in_channels, *channels], channels[:-1], strict=False))
        self.pool = nn.MaxPool2d(2)
        self.bridge = level(channels[-2], channels[-1])
        narrowing = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.deconvolutions = nn.ModuleList(nn.ConvTranspose2d(a, b, kernel_size=2, stride=2) for a, b in narrowing)
        self.up = nn.ModuleList(level(b, b) for _, b in narrowing)
        self.head = nn.Conv2d(width, out_channels, kernel_size=1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, y, x) to (N, out_channels, y, x), before any activation."""
        skips = []
        for encode in self.down:
            x = encode(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bridge(x)
        for deconvolve, decode, skip in zip(self.deconvolutions, self.up, reversed(skips), strict=True):
            x = decode(deconvolve(x) + skip)
        out: Tensor = self.head(x)
        return out
