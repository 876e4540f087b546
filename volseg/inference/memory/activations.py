"""What one forward pass holds at once: a walk along the network as it is run, folded, cut and packed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import fx, nn

from volseg.inference.optimize.crop_halo import CropView, cropped
from volseg.inference.optimize.fold_batch_norm import without_norms
from volseg.inference.optimize.onednn import can_pack
from volseg.inference.optimize.optimize import DTYPES
from volseg.inference.settings import ITEM_BYTES
from volseg.models.networks.layers import DECONVOLUTIONS
from volseg.models.receptive_field import SUMS, AxisGraph, dimensions

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from volseg.blocks import Tiling
    from volseg.inference.settings import Device, Precision


_UNFOLDED = 20_480
"""A float32 Conv3d on a CPU goes without oneDNN where N x C x z x y of its input is no more (torch 2.13; measured)."""


@dataclass(frozen=True)
class Outline:
    """A network made ready, without its numbers.

    Attributes:
        graph: its layers, on no device.
        device: where they will run.
        packed: whether convolutions are packed for oneDNN, with their ReLU, and sums made in place.
    """

    graph: fx.GraphModule
    device: Device
    packed: bool


_folded: MutableMapping[nn.Module, fx.GraphModule] = WeakKeyDictionary()


def outline(network: nn.Module, device: Device, precision: Precision) -> Outline:
    """What `prepared` and `specialized` would make of a network, as far as memory is concerned."""
    # Planning asks for many tiles of one network, and which norms can be folded is read off its numbers.
    if network not in _folded:
        _folded[network] = without_norms(network).to("meta")
    flat = dimensions(network) == 2
    return Outline(_folded[network], device, device == "cpu" and flat and can_pack(DTYPES[precision]))


def activation_bytes(optimized: Outline, tiling: Tiling, batch: int, item: int) -> int:
    """The most that one forward pass holds at once, in bytes.

    A map lives from the layer that makes it to the last that uses it, or uses a view of it.

    Args:
        ready: the network.
        tiling: how tiles look, and what of their output is kept.
        batch: tiles a pass.
        item: bytes of one activation.
    """
    axes = slice(1 if tiling.footprint.dimensions == 2 else 0, 3)
    lengths = list(tiling.input_shape)[axes]
    kept = [(a, b - 1) for a, b in zip(tiling.crop.start, tiling.crop.stop, strict=True)][axes]
    return _Walk(cropped(optimized.graph, lengths, kept).network, optimized, lengths, batch, item).most()


class _Walk:
    """A graph in the order that it is run.

    `owner` is the node in whose memory each node's output lies, `sizes` the bytes of the output.
    """

    def __init__(self, graph: fx.GraphModule, optimized: Outline, lengths: list[int], batch: int, item: int) -> None:
        self.axes = [AxisGraph(graph, axis) for axis in range(dimensions(graph))]
        self.nodes = self.axes[0].nodes
        self._packed, self._unfolds = optimized.packed, optimized.device == "cpu" and item == ITEM_BYTES["float32"]
        self._calls = Counter(node.target for node in self.nodes)
        self.owner: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            shared = self._shares(node) if node.all_input_nodes else None
            self.owner[node] = self.owner[shared] if shared else node
        along = [self._lengths(axis, length) for axis, length in zip(self.axes, lengths, strict=True)]
        channels, self._columns = self.axes[0].channels(), along[-1]
        self.sizes = {
            node: prod(sizes[node] for sizes in along) * channels[node] * batch * self.axes[0].item_bytes(node, item)
            for node in self.nodes
        }

    def _shares(self, node: fx.Node) -> fx.Node | None:
        """The input whose memory a node's output takes, or looks at; None for memory of its own."""
        module, first = self.axes[0].module(node), node.all_input_nodes[0]
        looks = isinstance(module, CropView) or (node.op == "call_module" and isinstance(module, nn.Identity))
        if looks or self.axes[0].in_place(node):
            return first
        if self._packed and isinstance(module, nn.ReLU) and self._is_packed(first) and len(first.users) == 1:
            return first
        if self._packed and node.target in SUMS:
            return next((source for source in node.all_input_nodes if self._is_fresh(source)), None)
        return None

    def _is_packed(self, node: fx.Node) -> bool:
        return isinstance(self.axes[0].module(node), nn.Conv2d) and self._calls[node.target] == 1

    def _is_fresh(self, node: fx.Node) -> bool:
        """Whether a sum may overwrite what a node made; a packed convolution's ReLU is part of it."""
        if len(node.users) != 1:
            return False
        module = self.axes[0].module(node)
        if isinstance(module, nn.ReLU):
            return self.owner[node] is not node and self._is_packed(node.all_input_nodes[0])
        return self._is_packed(node) or isinstance(module, DECONVOLUTIONS)

    def most(self) -> int:
        """The most that is alive at once, in bytes."""
        ends = {self.owner[used]: at for at, node in enumerate(self.nodes) for used in (node, *node.all_input_nodes)}
        ends[self.nodes[0]] = len(self.nodes)  # whoever gave the tiles holds on to them
        live = peak = 0
        for at, node in enumerate(self.nodes):
            live += self.sizes[node] if self.owner[node] is node else 0
            peak = max(peak, live + self._copied(node))
            live -= sum(self.sizes[owner] for owner, end in ends.items() if end == at)
        return peak

    def _copied(self, node: fx.Node) -> int:
        """What the library that computes a layer takes meanwhile: a margin of its input, where it is not known."""
        if self._packed or node.op != "call_module":
            return 0
        source = max(node.all_input_nodes, key=lambda each: self.sizes[each])
        module, size = self.axes[0].module(node), self.sizes[source]
        if self._unfolds and isinstance(module, nn.Conv3d) and size <= 4 * _UNFOLDED * self._columns[source]:
            return size * prod(module.kernel_size)
        return size

    def _lengths(self, axis: AxisGraph, length: int) -> dict[fx.Node, int]:
        sizes: dict[fx.Node, int] = {}
        for node in self.nodes:
            module = axis.module(node)
            if node.op == "placeholder":
                sizes[node] = length
            elif isinstance(module, CropView):
                sizes[node] = module.shape[axis.axis]
            else:
                sizes[node] = axis.size_of(node, [sizes[source] for source in node.all_input_nodes])
        return sizes
