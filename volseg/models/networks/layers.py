"""Layers that several networks share. Tensors are (N, C, y, x), or (N, C, z, y, x) in three dimensions.

The kernels, [y, x] or [z, y, x], determine the number of dimensions of a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

Size: TypeAlias = tuple[int, ...]
"""Voxels along (y, x) or (z, y, x)."""

Sizes: TypeAlias = Sequence[int] | Sequence[Sequence[int]]
"""One size for all levels, or one per level."""

_MAX_WIDTH, _MAX_DEPTH = 1 << 16, 16

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
DECONVOLUTIONS = (nn.ConvTranspose2d, nn.ConvTranspose3d)
POOLINGS = (nn.MaxPool2d, nn.MaxPool3d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def convolution(channels_in: int, channels_out: int, kernel: Size, *, padded: bool = True) -> nn.Module:
    """Build a convolution; padded ("same"), its output is as large as its input."""
    padding = tuple(side // 2 for side in kernel) if padded else 0
    return _layer(CONVOLUTIONS, kernel, channels_in, channels_out, kernel, padding=padding)


def upconvolution(channels_in: int, channels_out: int, pool: Size) -> nn.Module:
    """Build a transposed convolution that undoes the scale of a pooling, with stride equal to the kernel."""
    return _layer(DECONVOLUTIONS, pool, channels_in, channels_out, kernel_size=pool, stride=pool)


def pooling(pool: Size) -> nn.Module:
    """Build a max-pooling with stride equal to the kernel."""
    return _layer(POOLINGS, pool, pool)


def batch_norm(channels: int, kernel: Size) -> nn.Module:
    """Build a batch normalisation for the dimensions of a kernel."""
    return _layer(NORMS, kernel, channels)


def _layer(kinds: tuple[Any, ...], size: Size, *arguments: Any, **options: Any) -> nn.Module:
    """Build a layer for the number of dimensions of a size."""
    layer: nn.Module = kinds[len(size) - 2](*arguments, **options)
    return layer


class CropConcat(nn.Module):
    """Concatenate the centre of a skip and upsampled features along the channels."""

    def forward(self, skip: Tensor, upsampled: Tensor) -> Tensor:
        """Crop `skip` to the size of `upsampled`, and concatenate the two."""
        for axis in range(2, upsampled.ndim):
            size = upsampled.shape[axis]
            skip = skip.narrow(axis, crop_offset(skip.shape[axis], size), size)
        return torch.cat([skip, upsampled], dim=1)


class Crop(nn.Module):
    """Crop features to the size of others, from a fixed offset."""

    def __init__(self, offset: int) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, larger: Tensor, like: Tensor) -> Tensor:
        """Crop (N, C, y, x) to the rows and columns of `like`."""
        rows, columns = like.shape[-2:]
        return larger[..., self.offset : self.offset + rows, self.offset : self.offset + columns]


class Shift(nn.Module):
    """Add a constant to each channel."""

    value: Tensor

    def __init__(self, value: Tensor, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("value", value.view(1, -1, *[1] * dimensions))

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return x + self.value


class MaxUnpool2d(nn.Module):
    """Put each pooled value at the position of its maximum, with zeros around it."""

    def __init__(self, pool: int = 2) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, pooled: Tensor, switches: Tensor) -> Tensor:
        """Return (N, C, pool * y, pool * x), with each value at its switch (index of the maximum)."""
        return nn.functional.max_unpool2d(pooled, switches, (self.pool, self.pool))


def crop_offset(larger: int, smaller: int) -> int:
    """Offset of the centre of `smaller` voxels in `larger`."""
    return (larger - smaller) // 2


def level_widths(width: int, depth: int) -> list[int]:
    """Channels of each level, doubling at each pooling.

    Raises:
        ConfigError: a width or a depth below 1, or too large.

    >>> level_widths(64, 4)
    [64, 128, 256, 512, 1024]
    """
    if width < 1 or depth < 1:
        raise ConfigError(f"width {width} and depth {depth} must both be at least 1")
    if depth > _MAX_DEPTH or width > _MAX_WIDTH:
        raise ConfigError(f"width {width} must be at most {_MAX_WIDTH}, and depth {depth} at most {_MAX_DEPTH}")
    return [width << level for level in range(depth + 1)]


def level_sizes(kernel: Sizes, pool: Sizes, depth: int) -> tuple[list[Size], list[Size]]:
    """Kernels of the levels, from full resolution to the bridge, and the poolings between them.

    Args:
        kernel: one size for all levels, or one for each of the depth + 1 levels; odd.
        pool: one size for all poolings, or one for each.
        depth: number of poolings.

    Raises:
        ConfigError: sizes of different dimensions, a wrong number of sizes, or even kernels.

    >>> level_sizes([1, 3, 3], [[1, 2, 2], [2, 2, 2]], 2)
    ([(1, 3, 3), (1, 3, 3), (1, 3, 3)], [(1, 2, 2), (2, 2, 2)])
    """
    kernels, pools = _per_level(kernel, depth + 1, "kernel"), _per_level(pool, depth, "pool")
    if len({len(size) for size in (*kernels, *pools)}) != 1 or len(kernels[0]) not in (2, 3):
        raise ConfigError(f"kernel {kernel} and pool {pool} must have the same axes: both [y, x] or both [z, y, x]")
    if any(side < 1 or side % 2 == 0 for size in kernels for side in size):
        raise ConfigError(f"kernel {kernel} must have odd sizes")
    if any(side < 1 for size in pools for side in size):
        raise ConfigError(f"pool {pool} must have sizes of at least 1; use 1 for an axis that is not pooled")
    return kernels, pools


def _per_level(sizes: Sizes, count: int, name: str) -> list[Size]:
    if all(isinstance(size, int) for size in sizes):
        return [tuple(int(str(side)) for side in sizes)] * count
    levels = [tuple(size) for size in sizes if isinstance(size, Sequence)]
    if len(levels) != len(sizes) or not all(isinstance(side, int) for size in levels for side in size):
        raise ConfigError(f"{name} {sizes} is neither a size of integers, [y, x] or [z, y, x], nor a list of sizes")
    if len(levels) != count:
        raise ConfigError(f"{name} {sizes} has {len(sizes)} sizes for {count} levels; give one, or one per level")
    return levels


def initialise(network: nn.Module) -> None:
    """Draw weights from a Gaussian of standard deviation sqrt(2 / N), biases 0.

    N is the fan-in of a neuron: 576 for a 3x3 convolution on 64 channels (Ronneberger et al. 2015, section 3). The
    kernel of a transposed convolution is divided among stride x stride outputs. Fixed weights are not changed.
    """
    for module in network.modules():
        if not isinstance(module, CONVOLUTIONS + DECONVOLUTIONS) or not module.weight.requires_grad:
            continue
        fan_in = module.in_channels // module.groups * prod(module.kernel_size)
        if isinstance(module, DECONVOLUTIONS):
            fan_in = max(1, fan_in // prod(module.stride))
        nn.init.normal_(module.weight, std=sqrt(2 / fan_in))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
