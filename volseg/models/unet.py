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
from volseg.models.layers import CropConcat, initialise, widths

if TYPE_CHECKING:
    from torch import Tensor


def double_conv(channels_in: int, channels_out: int, *, padded: bool, batch_norm: bool) -> nn.Sequential:
    """Two 3x3 convolutions, each with ReLU (and batch normalisation between, where asked for)."""
    layers: list[nn.Module] = []
    for channels in (channels_in, channels_out):
        layers.append(nn.Conv2d(channels, channels_out, kernel_size=3, padding=1 if padded else 0))
        if batch_norm:
            layers.append(nn.BatchNorm2d(channels_out))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """U-Net; as published with the default arguments: 572 x 572 in, 388 x 388 out, 23 convolutions.

    Unpadded, its input must be such that every pooling sees an even size; padded, a multiple of 2**depth.

    Args:
        in_channels: grey values a pixel: 1.
        out_channels: classes of the last 1x1 convolution; 2, to be put through a soft-max.
        width: channels at full resolution; they double at each pooling.
        depth: number of poolings.
        padded: "same" convolutions, so that the output is as large as the input; not the paper's.
        batch_norm: batch normalisation before each ReLU; not the paper's.
        dropout: rate of the drop-out at the end of the contracting path.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        width: int = 64,
        depth: int = 4,
        *,
        padded: bool = False,
        batch_norm: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout {dropout} must be at least 0 and below 1")
        channels = widths(width, depth)

        def convolutions(a: int, b: int) -> nn.Sequential:
            return double_conv(a, b, padded=padded, batch_norm=batch_norm)

        self.down = nn.ModuleList(
            convolutions(a, b) for a, b in zip([in_channels, *channels], channels[:-1], strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.bottom = nn.Sequential(convolutions(channels[-2], channels[-1]), nn.Dropout(dropout))
        narrowing = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.upconvolutions = nn.ModuleList(nn.ConvTranspose2d(a, b, kernel_size=2, stride=2) for a, b in narrowing)
        self.join = CropConcat()
        self.up = nn.ModuleList(convolutions(a, b) for a, b in narrowing)
        self.head = nn.Conv2d(width, out_channels, kernel_size=1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, y, x) to (N, out_channels, y', x'), before any activation."""
        skips = []
        for encode in self.down:
            x = encode(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        for upconvolve, decode, skip in zip(self.upconvolutions, self.up, reversed(skips), strict=True):
            x = decode(self.join(skip, upconvolve(x)))
        out: Tensor = self.head(x)
        return out
