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
    pooling,
    scales,
    upconvolution,
    widths,
)

if TYPE_CHECKING:
    from torch import Tensor


def double_conv(channels_in: int, channels_out: int, kernel: Size, *, padded: bool, normed: bool) -> nn.Sequential:
    """Two convolutions, each with ReLU (and batch normalisation between, where asked for)."""
    layers: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        layers.append(convolution(channels, channels_out, kernel, padded=padded))
        if normed:
            layers.append(batch_norm(channels_out, kernel))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net; as published with the default arguments: 572 x 572 in, 388 x 388 out, 23 convolutions.

    Unpadded, its input must be such that every pooling divides its size evenly; padded, a multiple of the poolings'
    product.

    Args:
        in_channels: grey values a pixel: 1; in two dimensions also 3, 5 ..: neighbouring sections.
        out_channels: classes of the last 1x1 convolution; 2, to be put through a soft-max.
        width: channels at full resolution; they double at each pooling.
        depth: number of poolings.
        padded: "same" convolutions, so that the output is as large as the input; not the paper's.
        batch_norm: batch normalisation before each ReLU; not the paper's.
        dropout: rate of the drop-out at the end of the contracting path.
        kernel: of the convolutions, [y, x] or [z, y, x]; one for all levels, or one for each.
        pool: of the poolings and up-convolutions; one for all, or one for each.
    """

    def __init__(  # noqa: PLR0913 - what may differ between U-Nets is much
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
        channels = widths(width, depth)
        kernels, pools = scales(kernel, pool, depth)

        def convolutions(a: int, b: int, size: Size) -> nn.Sequential:
            return double_conv(a, b, size, padded=padded, normed=batch_norm)

        *down, bottom = zip([in_channels, *channels[:-1]], channels, kernels, strict=True)
        self.down = nn.ModuleList(convolutions(*stage) for stage in down)
        self.pools = nn.ModuleList(pooling(size) for size in pools)
        self.bottom = nn.Sequential(convolutions(*bottom), nn.Dropout(dropout))
        rising = list(zip(channels[1:], channels[:-1], pools, kernels[:-1], strict=True))[::-1]
        self.upconvolutions = nn.ModuleList(upconvolution(a, b, size) for a, b, size, _ in rising)
        self.join = CropConcat()
        self.up = nn.ModuleList(convolutions(a, b, size) for a, b, _, size in rising)
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
