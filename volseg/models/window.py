"""Rules of layer types: the input voxels that an output voxel depends on.

A package adds rules for its own layers as entry points of the group `volseg.receptive_field`, named by the layer type:
`package.module.Layer`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from torch import nn

from volseg.models.networks.layers import CONVOLUTIONS, DECONVOLUTIONS, NORMS, POOLINGS, MaxUnpool2d, Shift
from volseg.registry import Registry

Interval: TypeAlias = tuple[int, int]
"""First and last voxel, both included."""


class SizeError(Exception):
    """An input size that the network does not take."""


@dataclass(frozen=True, slots=True)
class Window:
    """The input voxels that an output voxel of a layer depends on, along one axis; by default its own voxel.

    Attributes:
        kernel: voxels of the window.
        stride: input voxels from one window to the next; output voxels per input voxel of a transposed layer.
        padding: voxels added (or, of a transposed layer, removed) on each side.
        dilation: input voxels from one voxel of the window to the next.
        transposed: whether each input voxel is spread over a window of the output, as by `nn.ConvTranspose2d`.
        output_padding: voxels added behind the output of a transposed layer.
        channels: output channels; None: as many as the input has.
    """

    kernel: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    transposed: bool = False
    output_padding: int = 0
    channels: int | None = None

    def size(self, length: int) -> int:
        """The output size for an input of `length`.

        Raises:
            SizeError: strides that leave a remainder would shift the grid of the layers behind.
        """
        span = self.dilation * (self.kernel - 1) + 1
        if self.transposed:
            return (length - 1) * self.stride - 2 * self.padding + span + self.output_padding
        remaining = length + 2 * self.padding - span
        if remaining < 0 or remaining % self.stride:
            raise SizeError
        return remaining // self.stride + 1

    def inputs(self, first: int, last: int) -> Interval:
        """The input voxels that the output voxels from `first` to `last` depend on."""
        span = self.dilation * (self.kernel - 1)
        if self.transposed:
            return -((span - first - self.padding) // self.stride), (last + self.padding) // self.stride
        return first * self.stride - self.padding, last * self.stride - self.padding + span


Rule: TypeAlias = Callable[[Any, int], Window]
"""The window of a layer along one of its axes: 0 for y and 1 for x of a 2-D layer; 0, 1, 2 for z, y, x of a 3-D one."""


def layer_type(kind: type[nn.Module]) -> str:
    """The name of a layer type in the registry: `package.module.Layer`."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _pointwise(layer: nn.Module, axis: int) -> Window:
    return Window()


def _pooling(layer: Any, axis: int) -> Window:
    return Window(
        kernel=_along(layer.kernel_size, axis),
        stride=_along(layer.stride, axis),
        padding=_along(layer.padding, axis),
        dilation=_along(layer.dilation, axis),
    )


def _convolution(layer: Any, axis: int) -> Window:
    return replace(_pooling(layer, axis), channels=layer.out_channels)


def _deconvolution(layer: Any, axis: int) -> Window:
    padding = _along(layer.output_padding, axis)
    return replace(_convolution(layer, axis), transposed=True, output_padding=padding)


def _unpooling(layer: MaxUnpool2d, axis: int) -> Window:
    return Window(kernel=layer.pool, stride=layer.pool, transposed=True)


def _along(size: Any, axis: int) -> int:
    return int(size[axis] if isinstance(size, tuple) else size)


_RULES: dict[Rule, tuple[type[nn.Module], ...]] = {
    _convolution: CONVOLUTIONS,
    _deconvolution: DECONVOLUTIONS,
    _pooling: POOLINGS,
    _unpooling: (MaxUnpool2d,),
    _pointwise: (nn.ReLU, nn.Dropout, nn.Identity, nn.Sigmoid, Shift, *NORMS),
}
RULES: Registry[Rule] = Registry(
    "volseg.receptive_field", "layer type", {layer_type(kind): rule for rule, kinds in _RULES.items() for kind in kinds}
)
"""Layer type -> rule. A subclass needs a rule of its own: its forward pass may differ."""
