"""The network made ready for one device, once a worker.

plain network -> norms folded -> weights rounded -> device, layout
-> for each way to see a tile: cut to what the core needs -> on a CPU: packed for oneDNN; on a GPU, where it pays,
compiled
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from volseg.inference.memory.malloc import mmap_large_blocks
from volseg.inference.optimize.compile import Compiled
from volseg.inference.optimize.crop_halo import cropped
from volseg.inference.optimize.fold_batch_norm import without_norms
from volseg.inference.optimize.onednn import PackedConvolution, can_pack, packed
from volseg.inference.optimize.round_weights import round_weights
from volseg.models.receptive_field import dimensions

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping, Sequence

    from torch import Tensor, fx, nn

    from volseg.inference.settings import Device, Precision
    from volseg.models.receptive_field import Interval


@dataclass(frozen=True)
class SpecializedNetwork:
    """A network for one tile shape.

    Attributes:
        network: takes whole tiles.
        start: where its output begins in that of the whole network, along each axis of the network.
    """

    network: Callable[[Tensor], Tensor]
    start: tuple[int, ...]


class WarmupAllocation:
    """A network on a CPU, the first pass of which over tiles of a shape makes its maps apart from the heap."""

    def __init__(self, network: Callable[[Tensor], Tensor]) -> None:
        self._network = network
        self._settled: set[torch.Size] = set()

    def __call__(self, tiles: Tensor) -> Tensor:
        """As the network's."""
        if tiles.shape in self._settled:
            return self._network(tiles)
        with mmap_large_blocks():
            made = self._network(tiles)
        self._settled.add(tiles.shape)
        return made


_ready: MutableMapping[nn.Module, dict[tuple[Device, Precision], fx.GraphModule]] = WeakKeyDictionary()

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def prepared(network: nn.Module, device: Device, precision: Precision) -> fx.GraphModule:
    """A copy of the network for inference: norms folded in float32, then rounded, channels last, on the device."""
    folded = without_norms(network)
    if precision != "float32":
        round_weights(folded, DTYPES[precision])
    placed = folded.to(device=device, dtype=DTYPES[precision])
    layout = torch.channels_last if dimensions(network) == 2 else torch.channels_last_3d
    return placed.to(memory_format=layout)  # type: ignore[call-overload,no-any-return]  # torch's stub lacks it


def optimized(network: nn.Module, device: Device, precision: Precision) -> fx.GraphModule:
    """As `prepared`, for those who leave both networks as they are: made once, and kept as long as the plain one."""
    made = _ready.setdefault(network, {})
    if (device, precision) not in made:
        made[device, precision] = prepared(network, device, precision)
    return made[device, precision]


def specialized(
    network: fx.GraphModule,
    lengths: Sequence[int],
    kept: Sequence[Interval],
    known: MutableMapping[str, PackedConvolution],
    *,
    compiled: int = 0,
) -> SpecializedNetwork:
    """A prepared network made for one tile shape: it computes what is kept of its output, and shares its weights.

    Args:
        network: as `prepared` made it.
        lengths: of a tile, along each of the network's axes.
        kept: first and last place of the output that is wanted, along each of them.
        known: weights that were packed for other tile shapes; grows.
        compiled: tiles of the batches that torch.compile is to make it for, on a GPU; 0 for none.
    """
    cut = cropped(network, lengths, kept)
    weights = next(network.parameters())
    if weights.device.type != "cpu":
        return SpecializedNetwork(Compiled(cut.network, compiled) if compiled else cut.network, cut.start)
    may_pack = len(lengths) == 2 and can_pack(weights.dtype)
    return SpecializedNetwork(WarmupAllocation(packed(cut.network, known) if may_pack else cut.network), cut.start)
