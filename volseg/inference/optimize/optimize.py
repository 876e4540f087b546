"""Optimises a network for one device, once per worker.

trained network -> batch norms folded -> weights rounded -> moved to device and layout
-> for each orientation: halo cropped -> on a CPU: packed for oneDNN; on a GPU, for long runs: compiled
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from volseg.inference.optimize.compile import CompiledNetwork
from volseg.inference.optimize.crop_halo import crop_halo
from volseg.inference.optimize.fold_batch_norm import fold_batch_norm
from volseg.inference.optimize.onednn import PackedConvolution, can_pack, pack_convolutions
from volseg.inference.optimize.round_weights import round_weights
from volseg.malloc import mmap_large_blocks
from volseg.models.receptive_field import dimensions

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from torch import Tensor, fx, nn

    from volseg.inference.settings import Device, Precision
    from volseg.models.window import Interval


@dataclass(frozen=True)
class SpecializedNetwork:
    """A network for one tile shape.

    Attributes:
        network: takes whole tiles.
        start: offset of its output within that of the whole network, along each axis of the network.
        plain: the same layer by layer, neither packed nor compiled.
    """

    network: Callable[[Tensor], Tensor]
    start: tuple[int, ...]
    plain: fx.GraphModule


class WarmupAllocation:
    """A network on a CPU whose first pass over each shape allocates its activations outside of a retained heap."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self._network = network
        self._warm: set[torch.Size] = set()

    def __call__(self, tiles: Tensor) -> Tensor:
        """Map (N, C, [z,] y, x)."""
        if tiles.shape in self._warm:
            return self._network(tiles)
        with mmap_large_blocks():
            output = self._network(tiles)
        self._warm.add(tiles.shape)
        return output


_cache: MutableMapping[nn.Module, dict[tuple[Device, Precision], fx.GraphModule]] = WeakKeyDictionary()

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def optimize(network: nn.Module, device: Device, precision: Precision) -> fx.GraphModule:
    """A copy for inference: batch norms folded in float32, weights rounded, channels last, on the device."""
    graph = fold_batch_norm(network)
    if precision != "float32":
        round_weights(graph, DTYPES[precision])
    graph = graph.to(device=device, dtype=DTYPES[precision])
    layout = torch.channels_last if dimensions(network) == 2 else torch.channels_last_3d
    return graph.to(memory_format=layout)  # type: ignore[call-overload,no-any-return]  # torch's stub lacks it


def optimized(network: nn.Module, device: Device, precision: Precision) -> fx.GraphModule:
    """The result of `optimize`, cached as long as the trained network lives; callers must change neither."""
    graphs = _cache.setdefault(network, {})
    if (device, precision) not in graphs:
        graphs[device, precision] = optimize(network, device, precision)
    return graphs[device, precision]


def specialized(
    network: fx.GraphModule,
    lengths: Sequence[int],
    core: Sequence[Interval],
    packed_cache: MutableMapping[str, PackedConvolution],
    *,
    compiled: int = 0,
) -> SpecializedNetwork:
    """Specialise an optimised network for one tile shape: it computes little beyond the core, and shares weights.

    Args:
        network: from `optimize`.
        lengths: of a tile, along each of the network's axes.
        core: first and last index of the output to compute, along each of them.
        packed_cache: convolutions of this network packed for other tile shapes; filled here.
        compiled: tiles per batch to run through torch.compile, on a GPU; 0 for none.
    """
    graph, start = crop_halo(network, lengths, core)
    weights = next(network.parameters())
    if weights.device.type != "cpu":
        return SpecializedNetwork(CompiledNetwork(graph, compiled) if compiled else graph, start, graph)
    packed = len(lengths) == 2 and can_pack(weights.dtype)
    ready = pack_convolutions(graph, packed_cache) if packed else graph
    return SpecializedNetwork(WarmupAllocation(ready), start, graph)
