"""Parts that several networks share. Tensors are (N, C, y, x), or (N, C, z, y, x) in three dimensions.

How many dimensions a network has is read off its kernels: [y, x] or [z, y, x].
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
"""One size for all levels, or one for each."""

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
DECONVOLUTIONS = (nn.ConvTranspose2d, nn.ConvTranspose3d)
POOLINGS = (nn.MaxPool2d, nn.MaxPool3d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def convolution(channels_in: int, channels_out: int, kernel: Size, *, padded: bool = True) -> nn.Module:
    """A convolution; padded ("same"), its output is as large as its input."""
    padding = tuple(side // 2 for side in kernel) if padded else 0
    return _made(CONVOLUTIONS, kernel, channels_in, channels_out, kernel, padding=padding)


def upconvolution(channels_in: int, channels_out: int, pool: Size) -> nn.Module:
    """A transposed convolution that undoes a pooling's scale, one kernel a cell."""
    return _made(DECONVOLUTIONS, pool, channels_in, channels_out, kernel_size=pool, stride=pool)


def pooling(pool: Size) -> nn.Module:
    """A max-pooling of cells side by side."""
    return _made(POOLINGS, pool, pool)


def batch_norm(channels: int, kernel: Size) -> nn.Module:
    """Batch normalisation for the dimensions of a kernel."""
    return _made(NORMS, kernel, channels)


def _made(kinds: tuple[Any, ...], size: Size, *arguments: Any, **more: Any) -> nn.Module:
    """A layer of the kind that has as many dimensions as a size."""
    layer: nn.Module = kinds[len(size) - 2](*arguments, **more)
    return layer


class CropConcat(nn.Module):
    """Join a skip to the upsampled map: the skip's centre, then the map, along the channels."""

    def forward(self, skip: Tensor, upsampled: Tensor) -> Tensor:
        """Crop `skip` to the size of `upsampled` and put it in front."""
        for axis in range(2, upsampled.ndim):
            kept = upsampled.shape[axis]
            skip = skip.narrow(axis, crop_offset(skip.shape[axis], kept), kept)
        return torch.cat([skip, upsampled], dim=1)


class Crop(nn.Module):
    """Cut a map to the size of another, from a fixed offset on."""

    def __init__(self, offset: int) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, larger: Tensor, like: Tensor) -> Tensor:
        """What of (N, C, y, x) lies over `like`; of that only the size counts."""
        rows, columns = like.shape[-2:]
        return larger[..., self.offset : self.offset + rows, self.offset : self.offset + columns]


class Shift(nn.Module):
    """Add a constant to each channel."""

    value: Tensor

    def __init__(self, value: Tensor, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("value", value.view(1, -1, *[1] * dimensions))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape out as in."""
        return x + self.value


class Unpool(nn.Module):
    """Put each value of a pooled map back where the pooling's switch says that it came from; zeros around it."""

    def __init__(self, pool: int = 2) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, pooled: Tensor, switches: Tensor) -> Tensor:
        """Undo the pooling of (N, C, y, x): `pool` times as large, each value at its switch."""
        return nn.functional.max_unpool2d(pooled, switches, (self.pool, self.pool))


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


def scales(kernel: Sizes, pool: Sizes, depth: int) -> tuple[list[Size], list[Size]]:
    """Kernels of the levels, from full resolution to the bridge, and the poolings between them.

    Args:
        kernel: one size for all levels, or one for each of the depth + 1 levels; odd numbers.
        pool: one size for all poolings, or one for each of them.
        depth: number of poolings.

    Raises:
        ConfigError: sizes of other dimensions, of another number, or that no convolution could be centred on.

    >>> scales([1, 3, 3], [[1, 2, 2], [2, 2, 2]], 2)
    ([(1, 3, 3), (1, 3, 3), (1, 3, 3)], [(1, 2, 2), (2, 2, 2)])
    """
    kernels, pools = _each(kernel, depth + 1, "kernel"), _each(pool, depth, "pool")
    if len({len(size) for size in (*kernels, *pools)}) != 1 or len(kernels[0]) not in (2, 3):
        raise ConfigError(f"kernel {kernel} and pool {pool} must have the same axes: both [y, x] or both [z, y, x]")
    if any(side < 1 or side % 2 == 0 for size in kernels for side in size):
        raise ConfigError(f"kernel {kernel} must have odd sizes, so that it has a centre")
    if any(side < 1 for size in pools for side in size):
        raise ConfigError(f"pool {pool} must have sizes of at least 1; 1 leaves an axis as it is")
    return kernels, pools


def _each(given: Sizes, count: int, name: str) -> list[Size]:
    if all(isinstance(part, int) for part in given):
        return [tuple(int(str(side)) for side in given)] * count
    sizes = [tuple(size) for size in given if isinstance(size, Sequence)]
    if len(sizes) != len(given) or not all(isinstance(side, int) for size in sizes for side in size):
        raise ConfigError(
            f"{name} {given} is neither one size of whole numbers, [y, x] or [z, y, x], nor a list of them"
        )
    if len(sizes) != count:
        raise ConfigError(f"{name} {given} has {len(given)} sizes for {count} levels; give one, or one per level")
    return sizes


def initialise(network: nn.Module) -> None:
    """Draw weights from a Gaussian of standard deviation sqrt(2 / N), biases 0.

    N is the number of incoming nodes of one neuron: 576 for a 3x3 convolution on 64 channels (Ronneberger et al.
    2015, section 3). A transposed convolution shares its kernel among stride x stride outputs. Weights that are not
    learned (fixed interpolation) are left alone.
    """
    for module in network.modules():
        if not isinstance(module, CONVOLUTIONS + DECONVOLUTIONS) or not module.weight.requires_grad:
            continue
        incoming = module.in_channels // module.groups * prod(module.kernel_size)
        if isinstance(module, DECONVOLUTIONS):
            incoming = max(1, incoming // prod(module.stride))
        nn.init.normal_(module.weight, std=sqrt(2 / incoming))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
