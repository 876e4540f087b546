"""FusionNet: a fully residual encoder-decoder with summed long skips.

Quan, Hildebrand, Jeong: FusionNet, arXiv 1612.05360; Front. Comput. Sci. 3:613981 (2021).

       level 0   [C R C]------------------ + -> [C R C] -> 1x1
                    | pool                 ^ deconvolution
       level 1      [C R C]---------- + -> [C R C]
                       | pool         ^
       bridge          [C   R   C]----'

    C: 3x3 convolution, ReLU, batch normalisation.   R: three C and a short skip that adds the input.

In three dimensions, with kernels and poolings of [z, y, x], it resembles the residual network of Lee et al. 2017 (arXiv
1706.00120): summed skips, anisotropic poolings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from volseg.errors import ConfigError
from volseg.models.networks.layers import (
    CropConcat,
    Size,
    Sizes,
    batch_norm,
    convolution,
    initialise,
    level_sizes,
    level_widths,
    pooling,
    upconvolution,
)

if TYPE_CHECKING:
    from torch import Tensor

_MAX_LENGTH = 8


def conv_block(channels_in: int, channels_out: int, kernel: Size = (3, 3)) -> nn.Sequential:
    """Convolution ("same"), ReLU, batch normalisation, in this order."""
    return nn.Sequential(
        convolution(channels_in, channels_out, kernel),
        nn.ReLU(inplace=True),
        batch_norm(channels_out, kernel),
    )


class Residual(nn.Module):
    """Three conv blocks, and a short skip that adds the block's input to their output."""

    def __init__(self, channels: int, kernel: Size = (3, 3)) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(conv_block(channels, channels, kernel) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        out: Tensor = x + self.blocks(x)
        return out


def level(channels_in: int, channels_out: int, kernel: Size) -> nn.Sequential:
    """Build a level of encoder or decoder: conv block, residual block, conv block."""
    return nn.Sequential(
        conv_block(channels_in, channels_out, kernel),
        Residual(channels_out, kernel),
        conv_block(channels_out, channels_out, kernel),
    )


class FusionNet(nn.Module):
    """FusionNet; as published with width 64 and depth 4.

    Long skips are sums: the upsampled features are *added* to those of the encoder at their level. All convolutions are
    "same", so the output is as large as the input, whose sides must be multiples of the product of the poolings. The
    kernels of the deconvolutions are as large as their stride, 2x2 (the paper states only the stride).

    Args:
        in_channels: 1, or in two dimensions 3, 5 .. for neighbouring sections.
        out_channels: classes; 1, for a sigmoid.
        width: channels at full resolution; they double at each pooling.
        depth: number of poolings.
        kernel: of the convolutions, [y, x] or [z, y, x]; one for all levels, or one per level.
        pool: of the poolings and deconvolutions; one for all, or one per level.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 64,
        depth: int = 4,
        kernel: Sizes = (3, 3),
        pool: Sizes = (2, 2),
    ) -> None:
        super().__init__()
        channels = level_widths(width, depth)
        kernels, pools = level_sizes(kernel, pool, depth)
        inputs = [in_channels, *channels[:-1]]
        *down, bridge = zip(inputs, channels, kernels, strict=True)
        self.down = nn.ModuleList(level(*stage) for stage in down)
        self.pools = nn.ModuleList(pooling(size) for size in pools)
        self.bridge = level(*bridge)
        up = list(zip(channels[1:], channels[:-1], pools, kernels[:-1], strict=True))[::-1]
        self.deconvolutions = nn.ModuleList(upconvolution(a, b, size) for a, b, size, _ in up)
        self.up = nn.ModuleList(level(b, b, size) for _, b, _, size in up)
        self.head = convolution(width, out_channels, (1,) * len(kernels[0]))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, y, x) to (N, out_channels, y, x), before any activation; z in front of y in 3-D."""
        skips = []
        for encode, pool in zip(self.down, self.pools, strict=True):
            x = encode(x)
            skips.append(x)
            x = pool(x)
        x = self.bridge(x)
        for deconvolve, decode, skip in zip(self.deconvolutions, self.up, reversed(skips), strict=True):
            x = decode(deconvolve(x) + skip)
        out: Tensor = self.head(x)
        return out


class FusionNetChain(nn.Module):
    """Chained FusionNets: each sees the image and what the one before it made, and adds its correction.

        image -> FusionNet -> sigmoid -+-> FusionNet -> + -> ..
          '---------------------------'      before -----'

    Args:
        length: number of FusionNets.
        in_channels: as of a FusionNet.
        out_channels: likewise.
        width: likewise.
        depth: likewise.
        kernel: likewise.
        pool: likewise.
    """

    def __init__(
        self,
        length: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 64,
        depth: int = 4,
        kernel: Sizes = (3, 3),
        pool: Sizes = (2, 2),
    ) -> None:
        super().__init__()
        if not 2 <= length <= _MAX_LENGTH:
            raise ConfigError(f"length {length} must be 2 to {_MAX_LENGTH}; use the network fusionnet for one")
        inputs = [in_channels] + [in_channels + out_channels] * (length - 1)
        self.links = nn.ModuleList(FusionNet(channels, out_channels, width, depth, kernel, pool) for channels in inputs)
        self.squash = nn.Sigmoid()
        self.join = CropConcat()

    @property
    def head(self) -> nn.Module:
        """The last layer, whose channels are those of the output."""
        return self.links[-1].get_submodule("head")

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, y, x) to (N, out_channels, y, x), before any activation."""
        first, *others = self.links
        out: Tensor = first(x)
        for link in others:
            out = out + link(self.join(x, self.squash(out)))
        return out
