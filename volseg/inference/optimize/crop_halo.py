"""Crops the halo inside the network: the decoder computes only what the core depends on.

The halo is there for the encoder; in the decoder, fewer of its voxels matter with every layer towards the output. So
feature maps are cropped before each transposed convolution and at each skip connection. The output of the core does
not change at all, as in an unpadded U-Net, whose feature maps shrink by design.

    whole tile  |------------------------------|  encoder
    crop           |------------------------|     decoder, deep
    crop                |--------------|          decoder, full resolution
    core                  |----------|
"""

from __future__ import annotations

import copy
from math import gcd, lcm, prod
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor, fx, nn

from volseg.models.networks.layers import DECONVOLUTIONS, POOLINGS, CropConcat, crop_offset
from volseg.models.receptive_field import SUMS, AxisGraph, dimensions
from volseg.models.window import Interval, SizeError

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_FRACTION = 0.9
"""A crop that would leave more than this fraction of a feature map is not made: it costs a copy."""

Region: TypeAlias = tuple[Interval, ...]
"""First and last index along each axis, in the coordinates of the feature map before any crop."""


class CropView(nn.Module):
    """A view of a box of a feature map, the same for all channels."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        """Take (start, stop) along each of the last axes."""
        super().__init__()
        self._slices = tuple(slice(a, b) for a, b in spans)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the box, along each of the last axes."""
        return tuple(s.stop - s.start for s in self._slices)

    def forward(self, x: Tensor) -> Tensor:
        """A view of (N, C, [z,] y, x)."""
        return x[:, :, *self._slices]


def crop_halo(
    graph: fx.GraphModule, lengths: Sequence[int], core: Sequence[Interval]
) -> tuple[fx.GraphModule, tuple[int, ...]]:
    """Copy a traced network with crops, sharing its layers.

    Args:
        graph: a traced network.
        lengths: of its input, along each of its axes.
        core: first and last index of the output to compute, along each axis.

    Returns:
        The network, and the offset of its output within that of the whole network, along each axis.
    """
    whole = graph, (0,) * len(lengths)
    for node in graph.graph.nodes:
        layer = graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        inputs = 1 if isinstance(layer, CropConcat) else len(node.all_input_nodes)
        if layer is not None and (inputs > 1 or getattr(layer, "return_indices", False)):
            return whole  # this layer depends on the size or the indices of another feature map
    result = fx.GraphModule(graph, copy.deepcopy(graph.graph))
    try:
        start = _HaloCropper(result, lengths, core).crop()
    except SizeError:
        return whole
    result.graph.lint()
    result.recompile()
    return result, start


class _HaloCropper:
    """Inserts crops into a graph; `regions` maps each node to the region of its output so far."""

    def __init__(self, graph: fx.GraphModule, lengths: Sequence[int], core: Sequence[Interval]) -> None:
        self.graph = graph
        self.axes = [AxisGraph(graph, axis) for axis in range(dimensions(graph))]
        self.nodes = self.axes[0].nodes
        self.sizes = [axis.sizes(length) for axis, length in zip(self.axes, lengths, strict=True)]
        self.needed = [axis.demands(k, n) for axis, k, n in zip(self.axes, core, lengths, strict=True)]
        self.steps = [_alignments(axis) for axis in self.axes]
        self.regions: dict[fx.Node, Region] = {}

    def crop(self) -> tuple[int, ...]:
        """Insert the crops; returns the offset of the output."""
        for node in list(self.nodes):
            self.regions[node] = self._region(node)
        return tuple(first for first, _ in self.regions[self.nodes[-1]])

    def _region(self, node: fx.Node) -> Region:
        """The region of a node's output, after cropping its inputs."""
        module = self.axes[0].module(node)
        if node.op == "placeholder":
            return tuple((0, sizes[node] - 1) for sizes in self.sizes)
        if isinstance(module, DECONVOLUTIONS):
            source = node.all_input_nodes[0]
            self._insert_crop(node, source, self._needed_region(source, self.regions[source]))
        elif isinstance(module, CropConcat) or (node.target in SUMS and len(node.all_input_nodes) > 1):
            return self._crop_join(node, self._offsets(node, module))
        (source,) = set(node.all_input_nodes)
        return tuple(self._propagate(node, at, self.regions[source][at]) for at in range(len(self.axes)))

    def _offsets(self, node: fx.Node, module: nn.Module) -> list[tuple[int, ...]]:
        """Offset of the output of a join within each of its inputs, along each axis."""
        zero = (0,) * len(self.axes)
        if not isinstance(module, CropConcat):
            return [zero for _ in node.all_input_nodes]
        skip, upsampled = node.all_input_nodes
        return [tuple(crop_offset(sizes[skip], sizes[upsampled]) for sizes in self.sizes), zero]

    def _crop_join(self, node: fx.Node, offsets: list[tuple[int, ...]]) -> Region:
        """Crop all inputs of a join to one region: their intersection, or the needed part if that is much smaller."""
        inputs = node.all_input_nodes
        shifted = [
            tuple((a - o, b - o) for (a, b), o in zip(self.regions[source], offset, strict=True))
            for source, offset in zip(inputs, offsets, strict=True)
        ]
        shared = tuple((max(a for a, _ in spans), min(b for _, b in spans)) for spans in zip(*shifted, strict=True))
        needed = self._needed_region(node, shared)
        region = needed if _size(needed) < _MAX_FRACTION * _size(shared) else shared
        for source, offset in zip(inputs, offsets, strict=True):
            self._insert_crop(node, source, tuple((a + o, b + o) for (a, b), o in zip(region, offset, strict=True)))
        return region

    def _needed_region(self, node: fx.Node, available: Region) -> Region:
        """The needed part of a node's output, in whole cells of later poolings, within the available one."""
        region = []
        for at, (first, last) in enumerate(available):
            (a, b), step = self.needed[at][node], self.steps[at][node]
            low, high = a // step * step, -(-(b + 1) // step) * step - 1
            region.append((max(first, low), min(last, high)))
        return tuple(region)

    def _insert_crop(self, user: fx.Node, source: fx.Node, region: Region) -> None:
        available = self.regions[source]
        if region == available:
            return
        name = f"crop_{sum(isinstance(module, CropView) for module in self.graph.modules())}"
        spans = [(a - first, b + 1 - first) for (a, b), (first, _) in zip(region, available, strict=True)]
        self.graph.add_submodule(name, CropView(spans))
        with self.graph.graph.inserting_before(user):
            view = self.graph.graph.call_module(name, (source,))
        user.replace_input_with(source, view)
        self.regions[view] = region

    def _propagate(self, node: fx.Node, at: int, interval: Interval) -> Interval:
        """The interval of a layer's output for an interval of its input."""
        axis = self.axes[at]
        down, up = axis.scaling(node)
        first, last = interval
        if first % down:
            raise SizeError
        start = first // down * up
        return start, start + axis.size_of(node, [last - first + 1]) - 1


def _size(region: Region) -> int:
    return prod(last - first + 1 for first, last in region)


def _alignments(axis: AxisGraph) -> dict[fx.Node, int]:
    """For each node, the step on which a crop of its output must lie so that later poolings keep their cells."""
    steps: dict[fx.Node, int] = {}
    for node in reversed(axis.nodes):
        step = steps.get(node, 1)
        down, up = axis.scaling(node)
        module = axis.module(node)
        before = step * down if isinstance(module, POOLINGS) or down > 1 else step // gcd(step, up)
        for source in node.all_input_nodes:
            steps[source] = lcm(steps.get(source, 1), before)
        steps[node] = step
    return steps
