"""FusionNet: a fully residual encoder-decoder with summed long skips.

Quan, Hildebrand, Jeong: FusionNet, arXiv 1612.05360; Front. Comput. Sci. 3:613981 (2021).

       level 0   [C R C]------------------ + -> [C R C] -> 1x1
                    | pool                 ^ deconvolution
       level 1      [C R C]---------- + -> [C R C]
                       | pool         ^
       bridge          [C   R   C]----'

    C: 3x3 convolution, ReLU, batch normalisation.   R: three C and a short skip that adds the input.

In three dimensions, with kernels and poolings of [z, y, x], it is the residual net of Lee et al. 2017 (arXiv
1706.00120) in kind: summed skips, anisotropic poolings.
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
    pooling,
    scales,
    upconvolution,
    widths,
)

if TYPE_CHECKING:
    from torch import Tensor


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
        """Same shape out as in."""
        out: Tensor = x + self.blocks(x)
        return out


def level(channels_in: int, channels_out: int, kernel: Size) -> nn.Sequential:
    """What stands at every level, down and up: conv block, residual block, conv block."""
    return nn.Sequential(
        conv_block(channels_in, channels_out, kernel),
        Residual(channels_out, kernel),
        conv_block(channels_out, channels_out, kernel),
    )


class FusionNet(nn.Module):
    """FusionNet; as published with width 64 and depth 4.

    Long skips are sums: the upsampled map is *added* to the encoder's map of its level. All convolutions are
    "same", so the output is as large as the input, whose sides must be multiples of the poolings' product. The
    deconvolutions have kernels as large as their stride, 2x2 (the paper states their stride alone).

    Args:
        in_channels: grey values a pixel: 1; in two dimensions also 3, 5 ..: neighbouring sections.
        out_channels: maps that the last 1x1 convolution makes; 1, to be put through a sigmoid.
        width: channels at full resolution; they double at each pooling.
        depth: number of poolings.
        kernel: of the convolutions, [y, x] or [z, y, x]; one for all levels, or one for each.
        pool: of the poolings and deconvolutions; one for all, or one for each.
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
        channels = widths(width, depth)
        kernels, pools = scales(kernel, pool, depth)
        entering = [in_channels, *channels[:-1]]
        *down, bridge = zip(entering, channels, kernels, strict=True)
        self.down = nn.ModuleList(level(*stage) for stage in down)
        self.pools = nn.ModuleList(pooling(size) for size in pools)
        self.bridge = level(*bridge)
        rising = list(zip(channels[1:], channels[:-1], pools, kernels[:-1], strict=True))[::-1]
        self.deconvolutions = nn.ModuleList(upconvolution(a, b, size) for a, b, size, _ in rising)
        self.up = nn.ModuleList(level(b, b, size) for _, b, _, size in rising)
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
        length: FusionNets in the chain.
        in_channels: as of a FusionNet.
        out_channels: as of a FusionNet.
        arguments: further arguments of each FusionNet: width, depth, kernel, pool.
    """

    def __init__(self, length: int = 2, in_channels: int = 1, out_channels: int = 1, **arguments: Sizes) -> None:
        super().__init__()
        if length < 2:
            raise ConfigError(f"length {length} must be at least 2; for one link use the network fusionnet")
        entering = [in_channels] + [in_channels + out_channels] * (length - 1)
        self.links = nn.ModuleList(FusionNet(channels, out_channels, **arguments) for channels in entering)  # type: ignore[arg-type]  # each goes on as it came
        self.squash = nn.Sigmoid()
        self.join = CropConcat()

    @property
    def head(self) -> nn.Module:
        """The layer that makes the output's channels."""
        return self.links[-1].get_submodule("head")

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, y, x) to (N, out_channels, y, x), before any activation."""
        first, *others = self.links
        out: Tensor = first(x)
        for link in others:
            out = out + link(self.join(x, self.squash(out)))
        return out
