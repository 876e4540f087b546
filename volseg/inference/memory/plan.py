"""A worker's peak memory, predicted before the run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, NoReturn

import psutil

from volseg.errors import MemoryPlanError
from volseg.inference.memory.malloc import trim
from volseg.inference.settings import ITEM_BYTES, Load

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from volseg.blocks import BlockGrid, Tiling

_LATER = 20 << 20
"""What Python's and torch's libraries take when a worker first reads, predicts and writes; measured."""
_HEAP = 1.6
"""How large the heap gets that keeps a pass's maps, whose sizes differ, against those alive at once; measured."""
_SHARE = 0.85
"""How much of the free memory a run may plan for."""


@cache
def resident_bytes() -> int:
    """What this process held when it first planned, in bytes; what passes leave behind later, later ones take again."""
    trim()  # what was let go of is not held
    return int(psutil.Process().memory_info().rss)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where a worker's peak goes, in bytes.

    Attributes:
        held: what the process held already when this was planned: the interpreter and its libraries, mostly.
        process: what its libraries will take yet.
        weights: the network's.
        activations: what one forward pass, or another step of its block, takes at most.
        blocks: voxels of the blocks in flight, as read, predicted and written.
        device: which memory holds weights and activations.
    """

    held: int
    process: int
    weights: int
    activations: int
    blocks: int
    device: str

    @property
    def host_more(self) -> int:
        """What the process will take of main memory, at its peak, beyond what it held when this was planned."""
        return self.process + self.blocks + (self.weights + self.activations if self.device == "cpu" else 0)

    @property
    def host_peak(self) -> int:
        """Peak of the process in main memory."""
        return self.held + self.host_more

    @property
    def device_peak(self) -> int:
        """Peak on the GPU; 0 on a CPU."""
        return 0 if self.device == "cpu" else self.weights + self.activations


def block_bytes(grid: BlockGrid, tiling: Tiling, load: Load) -> tuple[int, int]:
    """What one block holds at its fullest, and while its network runs, in bytes.

    It is a read box and a write box, each in several forms.
    """
    whole = grid.largest
    read, write = tiling.read_box(whole).voxels, whole.voxels * load.classes
    # Of several estimates there are two besides their mean, and sums.
    sums = (8 if load.estimates > 1 else 0) + (12 if load.with_std else 0)
    # Beside the grey values stand their mirrored copy, and later the probabilities, their scaled copy and the bytes.
    fullest = max(2 * read * load.source_item, read * load.source_item + write * (12 + sums))
    return fullest, read * load.source_item + write * (4 + sums)


def plan_memory(
    network: nn.Module, grid: BlockGrid, tiling: Tiling, load: Load, weights: int | None = None
) -> MemoryPlan:
    """Predict the peak of a worker; it depends on block, tile and network, never on the volume.

    Args:
        network: the network that runs, plain.
        grid: the run's blocks.
        tiling: how blocks are cut.
        load: what a worker is asked to hold.
        weights: numbers that the networks of the run have in all; those of this one by default.
    """
    from volseg.inference.memory.activations import activation_bytes, outline  # noqa: PLC0415 - plans of geometry need no torch

    item, on_cpu = ITEM_BYTES[load.precision], load.device == "cpu"
    optimized = outline(network, load.device, load.precision)
    fullest, running = block_bytes(grid, tiling, load)
    maps = activation_bytes(optimized, tiling, load.batch, item)
    # Tiles are normalised in float32; what the network takes is a copy where its precision is another.
    copies = load.source_item + (0 if load.precision == "float32" else 4)
    passing = int(maps * (_HEAP if on_cpu else 1)) + prod(tiling.input_shape) * load.batch * copies
    own = sum(p.numel() * p.element_size() for p in network.parameters() if p.device.type == "cpu")
    numbers = sum(p.numel() for p in network.parameters()) if weights is None else weights
    return MemoryPlan(
        # The network that is planned for is loaded already, and counted below.
        held=resident_bytes() - own,
        process=_LATER,
        # The network as loaded, in float32, the copy that is made ready, and on a CPU that one packed.
        weights=numbers * (4 + item * (2 if optimized.packed else 1)),
        activations=max(passing, fullest - running) if on_cpu else passing,
        blocks=(load.slots - 1) * fullest + (running if on_cpu else fullest),
        device=load.device,
    )


def fits(plan: MemoryPlan, host_free: int, device_free: int) -> bool:
    """Whether a predicted peak fits the free memory, in bytes, that a worker may take of its host's and its GPU's."""
    return plan.host_more <= int(host_free * _SHARE) and plan.device_peak <= int(device_free * _SHARE)


def refuse_unfitting(least: MemoryPlan | None, host_free: int, device_free: int) -> NoReturn:
    """Refuse a run whose smallest tile does not fit.

    Raises:
        MemoryPlanError: always; names what it would need.
    """
    host, on_device = int(host_free * _SHARE), int(device_free * _SHARE)
    needed, free = (least.device_peak, on_device) if least and least.host_more <= host else (0, host)
    needed = needed or (least.host_more if least else 0)
    raise MemoryPlanError(
        f"a worker would need {needed / 2**30:.2f} GiB, and {free / 2**30:.2f} GiB may be planned for; "
        "use a smaller --block, or fewer --workers on a host"
    )


def largest_that_fits(
    plans: Iterable[tuple[Tiling, MemoryPlan]], host_free: int, device_free: int
) -> tuple[Tiling, MemoryPlan]:
    """The largest tile whose predicted peak fits the free memory.

    Args:
        plans: tilings with their plans, largest tile first.
        host_free: bytes that a worker may take of main memory.
        device_free: bytes that it may take on its GPU.

    Raises:
        MemoryPlanError: not even the smallest tile fits.
    """
    least: MemoryPlan | None = None
    for tiling, plan in plans:
        if fits(plan, host_free, device_free):
            return tiling, plan
        least = plan
    refuse_unfitting(least, host_free, device_free)
