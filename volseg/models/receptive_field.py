"""What a network does to sizes and to single voxels, read off its module graph, one axis at a time.

For an output voxel the graph is walked backwards with the interval of places that it depends on: a convolution
widens it, a pooling scales it up, a transposed convolution scales it down, and where two paths join the intervals
are united. All is whole numbers, so the result is exact for the graph (no weights are looked at).
"""

from __future__ import annotations

import operator
import threading
from math import lcm
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import fx, nn

from volseg.errors import ModelError
from volseg.models.networks.layers import (
    CONVOLUTIONS,
    DECONVOLUTIONS,
    NORMS,
    POOLINGS,
    Crop,
    CropConcat,
    Shift,
    Unpool,
    crop_offset,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Interval: TypeAlias = tuple[int, int]
"""First and last place, both included."""

_LEAVES = (CropConcat, Crop, Shift, Unpool)
_POINTWISE = (nn.ReLU, nn.Dropout, nn.Identity, nn.Sigmoid, Shift, *NORMS)
SUMS = (operator.add, torch.add)
_PASSED_ON = (*SUMS, operator.getitem)
_SWITCH_BYTES = 8


EXCLUSIVE = threading.RLock()
"""Held while a network is traced or run: tracing patches every module's call, in all threads of the process."""


class SizeError(Exception):
    """An input size that the network does not take."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _LEAVES) or super().is_leaf_module(m, module_qualified_name)


def traced(network: nn.Module) -> fx.GraphModule:
    """A network as a graph of its layers, which it shares with the network."""
    with EXCLUSIVE:
        return fx.GraphModule(network, _Tracer().trace(network))


def dimensions(network: nn.Module) -> int:
    """How many spatial axes a network has: 2, or 3.

    Raises:
        ModelError: it has no convolution.
    """
    return len(_first_convolution(network).kernel_size)


def channels_in(network: nn.Module) -> int:
    """How many channels a network takes: of a 2-D one, neighbouring sections."""
    return int(_first_convolution(network).in_channels)


def _first_convolution(network: nn.Module) -> Any:
    found = next((module for module in network.modules() if isinstance(module, CONVOLUTIONS)), None)
    if found is None:
        raise ModelError(f"{type(network).__name__} has no convolution, so its axes are not known")
    return found


class AxisGraph:
    """The graph of a network, seen along one of its spatial axes."""

    def __init__(self, network: nn.Module, axis: int) -> None:
        """Trace a network; a graph is taken as it is, node by node.

        Args:
            network: a 2-D or 3-D network.
            axis: among its own: 0 for y and 1 for x of a 2-D network; 0, 1, 2 for z, y, x of a 3-D one.
        """
        self.axis = axis
        graph = network if isinstance(network, fx.GraphModule) else traced(network)
        self.nodes = list(graph.graph.nodes)
        self.modules = dict(network.named_modules())
        self._channels_in = channels_in(network)

    def module(self, node: fx.Node) -> nn.Module:
        """The module that a node calls; an identity for what is no module, such as a sum."""
        return self.modules[str(node.target)] if node.op == "call_module" else nn.Identity()

    def sizes(self, length: int) -> dict[fx.Node, int]:
        """The size of every node's output for an input of `length`.

        Raises:
            SizeError: the network does not take such an input.
        """
        sizes: dict[fx.Node, int] = {}
        for node in self.nodes:
            inputs = [sizes[source] for source in node.all_input_nodes]
            sizes[node] = length if node.op == "placeholder" else self.size_of(node, inputs)
        return sizes

    def size_of(self, node: fx.Node, inputs: list[int]) -> int:
        """The size of a node's output for inputs of some sizes.

        Raises:
            SizeError: the layer does not take them.
        """
        return _checked(self._size(node, inputs))

    def _size(self, node: fx.Node, inputs: list[int]) -> int:
        module = self.module(node)
        if isinstance(module, CropConcat | Crop):
            return self._cropped(module, *inputs)
        if len(set(inputs)) != 1:
            raise SizeError
        if isinstance(module, CONVOLUTIONS + POOLINGS):
            kernel, stride, padding, dilation = self._window(module)
            span = inputs[0] + 2 * padding - dilation * (kernel - 1) - 1
            # A pooling or a strided convolution that leaves a rest would shift the grid of what follows.
            if span < 0 or span % stride:
                raise SizeError
            return span // stride + 1
        if isinstance(module, DECONVOLUTIONS):
            kernel, stride, padding, _ = self._window(module)
            return (inputs[0] - 1) * stride - 2 * padding + kernel + self._along(module.output_padding)
        return inputs[0] * (module.pool if isinstance(module, Unpool) else 1)

    def _cropped(self, module: CropConcat | Crop, larger: int, kept: int) -> int:
        left = larger - kept - (module.offset if isinstance(module, Crop) else 0)
        # The centre of an odd rest would lie off the grid of the map that it is joined to.
        if left < 0 or (isinstance(module, CropConcat) and left % 2):
            raise SizeError
        return kept

    def channels(self) -> dict[fx.Node, int]:
        """The channels of every node's output."""
        channels: dict[fx.Node, int] = {}
        for node in self.nodes:
            module = self.module(node)
            inputs = [channels[source] for source in node.all_input_nodes]
            if isinstance(module, CONVOLUTIONS + DECONVOLUTIONS):
                channels[node] = module.out_channels
            elif isinstance(module, CropConcat):
                channels[node] = sum(inputs)
            else:
                channels[node] = inputs[0] if inputs else self._channels_in
        return channels

    def in_place(self, node: fx.Node) -> bool:
        """Whether a node's output takes its input's place in memory."""
        module = self.module(node)
        passed = node.op == "output" or node.target is operator.getitem
        return passed or isinstance(module, nn.Dropout | Crop) or bool(getattr(module, "inplace", False))

    def item_bytes(self, node: fx.Node, item: int) -> int:
        """Bytes of one element of a node's output, switches included, where an activation takes `item`."""
        if node.target is operator.getitem:
            return _SWITCH_BYTES if node.args[1] == 1 else item
        return item + (_SWITCH_BYTES if getattr(self.module(node), "return_indices", False) else 0)

    def stride(self) -> int:
        """The product of the poolings on the way down."""
        scale: dict[fx.Node, int] = {}
        for node in self.nodes:
            module = self.module(node)
            here = lcm(*(scale[source] for source in node.all_input_nodes)) if node.all_input_nodes else 1
            if isinstance(module, Crop):
                here = scale[node.all_input_nodes[0]]
            down, up = self.scaling(node)
            scale[node] = here * down // up
        return lcm(*scale.values())

    def demand(self, place: int, length: int) -> Interval:
        """The input places that the output voxel at `place` depends on, for an input of `length`."""
        return self.demands((place, place), length)[self.nodes[0]]

    def demands(self, kept: Interval, length: int) -> dict[fx.Node, Interval]:
        """What of every node's output the places `kept` of the network's output depend on, for an input of `length`.

        Intervals may leave a node's output, where a layer pads; nodes that nothing depends on are left out.
        """
        sizes = self.sizes(length)
        wanted: dict[fx.Node, Interval] = {}
        for node in reversed(self.nodes):
            if node.op == "output":
                wanted[node] = kept
            if node not in wanted:
                continue
            for source, interval in self._sources(node, wanted[node], sizes):
                known = wanted.get(source, interval)
                wanted[source] = (min(known[0], interval[0]), max(known[1], interval[1]))
        return wanted

    def scaling(self, node: fx.Node) -> tuple[int, int]:
        """Places of the input for one of the output, and of the output for one of the input; one of the two is 1."""
        module = self.module(node)
        if isinstance(module, CONVOLUTIONS + POOLINGS):
            return self._window(module)[1], 1
        if isinstance(module, DECONVOLUTIONS):
            return 1, self._window(module)[1]
        return 1, module.pool if isinstance(module, Unpool) else 1

    def _sources(self, node: fx.Node, wanted: Interval, sizes: dict[fx.Node, int]) -> list[tuple[fx.Node, Interval]]:
        module = self.module(node)
        if isinstance(module, CropConcat):
            skip, upsampled = node.all_input_nodes
            offset = crop_offset(sizes[skip], sizes[upsampled])
            return [(skip, (wanted[0] + offset, wanted[1] + offset)), (upsampled, wanted)]
        if isinstance(module, Crop):
            # Of the other map only the size counts, which is the same wherever a tile lies.
            return [(node.all_input_nodes[0], (wanted[0] + module.offset, wanted[1] + module.offset))]
        return [(source, self._backwards(node, module, wanted)) for source in node.all_input_nodes]

    def _backwards(self, node: fx.Node, module: nn.Module, wanted: Interval) -> Interval:
        first, last = wanted
        if isinstance(module, CONVOLUTIONS + POOLINGS):
            kernel, stride, padding, dilation = self._window(module)
            return first * stride - padding, last * stride - padding + dilation * (kernel - 1)
        if isinstance(module, DECONVOLUTIONS):
            kernel, stride, padding, dilation = self._window(module)
            return -((dilation * (kernel - 1) - first - padding) // stride), (last + padding) // stride
        if isinstance(module, Unpool):
            return first // module.pool, last // module.pool
        known = node.op in ("placeholder", "output") or isinstance(module, _POINTWISE)
        if node.op == "call_function":
            known = node.target in _PASSED_ON
        if not known:
            raise ModelError(
                f"the reach of {node.target} ({type(module).__name__}) is not known; teach volseg.models.receptive_field its rule"
            )
        return wanted

    def _window(self, module: Any) -> tuple[int, int, int, int]:
        """Kernel, stride, padding and dilation along the axis."""
        along: Callable[[object], int] = self._along
        return along(module.kernel_size), along(module.stride), along(module.padding), along(module.dilation)

    def _along(self, value: object) -> int:
        chosen: Any = value[self.axis] if isinstance(value, tuple) else value
        return int(chosen)


def _checked(size: int) -> int:
    if size < 1:
        raise SizeError
    return size
