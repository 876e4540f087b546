"""FCN: a convolutional classifier whose scores are upsampled and summed with those of finer poolings.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, arXiv 1411.4038, figure 3.

    image -> pool1 -> pool2 -> pool3 -> pool4 -> pool5 -> fc6 7x7 -> fc7 -> score     stride 32
                                 |        '--- score --- crop -> + <-- 2x ----'       stride 16
                                 '------------ score --- crop -> + <-- 2x -'          stride 8
                                                                 '-- upsample, crop -> as large as the image
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from volseg.errors import ConfigError
from volseg.models.networks.layers import Crop, convolution, initialise
from volseg.models.networks.vgg import CONVOLUTIONS_PER_STAGE, classifier_width, stage_widths

if TYPE_CHECKING:
    from torch import Tensor

_FIRST_PADDING = 100
"""Zero padding of the image, so that fc6 fits at the border; the offsets below follow from it."""
_SCORE_OFFSETS = {16: 5, 8: 9}
"""Offset of the scores of pool4 and pool3 to the upsampled coarser scores."""
_IMAGE_OFFSETS = {32: 19, 16: 27, 8: 31}
"""Offset of the image to the last upsampled scores."""


def stage(channels_in: int, channels_out: int, convolutions: int, first_padding: int) -> nn.Sequential:
    """Build a stage: 3x3 convolutions, each with ReLU, and a 2x2 pooling."""
    layers: list[nn.Module] = []
    for number in range(convolutions):
        padding = first_padding if number == 0 else 1
        layers += [
            nn.Conv2d(channels_in if number == 0 else channels_out, channels_out, kernel_size=3, padding=padding),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


def bilinear(channels: int, factor: int, *, padded: bool) -> nn.ConvTranspose2d:
    """Bilinear upsampling as a depthwise transposed convolution with a fixed kernel of twice the factor.

    Learning the kernel gave no significant gain (section 4.3 of the paper).
    """
    layer = nn.ConvTranspose2d(
        channels,
        channels,
        kernel_size=2 * factor,
        stride=factor,
        padding=factor // 2 if padded else 0,
        groups=channels,
        bias=False,
    )
    ramp = 1 - (torch.arange(2 * factor) - (factor - 0.5)).abs() / factor
    with torch.no_grad():
        layer.weight.copy_(torch.outer(ramp, ramp).expand_as(layer.weight))
    layer.weight.requires_grad = False
    return layer


class FCN(nn.Module):
    """A fully convolutional network on VGG16, whose scores are refined down to a stride.

    As published, the first layer pads by 100 and the output is cropped; input sides are 26 more than a multiple of 32,
    so that all poolings divide evenly. Padded, all convolutions are "same", and sides are multiples of 32.

    Args:
        finest: stride of the finest scores: 32, 16 or 8.
        in_channels: 1, or 3, 5 .. for neighbouring sections.
        out_channels: classes; 2, for a softmax.
        width: channels of the first stage; those of fc6 and fc7 are 64 times as many.
        padded: "same" convolutions instead of the published padding and crops.
        dropout: rate of the dropout after fc6 and fc7.
    """

    def __init__(
        self,
        finest: int,
        in_channels: int = 1,
        out_channels: int = 2,
        width: int = 64,
        *,
        padded: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout {dropout} must be at least 0 and below 1")
        channels, hidden = stage_widths(width), classifier_width(width)
        paddings = [1 if padded else _FIRST_PADDING, 1, 1, 1, 1]
        self.stages = nn.ModuleList(
            stage(*sizes)
            for sizes in zip([in_channels, *channels[:-1]], channels, CONVOLUTIONS_PER_STAGE, paddings, strict=True)
        )
        self.classifier = nn.Sequential(
            nn.Conv2d(channels[-1], hidden, kernel_size=7, padding=3 if padded else 0),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(hidden, hidden, kernel_size=1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.head = nn.Conv2d(hidden, out_channels, kernel_size=1)
        strides = [stride for stride in (16, 8) if stride >= finest]
        self.doublings = nn.ModuleList(bilinear(out_channels, 2, padded=padded) for _ in strides)
        self.scores = nn.ModuleList(
            convolution(channels[level], out_channels, (1, 1)) for level in (3, 2)[: len(strides)]
        )
        self.crops = nn.ModuleList(Crop(0 if padded else _SCORE_OFFSETS[stride]) for stride in strides)
        self.upsample = bilinear(out_channels, finest, padded=padded)
        self.crop = Crop(0 if padded else _IMAGE_OFFSETS[finest])
        initialise(self)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, in_channels, y, x) to scores (N, out_channels, y, x), before any activation."""
        x, pooled = image, []
        for convolve in self.stages:
            x = convolve(x)
            pooled.append(x)
        scores = self.head(self.classifier(x))
        finer = (pooled[3], pooled[2])[: len(self.scores)]
        for double, score, crop, features in zip(self.doublings, self.scores, self.crops, finer, strict=True):
            doubled = double(scores)
            scores = doubled + crop(score(features), doubled)
        out: Tensor = self.crop(self.upsample(scores), image)
        return out


class FCN32s(FCN):
    """FCN-32s: one upsampling from stride 32."""

    def __init__(self, in_channels: int = 1, out_channels: int = 2, width: int = 64, *, padded: bool = False,
                 dropout: float = 0.5) -> None:  # fmt: skip
        super().__init__(32, in_channels, out_channels, width, padded=padded, dropout=dropout)


class FCN16s(FCN):
    """FCN-16s: summed with the scores of pool4."""

    def __init__(self, in_channels: int = 1, out_channels: int = 2, width: int = 64, *, padded: bool = False,
                 dropout: float = 0.5) -> None:  # fmt: skip
        super().__init__(16, in_channels, out_channels, width, padded=padded, dropout=dropout)


class FCN8s(FCN):
    """FCN-8s: summed with the scores of pool4 and pool3."""

    def __init__(self, in_channels: int = 1, out_channels: int = 2, width: int = 64, *, padded: bool = False,
                 dropout: float = 0.5) -> None:  # fmt: skip
        super().__init__(8, in_channels, out_channels, width, padded=padded, dropout=dropout)
