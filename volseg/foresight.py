"""What a run would do, in numbers, before anything is started: `predict --dry-run`."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import BlockSet, decoded_chunks, read_amplification
from volseg.cluster import SLOTS
from volseg.inference import Load
from volseg.inference.memory import block_bytes
from volseg.pipeline import EMPTY
from volseg.storage import open_target, read_marks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from volseg.blocks import Tiling
    from volseg.freezing import Prepared


def foreseen(prepared: Prepared, chosen: Sequence[Tiling] = ()) -> dict[str, object]:
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
        "bytes_of_blocks_in_flight": _in_flight(prepared, tilings, item),
        "seconds_and_peak_memory": "add --calibrate: a worker tells, by a block or two that it does not write",
    }


def _in_flight(prepared: Prepared, tilings: Sequence[Tiling], item: int) -> int:
    """What the blocks that a worker holds at once take of its main memory at their fullest, the network aside."""
    config = prepared.config
    load = Load(
        batch=1,
        precision="float32",
        source_item=item,
        slots=1 if config.cluster == "serial" else SLOTS,
        device="cpu",
        classes=len(prepared.classes),
        estimates=prepared.estimates,
        spread=config.uncertainty,
    )
    return load.slots * max(block_bytes(prepared.plan.grid, tiling, load)[0] for tiling in tilings)


def done_blocks(folder: Path) -> tuple[BlockSet, int]:
    """The blocks that have a mark in a journal, and how many of them were found empty."""
    done, empty = BlockSet(), 0
    for mark in read_marks(folder):
        empty += mark.skipped == EMPTY and mark.block not in done
        done.add(mark.block)
    return done, empty
