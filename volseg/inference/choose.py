"""The tiles of a run, chosen on a worker by what its memory holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from volseg.inference.memory import Load, MemoryPlan, largest_that_fits, plan_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.blocks import BlockGrid, Tiling, Zyx


@dataclass(frozen=True, slots=True)
class TileChoice:
    """The tile of one network of a run and the peak that was predicted with it."""

    core: Zyx
    memory: MemoryPlan


def choose_tiles(
    model_files: Sequence[str],
    grid: BlockGrid,
    tilings: Sequence[Sequence[Tiling]],
    load: Load,
    free: tuple[int, int],
) -> tuple[TileChoice, ...]:
    """Choose the largest tile that fits, for each network: the larger a tile, the less halo is computed twice.

    All networks stay loaded, one of them runs at a time.

    Args:
        model_files: the models.
        grid: the run's blocks.
        tilings: candidates for each model, largest tile first.
        load: what a worker is asked to hold.
        free: bytes free for a worker in main memory and on its device.

    Raises:
        MemoryPlanError: not even the smallest tile fits.
    """
    from volseg.models.model import load_model_file  # noqa: PLC0415 - the driver imports this module without torch

    networks = [load_model_file(file).network for file in model_files]
    weights = sum(parameter.numel() for network in networks for parameter in network.parameters())
    chosen = []
    for network, candidates in zip(networks, tilings, strict=True):
        plans = ((tiling, plan_memory(network, grid, tiling, load, weights)) for tiling in candidates)
        tiling, memory = largest_that_fits(plans, *free)
        chosen.append(TileChoice(tiling.core, memory))
    return tuple(chosen)
