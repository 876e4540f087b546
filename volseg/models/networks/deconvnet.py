"""DeconvNet: VGG16 and its mirror image, connected by the indices (switches) of the poolings.

Noh, Hong, Han: Learning Deconvolution Network for Semantic Segmentation, ICCV 2015, arXiv 1505.04366, figure 2.

    224  [conv conv]-- pool1 . . . . . . switches . . . . . . unpool1 --[deconv deconv]-> score
    112     [conv conv]-- pool2 . . . . switches . . . . unpool2 --[deconv deconv]
     56        [3 conv]-- pool3 . . . . . . . . . . . unpool3 --[3 deconv]
     28           [3 conv]-- pool4 . . . . . . . . unpool4 --[3 deconv]
     14              [3 conv]-- pool5 . . . . . unpool5 --[3 deconv]
      7                        fc6 7x7 -> fc7 -> fc6-deconv 7x7

Every layer is followed by batch normalisation and ReLU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from volseg.models.networks.layers import MaxUnpool2d, initialise
from volseg.models.networks.vgg import CONVOLUTIONS_PER_STAGE, classifier_width, stage_widths

if TYPE_CHECKING:
    from torch import Tensor


def with_norm(layer: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    """Append batch normalisation and ReLU to a layer."""
    return [layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU(inplace=True)]


def encoder_stage(channels_in: int, channels_out: int, convolutions: int) -> nn.Sequential:
    """Build a stage of the encoder: 3x3 convolutions."""
    inputs = [channels_in] + [channels_out] * (convolutions - 1)
    return nn.Sequential(*(part for a in inputs for part in with_norm(nn.Conv2d(a, channels_out, 3, padding=1))))


def decoder_stage(channels_in: int, channels_out: int, convolutions: int) -> nn.Sequential:
    """Build a stage of the decoder: 3x3 deconvolutions, of which the last one reduces the channels."""
    outputs = [channels_in] * (convolutions - 1) + [channels_out]
    return nn.Sequential(
        *(part for b in outputs for part in with_norm(nn.ConvTranspose2d(channels_in, b, kernel_size=3, padding=1)))
    )


class DeconvNet(nn.Module):
    """DeconvNet; as published with width 64, on inputs of 224 x 224 and on larger multiples of 32.

    Max-unpooling puts each value at the position of its maximum, which preserves edges.

    Args:
        in_channels: 1, or 3, 5 .. for neighbouring sections.
        out_channels: classes; 2, for a softmax.
        width: channels of the first stage; those of fc6 and fc7 are 64 times as many.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 2, width: int = 64) -> None:
        super().__init__()
        channels, hidden = stage_widths(width), classifier_width(width)
        self.down = nn.ModuleList(
            encoder_stage(*stage)
            for stage in zip([in_channels, *channels[:-1]], channels, CONVOLUTIONS_PER_STAGE, strict=True)
        )
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.classifier = nn.Sequential(
            *with_norm(nn.Conv2d(channels[-1], hidden, kernel_size=7)),
            *with_norm(nn.Conv2d(hidden, hidden, kernel_size=1)),
            *with_norm(nn.ConvTranspose2d(hidden, channels[-1], kernel_size=7)),
        )
        self.unpool = MaxUnpool2d(2)
        self.up = nn.ModuleList(
            decoder_stage(*stage)
            for stage in zip(
                channels[::-1], [*channels[-2::-1], channels[0]], CONVOLUTIONS_PER_STAGE[::-1], strict=True
            )
        )
        self.head = nn.Conv2d(channels[0], out_channels, kernel_size=1)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, y, x) to (N, out_channels, y, x), before any activation."""
        switches = []
        for encode in self.down:
            x, indices = self.pool(encode(x))
            switches.append(indices)
        x = self.classifier(x)
        for decode, indices in zip(self.up, reversed(switches), strict=True):
            x = decode(self.unpool(x, indices))
        out: Tensor = self.head(x)
        return out
