"""What a run would do, in numbers, before anything is started: `predict --dry-run`."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, prod
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import decoded_chunks, read_amplification
from volseg.cluster import SLOTS, default_workers, visible_gpus
from volseg.errors import MemoryPlanError
from volseg.inference import choose_precision, worker_info
from volseg.inference.memory.plan import block_bytes
from volseg.prediction.autotune.tile import choose_tiles
from volseg.prediction.autotune.tuner import largest_batch, tilings_of
from volseg.prediction.prepare import load_of
from volseg.prediction.resume import done_blocks
from volseg.storage import open_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.blocks import Tiling
    from volseg.inference import Device, Precision
    from volseg.prediction.prepare import RunSpec

_PLENTY = (1 << 62, 1 << 62)
"""Memory of which no tile takes too much."""


def estimate_run(prepared: RunSpec, chosen: Sequence[Tiling] = ()) -> dict[str, object]:
    """What a run would do, in numbers: all its blocks, and which of them are left to do.

    Args:
        prepared: the run.
        chosen: how a worker has chosen to cut blocks for each network; guessed where it was not asked.
    """
    plan, mask, recorded = prepared.plan, prepared.mask, prepared.recorded
    done = len(done_blocks(open_target(prepared.target).journal)[0]) if recorded else 0
    planned = mask.count if mask else plan.grid.count
    # How large a tile may be, a worker says when the run starts; that a block is one is the guess.
    guessed = [next(plan.tilings(member)) for member in range(len(plan.halos))]
    tilings = chosen or ([entry.tiling for entry in recorded.models] if recorded else guessed)
    chunk, item = prepared.volume.chunk, np.dtype(prepared.volume.dtype).itemsize
    return prepared.figures() | {
        "mask": mask.volume.location if mask else None,
        "blocks_outside_the_mask": plan.grid.count - planned,
        "blocks_done_before": done,
        "blocks_to_do": planned - done,
        "read_amplification": round(read_amplification(plan.grid, tilings, chunk), 2),
        # Of all blocks, before compression.
        "bytes_to_read": decoded_chunks(plan.grid, tilings, chunk) * prod(chunk) * item,
        "bytes_to_write": plan.grid.region.voxels * len(prepared.classes) * (2 if prepared.config.uncertainty else 1),
        "bytes_of_blocks_in_flight": _in_flight(prepared, tilings),
    }


def estimate_peak_memory(prepared: RunSpec) -> dict[str, object]:
    """What a worker would take of memory at its peak, were it on this machine; loads torch and the networks.

    Halos that are still to be measured count as large as they may get.

    Raises:
        ModelError: a model file does not hold its network.
        ConfigError: the run would be refused on this machine for its precision.
    """
    plan, recorded = prepared.plan, prepared.recorded.models if prepared.recorded else None
    device, precision, free = _worker_here(prepared)
    load = replace(load_of(prepared, precision, device, _slots(prepared)), batch=largest_batch(recorded))
    files = [model.path for model in prepared.models]
    try:
        chosen = choose_tiles(files, plan.grid, tilings_of(plan, recorded), load, free)
    except MemoryPlanError as error:
        told = f"too much for a worker on this machine: {error}"
        return {"predicted_peak_bytes": None, "predicted_gpu_peak_bytes": None, "peak_is": told}
    cores = " and ".join(sorted({",".join(map(str, tile.core)) for tile in chosen}))
    return {
        "predicted_peak_bytes": max(tile.memory.host_peak for tile in chosen),
        "predicted_gpu_peak_bytes": max(tile.memory.device_peak for tile in chosen),
        "peak_is": f"of a worker that computes in {precision} on {device.upper()}, with tiles of {cores}",
        "seconds": "add --calibrate: a worker tells them, and its peak, by a block or two that it does not write",
    }


def _worker_here(prepared: RunSpec) -> tuple[Device, Precision, tuple[int, int]]:
    """How a worker on this machine would compute, and the bytes that it may take of main memory and of a GPU's.

    What workers elsewhere have free, nobody knows here; nor what GPUs have that are asked for and not to be seen.
    """
    config, was = prepared.config, prepared.recorded.settings if prepared.recorded else None
    asked = was.device if was else config.device
    precision = was.precision if was and config.precision == "auto" else config.precision
    gpus = visible_gpus(asked)
    if asked == "cuda" and not gpus:
        return "cuda", "float16" if precision == "auto" else precision, _PLENTY
    facts = worker_info(asked)
    count = {"serial": 1, "local": config.workers or default_workers(gpus)}.get(config.cluster)
    each = (facts.memory // count, facts.device_memory // ceil(count / max(1, len(gpus)))) if count else _PLENTY
    return facts.device, choose_precision(precision, [facts], on_gpus="float16"), each


def _slots(prepared: RunSpec) -> int:
    return 1 if prepared.config.cluster == "serial" else SLOTS


def _in_flight(prepared: RunSpec, tilings: Sequence[Tiling]) -> int:
    """What the blocks that a worker holds at once take of its main memory at their fullest, the network aside."""
    load = load_of(prepared, "float32", "cpu", _slots(prepared))
    return load.slots * max(block_bytes(prepared.plan.grid, tiling, load)[0] for tiling in tilings)
