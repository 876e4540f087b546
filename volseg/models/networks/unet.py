"""U-Net: contracting and expanding paths joined by concatenation.

Ronneberger, Fischer, Brox: U-Net, MICCAI 2015, arXiv 1505.04597, figure 1.

       572 -> 568 ------- crop ------> 392 -> 388 -> 1x1
               | pool                   ^ 2x2 up-convolution
              284 -> 280 -- crop --> 200 -> 196
                      | pool          ^
                     140 -> 136 ... 104 -> 100        (and so on: four poolings, 92 lost on each side)
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


def double_conv(channels_in: int, channels_out: int, kernel: Size, *, padded: bool, with_norm: bool) -> nn.Sequential:
    """Build two convolutions, each with ReLU, and optionally batch normalisation before it."""
    layers: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        layers.append(convolution(channels, channels_out, kernel, padded=padded))
        if with_norm:
            layers.append(batch_norm(channels_out, kernel))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net; as published with the default arguments: 572 x 572 in, 388 x 388 out, 23 convolutions.

    Unpadded, every pooling must divide its input evenly; padded, input sides are multiples of the product of the
    poolings.

    Args:
        in_channels: 1, or in two dimensions 3, 5 .. for neighbouring sections.
        out_channels: classes; 2, for a softmax.
        width: channels at full resolution; they double at each pooling.
        depth: number of poolings.
        padded: "same" convolutions, so that the output is as large as the input; not in the paper.
        batch_norm: batch normalisation before each ReLU; not in the paper.
        dropout: rate of the dropout at the end of the contracting path.
        kernel: of the convolutions, [y, x] or [z, y, x]; one for all levels, or one per level.
        pool: of the poolings and up-convolutions; one for all, or one per level.
    """

    def __init__(  # noqa: PLR0913 - options of published U-Nets
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        width: int = 64,
        depth: int = 4,
        *,
        padded: bool = False,
        batch_norm: bool = False,
        dropout: float = 0.5,
        kernel: Sizes = (3, 3),
        pool: Sizes = (2, 2),
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout {dropout} must be at least 0 and below 1")
        channels = level_widths(width, depth)
        kernels, pools = level_sizes(kernel, pool, depth)

        def convolutions(a: int, b: int, size: Size) -> nn.Sequential:
            return double_conv(a, b, size, padded=padded, with_norm=batch_norm)

        *down, bottom = zip([in_channels, *channels[:-1]], channels, kernels, strict=True)
        self.down = nn.ModuleList(convolutions(*stage) for stage in down)
        self.pools = nn.ModuleList(pooling(size) for size in pools)
        self.bottom = nn.Sequential(convolutions(*bottom), nn.Dropout(dropout))
        up = list(zip(channels[1:], channels[:-1], pools, kernels[:-1], strict=True))[::-1]
        self.upconvolutions = nn.ModuleList(upconvolution(a, b, size) for a, b, size, _ in up)
        self.join = CropConcat()
        self.up = nn.ModuleList(convolutions(a, b, size) for a, b, _, size in up)
        self.head = convolution(width, out_channels, (1,) * len(kernels[0]))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, y, x) to (N, out_channels, y', x'), before any activation; z in front of y in 3-D."""
        skips = []
        for encode, pool in zip(self.down, self.pools, strict=True):
            x = encode(x)
            skips.append(x)
            x = pool(x)
        x = self.bottom(x)
        for upconvolve, decode, skip in zip(self.upconvolutions, self.up, reversed(skips), strict=True):
            x = decode(self.join(skip, upconvolve(x)))
        out: Tensor = self.head(x)
        return out
