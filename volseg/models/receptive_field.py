"""Sizes, strides and dependencies of a network's layers, derived from its module graph, one axis at a time.

For an output voxel the graph is walked backwards with the interval of input voxels that it depends on: a convolution
widens it, a pooling scales it up, a transposed convolution scales it down, and intervals of paths that join are united.
All are integers, so the result is exact for the graph (weights are not looked at).
"""

from __future__ import annotations

import operator
import threading
from math import lcm
from typing import Any

import torch
from torch import fx, nn

from volseg.errors import ModelError
from volseg.models.networks.layers import CONVOLUTIONS, Crop, CropConcat, crop_offset
from volseg.models.window import RULES, Interval, SizeError, Window, layer_type

_JOINS = (CropConcat, Crop)
"""Layers of two inputs of different sizes; these have no window."""
SUMS = (operator.add, torch.add)
_POINTWISE_FUNCTIONS = (*SUMS, operator.getitem)
_SWITCH_BYTES = 8


EXCLUSIVE = threading.RLock()
"""Held while a network is traced or run: tracing patches every module's call, in all threads of the process."""


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        is_leaf = isinstance(m, _JOINS) or layer_type(type(m)) in RULES
        return is_leaf or super().is_leaf_module(m, module_qualified_name)


def traced(network: nn.Module) -> fx.GraphModule:
    """The graph of a network's layers; it shares them with the network."""
    with EXCLUSIVE:
        return fx.GraphModule(network, _Tracer().trace(network))


def dimensions(network: nn.Module) -> int:
    """Spatial axes of a network: 2 or 3.

    Raises:
        ModelError: it has no convolution.
    """
    return len(_first_convolution(network).kernel_size)


def channels_in(network: nn.Module) -> int:
    """Input channels of a network; those of a 2-D one are neighbouring sections."""
    return int(_first_convolution(network).in_channels)


def _first_convolution(network: nn.Module) -> Any:
    convolution = next((module for module in network.modules() if isinstance(module, CONVOLUTIONS)), None)
    if convolution is None:
        raise ModelError(
            f"{type(network).__name__} has no convolution ({' or '.join(kind.__name__ for kind in CONVOLUTIONS)}), "
            "whose kernel states the number of axes; add one"
        )
    return convolution


class AxisGraph:
    """The graph of a network along one of its spatial axes."""

    def __init__(self, network: nn.Module, axis: int) -> None:
        """Trace a network; a graph is taken as it is, node by node.

        Args:
            network: a 2-D or 3-D network.
            axis: 0 for y and 1 for x of a 2-D network; 0, 1, 2 for z, y, x of a 3-D one.
        """
        self.axis = axis
        graph = network if isinstance(network, fx.GraphModule) else traced(network)
        self.nodes = list(graph.graph.nodes)
        self.modules = dict(network.named_modules())
        self._channels_in = channels_in(network)
        self._windows: dict[fx.Node, Window] = {}

    def module(self, node: fx.Node) -> nn.Module:
        """The module that a node calls; an identity for other nodes, such as sums."""
        return self.modules[str(node.target)] if node.op == "call_module" else nn.Identity()

    def window(self, node: fx.Node) -> Window:
        """The window of a node's layer.

        Raises:
            ModelError: there is no rule for this layer type or function.
        """
        if node not in self._windows:
            self._windows[node] = self._window(node)
        return self._windows[node]

    def _window(self, node: fx.Node) -> Window:
        if node.op in ("placeholder", "output") or node.target in _POINTWISE_FUNCTIONS:
            return Window()
        kind = layer_type(type(self.module(node))) if node.op == "call_module" else str(node.target)
        if node.op != "call_module" or kind not in RULES:
            raise ModelError(
                f"the reach of {node.name} ({kind}) is not known; make it a layer type with a rule, an entry point "
                f"of the group {RULES.group} (docs/extending.md)"
            )
        return RULES[kind](self.module(node), self.axis)

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
        module = self.module(node)
        if isinstance(module, _JOINS):
            size = _cropped_size(module, *inputs)
        elif len(set(inputs)) == 1:
            size = self.window(node).size(inputs[0])
        else:
            raise SizeError
        if size < 1:
            raise SizeError
        return size

    def channels(self) -> dict[fx.Node, int]:
        """The channels of every node's output."""
        channels: dict[fx.Node, int] = {}
        for node in self.nodes:
            module = self.module(node)
            inputs = [channels[source] for source in node.all_input_nodes]
            if isinstance(module, CropConcat):
                channels[node] = sum(inputs)
            else:
                # Layers that only inference adds to a graph have no rule, and keep the channels.
                stated = self.window(node).channels if layer_type(type(module)) in RULES else None
                channels[node] = stated or (inputs[0] if inputs else self._channels_in)
        return channels

    def in_place(self, node: fx.Node) -> bool:
        """Whether a node's output takes its input's place in memory."""
        module = self.module(node)
        is_view = node.op == "output" or node.target is operator.getitem
        return is_view or isinstance(module, nn.Dropout | Crop) or bool(getattr(module, "inplace", False))

    def item_bytes(self, node: fx.Node, item: int) -> int:
        """Bytes of one element of a node's output, switches included, if an activation takes `item`."""
        if node.target is operator.getitem:
            return _SWITCH_BYTES if node.args[1] == 1 else item
        return item + (_SWITCH_BYTES if getattr(self.module(node), "return_indices", False) else 0)

    def stride(self) -> int:
        """The product of the poolings on the way down."""
        scale: dict[fx.Node, int] = {}
        for node in self.nodes:
            sources = node.all_input_nodes
            if isinstance(self.module(node), Crop):
                sources = sources[:1]
            down, up = self.scaling(node)
            scale[node] = lcm(*(scale[source] for source in sources)) * down // up
        return lcm(*scale.values())

    def demand(self, voxel: int, length: int) -> Interval:
        """The input voxels that the output voxel depends on, for an input of `length`."""
        return self.demands((voxel, voxel), length)[self.nodes[0]]

    def demands(self, outputs: Interval, length: int) -> dict[fx.Node, Interval]:
        """The voxels of every node's output that the network's `outputs` depend on, for an input of `length`.

        Intervals may leave a node's output if a layer pads; nodes that nothing depends on are left out.
        """
        sizes = self.sizes(length)
        demands: dict[fx.Node, Interval] = {}
        for node in reversed(self.nodes):
            if node.op == "output":
                demands[node] = outputs
            if node not in demands:
                continue
            for source, (first, last) in self._source_demands(node, demands[node], sizes):
                known = demands.get(source, (first, last))
                demands[source] = (min(known[0], first), max(known[1], last))
        return demands

    def scaling(self, node: fx.Node) -> tuple[int, int]:
        """Input voxels per output voxel, and output voxels per input voxel; one of the two is 1."""
        if isinstance(self.module(node), _JOINS):
            return 1, 1
        window = self.window(node)
        return (1, window.stride) if window.transposed else (window.stride, 1)

    def _source_demands(
        self, node: fx.Node, outputs: Interval, sizes: dict[fx.Node, int]
    ) -> list[tuple[fx.Node, Interval]]:
        module = self.module(node)
        if isinstance(module, CropConcat):
            skip, upsampled = node.all_input_nodes
            return [(skip, _moved(outputs, crop_offset(sizes[skip], sizes[upsampled]))), (upsampled, outputs)]
        if isinstance(module, Crop):
            # Only the size of the other map counts, which is the same at every position of a tile.
            return [(node.all_input_nodes[0], _moved(outputs, module.offset))]
        return [(source, self.window(node).inputs(*outputs)) for source in node.all_input_nodes]


def _moved(interval: Interval, offset: int) -> Interval:
    return interval[0] + offset, interval[1] + offset


def _cropped_size(module: CropConcat | Crop, larger: int, smaller: int) -> int:
    left = larger - smaller - (module.offset if isinstance(module, Crop) else 0)
    # An odd remainder has no centre on the grid of the map that it is joined to.
    if left < 0 or (isinstance(module, CropConcat) and left % 2):
        raise SizeError
    return smaller
