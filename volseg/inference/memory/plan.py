"""Peak memory of a worker, predicted before the run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil, prod
from typing import TYPE_CHECKING, NoReturn

import psutil

from volseg.errors import MemoryPlanError
from volseg.inference.settings import ITEM_BYTES, Load
from volseg.malloc import trim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from volseg.blocks import BlockGrid, Tiling

_LIBRARY_BYTES = 20 << 20
"""Growth of Python's and torch's libraries when a worker first reads, predicts and writes; measured."""
_HEAP_OVERHEAD = 1.6
"""Size of a retained heap relative to the activations alive at once, whose sizes differ; measured."""
_MAX_FRACTION = 0.85
"""Fraction of the free memory that a run may plan for."""


@cache
def resident_bytes() -> int:
    """Resident memory of this process at its first plan, in bytes; later passes reuse what earlier ones leave."""
    trim()  # freed memory does not count
    return int(psutil.Process().memory_info().rss)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Parts of a worker's peak, in bytes.

    Attributes:
        resident: memory of the process at planning: mostly the interpreter and its libraries.
        libraries: their expected growth.
        weights: of the network.
        activations: peak of one forward pass, or of another step of its block.
        blocks: voxels of the blocks in flight, as read, predicted and written.
        device: whose memory holds weights and activations.
    """

    resident: int
    libraries: int
    weights: int
    activations: int
    blocks: int
    device: str

    @property
    def host_growth(self) -> int:
        """Peak in main memory beyond the resident memory at planning."""
        return self.libraries + self.blocks + (self.weights + self.activations if self.device == "cpu" else 0)

    @property
    def host_peak(self) -> int:
        """Peak in main memory."""
        return self.resident + self.host_growth

    @property
    def device_peak(self) -> int:
        """Peak on the GPU; 0 on a CPU."""
        return 0 if self.device == "cpu" else self.weights + self.activations


def block_bytes(grid: BlockGrid, tiling: Tiling, load: Load) -> tuple[int, int]:
    """Peak memory of one block's voxels, and their memory while its network runs, in bytes."""
    whole = grid.largest_box
    read, write = tiling.read_box(whole).voxels, ceil(whole.voxels * max(1.0, load.enlargement)) * load.classes
    # Beside the running mean: two float32 arrays while the next estimate is added, three more for the deviation.
    sums = (8 if load.estimates > 1 else 0) + (12 if load.with_std else 0)
    # The grey values and their mirrored copy; later the grey values, probabilities, their scaled copy, and uint8.
    peak = max(2 * read * load.source_item, read * load.source_item + write * (12 + sums))
    return peak, read * load.source_item + write * (4 + sums)


def plan_memory(
    network: nn.Module, grid: BlockGrid, tiling: Tiling, load: Load, parameters: int | None = None
) -> MemoryPlan:
    """Predict the peak of a worker; it depends on block, tile and network, never on the volume.

    Args:
        network: as trained, before `optimize`.
        grid: blocks of the run.
        tiling: of blocks.
        load: what a worker has to hold.
        parameters: number of parameters of all networks of the run; by default those of this one.
    """
    from volseg.inference.memory.activations import activation_bytes, meta_network  # noqa: PLC0415 - geometry without torch

    item, on_cpu = ITEM_BYTES[load.precision], load.device == "cpu"
    meta = meta_network(network, load.device, load.precision)
    block_peak, block_running = block_bytes(grid, tiling, load)
    activations = activation_bytes(meta, tiling, load.batch, item)
    # Tiles are normalised in float32; in another precision the network takes a copy.
    copies = load.source_item + (0 if load.precision == "float32" else 4)
    forward = int(activations * (_HEAP_OVERHEAD if on_cpu else 1)) + prod(tiling.input_shape) * load.batch * copies
    loaded = sum(p.numel() * p.element_size() for p in network.parameters() if p.device.type == "cpu")
    if parameters is None:
        parameters = sum(p.numel() for p in network.parameters())
    return MemoryPlan(
        # The planned network is resident already, and counted below.
        resident=resident_bytes() - loaded,
        libraries=_LIBRARY_BYTES,
        # The network in float32 as loaded, its optimised copy, and on a CPU a packed copy.
        weights=parameters * (4 + item * (2 if meta.packed else 1)),
        activations=max(forward, block_peak - block_running) if on_cpu else forward,
        blocks=(load.slots - 1) * block_peak + (block_running if on_cpu else block_peak),
        device=load.device,
    )


def fits_in_memory(plan: MemoryPlan, host_free: int, device_free: int) -> bool:
    """Whether a plan fits the free memory of a worker on its host and its GPU, in bytes, with a margin."""
    return plan.host_growth <= int(host_free * _MAX_FRACTION) and plan.device_peak <= int(device_free * _MAX_FRACTION)


def refuse_too_large(smallest: MemoryPlan | None, host_free: int, device_free: int) -> NoReturn:
    """Refuse a run whose smallest tile does not fit.

    Raises:
        MemoryPlanError: always; gives the required and the available GiB.
    """
    host, on_device = int(host_free * _MAX_FRACTION), int(device_free * _MAX_FRACTION)
    required, free = (smallest.device_peak, on_device) if smallest and smallest.host_growth <= host else (0, host)
    required = required or (smallest.host_growth if smallest else 0)
    raise MemoryPlanError(
        f"a worker would need {required / 2**30:.2f} GiB, and {free / 2**30:.2f} GiB may be planned for; "
        "use a smaller --block, or fewer --workers on a host"
    )


def largest_that_fits(
    plans: Iterable[tuple[Tiling, MemoryPlan]], host_free: int, device_free: int
) -> tuple[Tiling, MemoryPlan]:
    """The largest tile whose predicted peak fits the free memory.

    Args:
        plans: tilings with their plans, largest tile first.
        host_free: free bytes in main memory for one worker.
        device_free: free bytes on its GPU.

    Raises:
        MemoryPlanError: not even the smallest tile fits.
    """
    smallest: MemoryPlan | None = None
    for tiling, plan in plans:
        if fits_in_memory(plan, host_free, device_free):
            return tiling, plan
        smallest = plan
    refuse_too_large(smallest, host_free, device_free)
