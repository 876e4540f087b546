"""A worker's peak memory, predicted before the run."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NoReturn

from volseg.errors import MemoryPlanError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from volseg.blocks import BlockGrid, Box, Tiling
    from volseg.inference.facts import Device, Precision

_PROCESS = 600 << 20
"""Python with torch, zarr and distributed loaded, and what their allocators keep; measured."""
_SHARE = 0.85
"""How much of the free memory a run may plan for."""

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where a worker's peak goes, in bytes.

    Attributes:
        process: the interpreter and its libraries.
        weights: the network's.
        activations: the most that one forward pass holds at once.
        blocks: voxels of the blocks in flight, as read, normalised, predicted and written.
        device: which memory holds weights and activations.
    """

    process: int
    weights: int
    activations: int
    blocks: int
    device: str

    @property
    def host_peak(self) -> int:
        """Peak of the process in main memory."""
        return self.process + self.blocks + (self.weights + self.activations if self.device == "cpu" else 0)

    @property
    def device_peak(self) -> int:
        """Peak on the GPU; 0 on a CPU."""
        return 0 if self.device == "cpu" else self.weights + self.activations


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker is asked to hold.

    Attributes:
        batch: tiles a forward pass.
        precision: of weights and activations.
        source_item: bytes of a voxel of the source.
        slots: blocks in flight.
        device: where the network runs.
        classes: volumes of probability that are made.
        estimates: of each, which are averaged.
        spread: whether their standard deviation is made too.
    """

    batch: int
    precision: Precision
    source_item: int
    slots: int
    device: Device
    classes: int = 1
    estimates: int = 1
    spread: bool = False


def block_bytes(grid: BlockGrid, tiling: Tiling, load: Load) -> int:
    """What one block holds at its fullest, in bytes: its read box and its write box, each in several forms."""
    whole = _largest_block(grid)
    read, write = tiling.read_box(whole).voxels, whole.voxels * load.classes
    # Normalising holds raw voxels, their float32 copy and its result; later the probabilities, their scaled copy and
    # the bytes stand beside the normalised voxels. Of several estimates there are two besides their mean, and sums.
    kept = 12 + (8 if load.estimates > 1 else 0) + (12 if load.spread else 0)
    return max(read * (load.source_item + 8), read * (load.source_item + 4) + write * kept)


def _largest_block(grid: BlockGrid) -> Box:
    return max((grid.box(number) for number in {0, grid.count // 2, grid.count - 1}), key=lambda box: box.voxels)


def activation_bytes(network: nn.Module, input_shape: tuple[int, int, int], batch: int, item: int) -> int:
    """The most that one forward pass holds at once, in bytes, by walking the network's graph.

    Each output lives from the node that makes it to the last that uses it.

    Args:
        network: the network.
        input_shape: of one tile, (z, y, x); the sections of a 2-D network's tile are its channels.
        batch: tiles a pass.
        item: bytes of one activation.
    """
    from volseg.models.graph import AxisGraph, dimensions  # noqa: PLC0415 - torch is not needed to plan geometry

    axes = [AxisGraph(network, axis) for axis in range(dimensions(network))]
    first, channels, nodes = axes[0], axes[0].channels(), axes[0].nodes
    lengths = [list(axis.sizes(n).values()) for axis, n in zip(axes, input_shape[-len(axes) :], strict=True)]
    voxels = [prod(each) for each in zip(*lengths, strict=True)]
    sizes = {
        node: channels[node] * count * batch * first.item_bytes(node, item)
        for node, count in zip(nodes, voxels, strict=True)
    }
    last_use = {source: at for at, node in enumerate(nodes) for source in node.all_input_nodes}
    live = peak = 0
    for at, node in enumerate(nodes):
        live += 0 if first.in_place(node) else sizes[node]
        # A convolution's library may hold its input in another layout meanwhile; in 3-D its output as well.
        copied = max((sizes[source] for source in node.all_input_nodes), default=0)
        peak = max(peak, live + copied + (sizes[node] if len(axes) == 3 else 0))
        owners = {source for source in node.all_input_nodes if last_use[source] == at}
        live -= sum(sizes[source] for source in owners if not first.in_place(node))
    return peak


def plan_memory(
    network: nn.Module, grid: BlockGrid, tiling: Tiling, load: Load, weights: int | None = None
) -> MemoryPlan:
    """Predict the peak of a worker; it depends on block, tile and network, never on the volume.

    Args:
        network: the network that runs.
        grid: the run's blocks.
        tiling: how blocks are cut.
        load: what a worker is asked to hold.
        weights: numbers that the networks of the run have in all; those of this one by default.
    """
    item = ITEM_BYTES[load.precision]
    inputs = prod(tiling.input_shape) * load.batch * 8
    return MemoryPlan(
        process=_PROCESS,
        # The network as loaded, in float32, and the copy that is made ready.
        weights=(sum(p.numel() for p in network.parameters()) if weights is None else weights) * (item + 4),
        activations=activation_bytes(network, tiling.input_shape, load.batch, item) + inputs,
        blocks=load.slots * block_bytes(grid, tiling, load),
        device=load.device,
    )


def fits(plan: MemoryPlan, host_free: int, device_free: int) -> bool:
    """Whether a predicted peak fits the free memory, in bytes, that a worker may take of its host's and its GPU's."""
    return plan.host_peak <= int(host_free * _SHARE) and plan.device_peak <= int(device_free * _SHARE)


def refuse_unfitting(least: MemoryPlan | None, host_free: int, device_free: int) -> NoReturn:
    """Refuse a run whose smallest tile does not fit.

    Raises:
        MemoryPlanError: always; names what it would need.
    """
    host, on_device = int(host_free * _SHARE), int(device_free * _SHARE)
    needed, free = (least.device_peak, on_device) if least and least.host_peak <= host else (0, host)
    needed = needed or (least.host_peak if least else 0)
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
