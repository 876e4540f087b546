"""What a run would take, tried on its own workers: `predict --dry-run --calibrate`.

cluster -> halo, tiles, precision as the run would choose them -> on one worker, as many blocks side by side as it
holds at once, computed and not written -> seconds, memory. Nothing is written to the target.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any

from volseg.cluster import Progress, connect, visible_gpus
from volseg.errors import BlockError
from volseg.inference import Load, forget_peaks, measured_peaks
from volseg.inference.memory.malloc import release_heap
from volseg.inference.memory.plan import MemoryPlan, plan_memory
from volseg.pipeline import BlockPipeline, process_block
from volseg.prediction.dry_run import estimate_run
from volseg.prediction.prepare import RunSpec, load_of
from volseg.prediction.resolve import resolve_run
from volseg.prediction.worker import ensemble_of
from volseg.storage import open_volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.blocks import Box
    from volseg.storage import RunRecord, Volume

_TRIED = 24
"""Blocks that are looked at for such as show an image."""


class NullSink:
    """A sink that keeps nothing."""

    def write(self, box: Box, volumes: Sequence[NDArray[Any]]) -> str:
        """Forget the voxels."""
        return ""

    def clear(self, box: Box) -> None:
        """There is nothing to clear."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What some blocks took of one worker.

    Attributes:
        seconds: for each block, of those that were computed side by side.
        voxels: of each block.
        predicted: the worker's peak by plan, in bytes, in main memory and on its GPU.
        measured: its peak meanwhile, likewise; 0 where the system does not tell.
    """

    seconds: float
    voxels: int
    predicted: tuple[int, int]
    measured: tuple[int, int]


def calibrate(prepared: RunSpec, progress: Progress) -> dict[str, object]:
    """Choose what a run would choose, do a few of its blocks without writing them, and say what all would take.

    Args:
        prepared: the run.
        progress: told how far the choosing is.

    Returns:
        Figures by name: those that are foreseen, for the halo and the tiles that were chosen, and those measured;
        seconds, bytes, thousands of voxels a second.

    Raises:
        VolsegError: what the run would be refused for; or none of the blocks that were looked at shows an image.
    """
    config = prepared.config
    with connect(config.cluster, config.workers, visible_gpus(config.device)) as cluster:
        record = resolve_run(prepared, cluster, progress)
        files = tuple(model.path for model in prepared.models)
        load = load_of(prepared, record.settings.precision, record.settings.device, cluster.slots_each)
        numbers = list(islice(_from_the_middle(prepared), _TRIED))
        progress.note(f"calibrating: up to {load.slots} blocks at once on one worker")
        made: Measurement = cluster.on_one(measure_blocks, record, prepared.volume.location, files, numbers, load)
        workers, slots = len(cluster.names), cluster.slots
    entries = record.models
    plan = prepared.plan.with_halos(tuple(entry.halo for entry in entries))
    figures = estimate_run(replace(prepared, plan=plan), [entry.tiling for entry in entries])
    blocks = int(str(figures["blocks_to_do"]))
    return figures | {
        "halo_is": "as a worker chose it" if prepared.measures else "as it will be",
        "device": record.settings.device,
        "precision": record.settings.precision,
        "workers": workers,
        "slots": slots,
        "halos": [list(entry.halo) for entry in entries],
        "tiles": [list(entry.tile) for entry in entries],
        "batches": [entry.batch for entry in entries],
        "kvoxel_s_of_a_worker": round(made.voxels / made.seconds / 1e3, 1),
        "seconds_a_block": round(made.seconds, 3),
        "seconds_for_the_run": round(seconds_for(blocks, workers, made.seconds), 1),
        "predicted_peak_bytes": made.predicted[0],
        "measured_peak_bytes": made.measured[0],
        "predicted_gpu_peak_bytes": made.predicted[1],
        "measured_gpu_peak_bytes": made.measured[1],
    }


def seconds_for(blocks: int, workers: int, seconds: float) -> float:
    """What some blocks take that workers share: the last ones may leave some of them idle.

    >>> seconds_for(5, 2, 1.5), seconds_for(1, 8, 1.5)
    (4.5, 1.5)
    """
    return ceil(blocks / workers) * seconds


def _from_the_middle(prepared: RunSpec) -> Iterator[int]:
    """The planned blocks of a run, from the middle of the region on."""
    grid, mask = prepared.plan.grid, prepared.mask
    order = (number % grid.count for number in range(grid.count // 2, grid.count // 2 + grid.count))
    return (number for number in order if mask is None or number in mask)


def measure_blocks(
    record: RunRecord, source: str, files: tuple[str, ...], numbers: Sequence[int], load: Load
) -> Measurement:
    """Do as many blocks side by side as a worker holds, in whichever process this is called; write nothing.

    Args:
        record: the run's.
        source: where its volume is.
        files: where its models are.
        numbers: of the blocks to take them from: the first that show an image.
        load: what the run asks a worker to hold.

    Raises:
        BlockError: none of them does.
    """
    volume = open_volume(source)
    shown = list(islice((number for number in numbers if _shows(volume, record.grid.box(number))), load.slots))
    if not shown:
        raise BlockError(
            f"the {len(numbers)} blocks that were looked at hold one grey value each; "
            "give --roi or --mask where there is an image"
        )
    plans = _plans(record, files, load)
    release_heap()  # as a run does when it opens its journey
    journey = BlockPipeline(
        record.grid, ensemble_of(record, files), volume, NullSink(), with_std=record.settings.uncertainty
    )
    forget_peaks()
    started = time.perf_counter()
    with ThreadPoolExecutor(len(shown)) as pool:
        reports = list(pool.map(partial(process_block, journey=journey), shown))
    seconds = time.perf_counter() - started
    predicted = max(plan.host_peak for plan in plans), max(plan.device_peak for plan in plans)
    voxels = max(report.voxels for report in reports)
    return Measurement(seconds / len(shown), voxels, predicted, measured_peaks(record.settings.device))


def _shows(volume: Volume, box: Box) -> bool:
    """Whether the voxels of a box hold more than one grey value."""
    voxels = volume.read(box)
    return bool(voxels.min() != voxels.max())


def _plans(record: RunRecord, files: tuple[str, ...], load: Load) -> list[MemoryPlan]:
    """The memory plan of each network of a run, as this worker sees it."""
    from volseg.models.model import shared_model  # noqa: PLC0415 - the driver imports this module without torch

    networks = [shared_model(file).network for file in files]
    weights = sum(parameter.numel() for network in networks for parameter in network.parameters())
    return [
        plan_memory(network, record.grid, entry.tiling, replace(load, batch=entry.batch), weights)
        for network, entry in zip(networks, record.models, strict=True)
    ]
