"""Peak activation memory of one forward pass, from the liveness of each node's output in the optimised graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import fx, nn

from volseg.inference.optimize.crop_halo import CropView, crop_halo
from volseg.inference.optimize.fold_batch_norm import fold_batch_norm
from volseg.inference.optimize.onednn import can_pack
from volseg.inference.optimize.optimize import DTYPES
from volseg.inference.settings import ITEM_BYTES
from volseg.models.networks.layers import DECONVOLUTIONS
from volseg.models.receptive_field import SUMS, AxisGraph, dimensions

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from volseg.blocks import Tiling
    from volseg.inference.settings import Device, Precision


_CONV3D_UNFOLD_LIMIT = 20_480
"""Up to this N x C x z x y, a float32 Conv3d on a CPU unfolds its input, without oneDNN (torch 2.13; measured)."""


@dataclass(frozen=True)
class MetaNetwork:
    """An optimised network without weights.

    Attributes:
        graph: its layers, on torch's meta device.
        device: where they will run.
        packed: convolutions are packed for oneDNN with their ReLU, and sums are in place.
    """

    graph: fx.GraphModule
    device: Device
    packed: bool


_graphs: MutableMapping[nn.Module, fx.GraphModule] = WeakKeyDictionary()


def meta_network(network: nn.Module, device: Device, precision: Precision) -> MetaNetwork:
    """The result of `optimize` and `specialized` as far as memory is concerned."""
    # Many tiles of one network are planned, and which norms can be folded depends on its weights.
    if network not in _graphs:
        _graphs[network] = fold_batch_norm(network).to("meta")
    flat = dimensions(network) == 2
    return MetaNetwork(_graphs[network], device, device == "cpu" and flat and can_pack(DTYPES[precision]))


def activation_bytes(network: MetaNetwork, tiling: Tiling, batch: int, item: int) -> int:
    """Peak of all activations in one forward pass, in bytes.

    An activation lives from the layer that computes it to the last that uses it, or a view of it.

    Args:
        network: from `meta_network`.
        tiling: of blocks.
        batch: tiles per pass.
        item: bytes per activation.
    """
    axes = slice(1 if tiling.footprint.dimensions == 2 else 0, 3)
    lengths = list(tiling.input_shape)[axes]
    core = [(a, b - 1) for a, b in zip(tiling.crop.start, tiling.crop.stop, strict=True)][axes]
    graph, _ = crop_halo(network.graph, lengths, core)
    return _Liveness(graph, network, lengths, batch, item).peak_bytes()


class _Liveness:
    """Liveness of a graph's outputs, in the order of execution.

    `owner` maps each node to the node that allocated its output, `sizes` to the bytes of the output.
    """

    def __init__(self, graph: fx.GraphModule, network: MetaNetwork, lengths: list[int], batch: int, item: int) -> None:
        self.axes = [AxisGraph(graph, axis) for axis in range(dimensions(graph))]
        self.nodes = self.axes[0].nodes
        self._packed, self._unfolds = network.packed, network.device == "cpu" and item == ITEM_BYTES["float32"]
        self._calls = Counter(node.target for node in self.nodes)
        self.owner: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            source = self._aliased_input(node) if node.all_input_nodes else None
            self.owner[node] = self.owner[source] if source else node
        along = [self._lengths(axis, length) for axis, length in zip(self.axes, lengths, strict=True)]
        channels, self._columns = self.axes[0].channels(), along[-1]
        self.sizes = {
            node: prod(sizes[node] for sizes in along) * channels[node] * batch * self.axes[0].item_bytes(node, item)
            for node in self.nodes
        }

    def _aliased_input(self, node: fx.Node) -> fx.Node | None:
        """The input whose memory a node's output overwrites or views; None if the output is allocated."""
        module, first = self.axes[0].module(node), node.all_input_nodes[0]
        is_view = isinstance(module, CropView) or (node.op == "call_module" and isinstance(module, nn.Identity))
        if is_view or self.axes[0].in_place(node):
            return first
        if self._packed and type(module) is nn.ReLU and self._is_packed(first) and len(first.users) == 1:
            return first
        if self._packed and node.target in SUMS:
            return next((source for source in node.all_input_nodes if self._may_overwrite(source)), None)
        return None

    def _is_packed(self, node: fx.Node) -> bool:
        return type(self.axes[0].module(node)) is nn.Conv2d and self._calls[node.target] == 1

    def _may_overwrite(self, node: fx.Node) -> bool:
        """Whether a sum may overwrite a node's output; the ReLU of a packed convolution is part of it."""
        if len(node.users) != 1:
            return False
        module = self.axes[0].module(node)
        if type(module) is nn.ReLU:
            return self.owner[node] is not node and self._is_packed(node.all_input_nodes[0])
        return self._is_packed(node) or isinstance(module, DECONVOLUTIONS)

    def peak_bytes(self) -> int:
        """Maximum of the bytes alive at once."""
        ends = {self.owner[used]: at for at, node in enumerate(self.nodes) for used in (node, *node.all_input_nodes)}
        ends[self.nodes[0]] = len(self.nodes)  # the caller holds the tiles
        live = peak = 0
        for at, node in enumerate(self.nodes):
            live += self.sizes[node] if self.owner[node] is node else 0
            peak = max(peak, live + self._workspace(node))
            live -= sum(self.sizes[owner] for owner, end in ends.items() if end == at)
        return peak

    def _workspace(self, node: fx.Node) -> int:
        """Temporary bytes of the library that computes a layer; one more input if its needs are not known."""
        if self._packed or node.op != "call_module":
            return 0
        source = max(node.all_input_nodes, key=lambda node: self.sizes[node])
        module, size = self.axes[0].module(node), self.sizes[source]
        if self._unfolds and isinstance(module, nn.Conv3d) and size <= 4 * _CONV3D_UNFOLD_LIMIT * self._columns[source]:
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
