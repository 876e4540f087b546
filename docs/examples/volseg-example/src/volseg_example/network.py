"""A small network with blurred pooling."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from volseg.models.window import Window


class BlurPool(nn.Module):
    """Blur and halve a map: less aliasing than max-pooling (Zhang 2019, arXiv 1904.11486)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", (row[:, None] * row).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, y, x) to (N, C, y / 2, x / 2)."""
        return functional.conv2d(x, self.kernel, stride=2, padding=1, groups=x.shape[1])


def blur_pool_window(layer: BlurPool, axis: int) -> Window:
    """The receptive-field rule of `BlurPool`: the same along y and x."""
    return Window(kernel=4, stride=2, padding=1)


class BlurNet(nn.Module):
    """One level down and up, joined by a sum."""

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 16) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU())
        self.pool = BlurPool(width)
        self.bottom = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.head = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, y, x) to logits (N, out_channels, y, x)."""
        skip = self.encode(x)
        return self.head(skip + self.up(self.bottom(self.pool(skip))))
