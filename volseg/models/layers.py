"""Parts that several networks share. Tensors are (N, C, y, x)."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import torch
from torch import nn

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor


class CropConcat(nn.Module):
    """Join a skip to the upsampled map: the skip's centre, then the map, along the channels."""

    def forward(self, skip: Tensor, upsampled: Tensor) -> Tensor:
        """Crop `skip` to the size of `upsampled` and put it in front."""
        rows, columns = upsampled.shape[-2:]
        top, left = crop_offset(skip.shape[-2], rows), crop_offset(skip.shape[-1], columns)
        return torch.cat([skip[..., top : top + rows, left : left + columns], upsampled], dim=1)


def crop_offset(larger: int, smaller: int) -> int:
    """How much is cropped in front, when the centre of the larger is kept."""
    return (larger - smaller) // 2


def widths(width: int, depth: int) -> list[int]:
    """Channels at each level, doubling at each pooling.

    Raises:
        ConfigError: a width or a depth below 1.

    >>> widths(64, 4)
    [64, 128, 256, 512, 1024]
    """
    if width < 1 or depth < 1:
        raise ConfigError(f"width {width} and depth {depth} must both be at least 1")
    return [width << level for level in range(depth + 1)]


def initialise(network: nn.Module) -> None:
    """Draw weights from a Gaussian of standard deviation sqrt(2 / N), biases 0.

    N is the number of incoming nodes of one neuron: 576 for a 3x3 convolution on 64 channels (Ronneberger et al.
    2015, section 3). A transposed convolution shares its kernel among stride x stride outputs.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            incoming = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            if isinstance(module, nn.ConvTranspose2d):
                incoming //= module.stride[0] * module.stride[1]
            nn.init.normal_(module.weight, std=sqrt(2 / incoming))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
