"""Compute only what the core needs: maps are cut on the way up to the part that can still reach it.

The halo is there for the encoder: what a map of the decoder still sees of it shrinks with every layer on the way to
the output. So maps are cut where the way up begins anew, before a transposed convolution and where a skip joins. What
is kept of the output stays the same, number for number, as in an unpadded U-Net, whose maps shrink by nature.

    whole tile  |------------------------------|  encoder
    cut            |------------------------|     decoder, deep
    cut                 |--------------|          decoder, full resolution
    core                  |----------|
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from math import gcd, lcm, prod
from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor, fx, nn

from volseg.models.networks.layers import DECONVOLUTIONS, POOLINGS, Crop, CropConcat, Unpool, crop_offset
from volseg.models.receptive_field import SUMS, AxisGraph, Interval, SizeError, dimensions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WORTH = 0.9
"""A cut that would leave more than this share of a map is not made: it costs a copy."""

Held: TypeAlias = tuple[Interval, ...]
"""First and last place along each axis that a map holds, of those that it has when nothing is cut."""


@dataclass(frozen=True)
class Cropped:
    """A network that computes a part of its output.

    Attributes:
        network: takes whole tiles.
        start: where its output begins in that of the whole network, along each axis of the network.
    """

    network: fx.GraphModule
    start: tuple[int, ...]


class CropView(nn.Module):
    """A part of a map, the same for all channels."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        """Take (start, stop) along each of the last axes."""
        super().__init__()
        self._slices = tuple(slice(a, b) for a, b in spans)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a window, along each of the last axes."""
        return tuple(each.stop - each.start for each in self._slices)

    def forward(self, x: Tensor) -> Tensor:
        """A view of (N, C, [z,] y, x)."""
        return x[:, :, *self._slices]


def cropped(graph: fx.GraphModule, lengths: Sequence[int], kept: Sequence[Interval]) -> Cropped:
    """A network that computes no more than it needs; it shares its layers with the one given.

    Args:
        graph: a traced network.
        lengths: of its input, along each of its axes.
        kept: places of its output that are wanted, along each axis.
    """
    ways = [graph.get_submodule(str(node.target)) for node in graph.graph.nodes if node.op == "call_module"]
    whole = Cropped(graph, (0,) * len(lengths))
    if any(isinstance(module, Crop | Unpool) or getattr(module, "return_indices", False) for module in ways):
        return whole  # these look up places in other maps
    made = fx.GraphModule(graph, copy.deepcopy(graph.graph))
    try:
        start = _Cutting(made, lengths, kept).cut()
    except SizeError:
        return whole
    made.graph.lint()
    made.recompile()
    return Cropped(made, start)


class _Cutting:
    """A graph on its way; `held` is what every node's output holds by now."""

    def __init__(self, graph: fx.GraphModule, lengths: Sequence[int], kept: Sequence[Interval]) -> None:
        self.graph = graph
        self.axes = [AxisGraph(graph, axis) for axis in range(dimensions(graph))]
        self.nodes = self.axes[0].nodes
        self.sizes = [axis.sizes(length) for axis, length in zip(self.axes, lengths, strict=True)]
        self.needed = [axis.demands(k, n) for axis, k, n in zip(self.axes, kept, lengths, strict=True)]
        self.steps = [_alignments(axis) for axis in self.axes]
        self.held: dict[fx.Node, Held] = {}

    def cut(self) -> tuple[int, ...]:
        """Cut where it pays; returns where the output begins."""
        for node in list(self.nodes):
            self.held[node] = self._holds(node)
        return tuple(first for first, _ in self.held[self.nodes[-1]])

    def _holds(self, node: fx.Node) -> Held:
        module = self.axes[0].module(node)
        if node.op == "placeholder":
            return tuple((0, sizes[node] - 1) for sizes in self.sizes)
        if isinstance(module, DECONVOLUTIONS):
            source = node.all_input_nodes[0]
            self._cut_to(node, source, self._wanted(source, self.held[source]))
        elif isinstance(module, CropConcat) or (node.target in SUMS and len(node.all_input_nodes) > 1):
            return self._joined(node, self._offsets(node, module))
        (source,) = set(node.all_input_nodes)
        return tuple(self._onwards(node, at, self.held[source][at]) for at in range(len(self.axes)))

    def _offsets(self, node: fx.Node, module: nn.Module) -> list[tuple[int, ...]]:
        """Where each input of a join begins, against the join, along each axis."""
        none = (0,) * len(self.axes)
        if not isinstance(module, CropConcat):
            return [none for _ in node.all_input_nodes]
        skip, upsampled = node.all_input_nodes
        return [tuple(crop_offset(sizes[skip], sizes[upsampled]) for sizes in self.sizes), none]

    def _joined(self, node: fx.Node, offsets: list[tuple[int, ...]]) -> Held:
        """Cut all inputs of a join to one part: what they share, unless much less is needed."""
        inputs = node.all_input_nodes
        moved = [
            tuple((a - o, b - o) for (a, b), o in zip(self.held[source], offset, strict=True))
            for source, offset in zip(inputs, offsets, strict=True)
        ]
        shared: Held = tuple((max(a for a, _ in spans), min(b for _, b in spans)) for spans in zip(*moved, strict=True))
        wanted = self._wanted(node, shared)
        kept = wanted if _places(wanted) < _WORTH * _places(shared) else shared
        for source, offset in zip(inputs, offsets, strict=True):
            self._cut_to(node, source, tuple((a + o, b + o) for (a, b), o in zip(kept, offset, strict=True)))
        return kept

    def _wanted(self, node: fx.Node, held: Held) -> Held:
        """What is needed of a node, in whole cells of the poolings behind it, and no more than there is."""
        spans = []
        for at, (first, last) in enumerate(held):
            (a, b), step = self.needed[at][node], self.steps[at][node]
            low, high = a // step * step, -(-(b + 1) // step) * step - 1
            spans.append((max(first, low), min(last, high)))
        return tuple(spans)

    def _cut_to(self, user: fx.Node, source: fx.Node, kept: Held) -> None:
        held = self.held[source]
        if kept == held:
            return
        name = f"window_{len(self.held)}_{sum(1 for _ in self._windows())}"
        spans = [(a - first, b + 1 - first) for (a, b), (first, _) in zip(kept, held, strict=True)]
        self.graph.add_submodule(name, CropView(spans))
        with self.graph.graph.inserting_before(user):
            part = self.graph.graph.call_module(name, (source,))
        user.replace_input_with(source, part)
        self.held[part] = kept

    def _windows(self) -> Iterator[nn.Module]:
        return (module for module in self.graph.modules() if isinstance(module, CropView))

    def _onwards(self, node: fx.Node, at: int, held: Interval) -> Interval:
        """What a layer makes of an interval of its input."""
        axis = self.axes[at]
        down, up = axis.scaling(node)
        first = held[0]
        if first % down:
            raise SizeError
        size = axis.size_of(node, [held[1] - first + 1])
        start = first // down * up
        return start, start + size - 1


def _places(held: Held) -> int:
    return prod(last - first + 1 for first, last in held)


def _alignments(axis: AxisGraph) -> dict[fx.Node, int]:
    """Of what step a cut of each node's output must be, so that all poolings behind it keep their cells."""
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
