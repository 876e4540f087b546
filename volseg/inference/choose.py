"""The tile of a run, chosen on a worker by what its memory holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from volseg.inference.memory import Load, MemoryPlan, largest_that_fits, plan_memory

if TYPE_CHECKING:
    from volseg.blocks import BlockGrid, Tiling, Zyx


@dataclass(frozen=True, slots=True)
class TileChoice:
    """The tile of a run and the peak that was predicted with it."""

    core: Zyx
    memory: MemoryPlan


def choose_tile(
    model_file: str, grid: BlockGrid, tilings: tuple[Tiling, ...], load: Load, free: tuple[int, int]
) -> TileChoice:
    """Choose the largest tile that fits: the larger a tile, the less halo is computed twice.

    Args:
        model_file: the model.
        grid: the run's blocks.
        tilings: candidates, largest tile first.
        load: what a worker is asked to hold.
        free: bytes free for a worker in main memory and on its device.

    Raises:
        MemoryPlanError: not even the smallest tile fits.
    """
    from volseg.models.model import load_model_file  # noqa: PLC0415 - the driver imports this module without torch

    network = load_model_file(model_file).network
    plans = ((tiling, plan_memory(network, grid, tiling, load)) for tiling in tilings)
    tiling, memory = largest_that_fits(plans, *free)
    return TileChoice(tiling.core, memory)
