"""Time, memory and cost of a run, measured on its own workers: `predict --dry-run --calibrate`.

cluster -> halo, tiles, precision as the run would choose them -> a sample of the blocks, computed by all workers and
written beside the target, then deleted -> seconds with an interval, memory. Nothing is written to the target.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from math import ceil, prod, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import to_zyx
from volseg.cluster import Progress, connect, refuse_other_versions, visible_gpus
from volseg.inference import Device, Load, Precision, peak_memory, reset_peak_memory, worker_kind
from volseg.inference.memory.plan import MemoryPlan, plan_memory
from volseg.prediction.dry_run import RunEstimate, estimate_run, flops_per_voxel
from volseg.prediction.resolve import resolve_run
from volseg.prediction.trial import Trial, try_blocks
from volseg.prediction.worker import engine_of, restored_heap

if TYPE_CHECKING:
    from volseg.blocks import Zyx
    from volseg.config import Prices
    from volseg.prediction.prepare import RunSpec
    from volseg.storage import RunRecord

_SECTIONS = 8
"""Sections from which the constants are computed: what they are does not change time and memory."""
CONFIDENCE = 0.8
"""Of the stated interval: it is to hold what four of five runs take."""
_MOST_BLOCKS_A_SECOND = 10_000
"""That one driver sends and marks, with half a core: 0.05 ms each (benchmarks/scale.py)."""
_DRIFT = 0.2
"""By which the speed of a machine differs from one hour to the next, at least, as a fraction."""


@dataclass(frozen=True)
class Calibration:
    """What a run would take, by measurement. Intervals are lower bound, middle, upper bound.

    Attributes:
        device: of the workers.
        kind: of the workers; one of them, if they differ.
        precision: chosen.
        workers: number.
        slots: blocks in flight on all workers.
        halos: of each network, voxels (z, y, x).
        tiles: of each network, voxels (z, y, x).
        batches: tiles per forward pass, of each network.
        flops_per_voxel: of the map, with what is computed for halos.
        sampled: blocks that were measured.
        kvoxel_s_of_a_worker: thousands of voxels per second.
        seconds_a_block: of a worker.
        seconds_to_start: from the connection to the workers to the first block, without what is cached for the run.
        seconds_for_the_run: of all workers, from the first block to the last.
        seconds_interval: of these.
        worker_hours: that workers are held, with the start.
        bytes_stored: of the map, levels included, as stored.
        blocks_a_second: of all workers.
        block_for_the_driver: a larger block, if workers would end more in a second than one driver marks.
        predicted_peak_bytes: of a worker's main memory.
        measured_peak_bytes: likewise.
        predicted_gpu_peak_bytes: of a worker's GPU.
        measured_gpu_peak_bytes: likewise.
    """

    device: Device
    kind: str
    precision: Precision
    workers: int
    slots: int
    halos: tuple[Zyx, ...]
    tiles: tuple[Zyx, ...]
    batches: tuple[int, ...]
    flops_per_voxel: int
    sampled: int
    kvoxel_s_of_a_worker: float
    seconds_a_block: float
    seconds_to_start: float
    seconds_for_the_run: float
    seconds_interval: tuple[float, float, float]
    worker_hours: tuple[float, float, float]
    bytes_stored: int
    blocks_a_second: float
    block_for_the_driver: Zyx | None
    predicted_peak_bytes: int
    measured_peak_bytes: int
    predicted_gpu_peak_bytes: int
    measured_gpu_peak_bytes: int


def calibrate(
    spec: RunSpec, recorded: RunRecord | None, progress: Progress, prices: Prices | None = None
) -> tuple[RunEstimate, Calibration]:
    """Resolve a run, compute a sample of its blocks, and extrapolate to all.

    Args:
        spec: the run.
        recorded: the record of the run that it resumes.
        progress: receives what is measured.
        prices: a price table; one that lacks the workers' kinds is refused before a block is computed.

    Raises:
        VolsegError: the run would be refused, a block fails, or all that were tried are empty.
    """
    if spec.cluster != "serial":
        progress.stage("waiting for workers")
    gpus = visible_gpus(spec.device)
    with connect(spec.cluster, spec.workers, gpus, spec.tls, progress.note) as executor, restored_heap(executor):
        started = time.monotonic()
        refuse_other_versions(executor, progress)
        record, constants = resolve_run(spec, recorded, executor, progress, samples=_SECTIONS)
        to_start = time.monotonic() - started
        if prices is not None:
            for kind in executor.run_on_all(worker_kind, engine_of(record)):
                prices.of_worker(kind)
        settings, entries = record.settings, record.models
        device: Device = "cpu" if settings.device == "any" else settings.device
        load = replace(spec.load, precision=settings.precision, device=device, slots=executor.slots_per_worker)
        plans: list[MemoryPlan] = executor.run_on_one(plan_networks, record, spec.model_files, load)
        executor.run_on_all(reset_peak_memory)
        trial = try_blocks(spec, record, constants, executor, progress)
        measured = [max(peaks) for peaks in zip(*executor.run_on_all(peak_memory, device), strict=True)]
        workers, slots = len(executor.workers), executor.slots
    plan = spec.plan.with_halos(tuple(entry.halo for entry in entries))
    resolved = replace(spec, plan=plan, measures_halo=False)
    tilings = [entry.tiling for entry in entries]
    estimate = estimate_run(resolved, recorded, tilings)
    seconds = run_seconds(trial, estimate.blocks_to_do, record.planned_coarser, slots)
    a_block = float(np.mean(trial.seconds)) * workers / slots
    low, middle, high = (workers * (value + to_start) / 3600 for value in seconds)
    return estimate, Calibration(
        device=device,
        kind=trial.kind,
        precision=settings.precision,
        workers=workers,
        slots=slots,
        halos=tuple(entry.halo for entry in entries),
        tiles=tuple(entry.tile for entry in entries),
        batches=tuple(entry.batch for entry in entries),
        flops_per_voxel=flops_per_voxel(resolved, tilings),
        sampled=len(trial.seconds),
        kvoxel_s_of_a_worker=round(trial.voxels / a_block / 1e3, 1),
        seconds_a_block=round(a_block, 3),
        seconds_to_start=round(to_start, 1),
        seconds_for_the_run=round(seconds[1], 1),
        seconds_interval=seconds,
        worker_hours=(low, middle, high),
        bytes_stored=round(float(np.mean(trial.bytes)) * estimate.blocks_to_do),
        blocks_a_second=round(slots / float(np.mean(trial.seconds)), 1),
        block_for_the_driver=block_for_the_driver(
            record.grid.block, record.grid.shape, slots / float(np.mean(trial.seconds))
        ),
        predicted_peak_bytes=max(plan.host_peak for plan in plans),
        measured_peak_bytes=measured[0],
        predicted_gpu_peak_bytes=max(plan.device_peak for plan in plans),
        measured_gpu_peak_bytes=measured[1],
    )


def block_for_the_driver(block: Zyx, shape: Zyx, rate: float) -> Zyx | None:
    """A block so large that one driver keeps up with all workers; None if it does so anyway.

    Args:
        block: of the run, in voxels.
        shape: of the volume, in voxels.
        rate: blocks that all workers end in a second.

    >>> block_for_the_driver((16, 64, 64), (1000, 9000, 9000), 30_000), block_for_the_driver((1, 8, 8), (1, 8, 8), 1e5)
    ((16, 128, 128), None)
    """
    larger = list(block)
    while rate * prod(block) / prod(larger) > _MOST_BLOCKS_A_SECOND:
        sides = [(larger[axis], -axis) for axis in range(3) if larger[axis] < shape[axis]]
        lateral = [side for side in sides if side[1]]
        if not sides:
            return None
        larger[-min(lateral or sides)[1]] *= 2
    return None if tuple(larger) == block else to_zyx(larger)


def run_seconds(trial: Trial, blocks: int, coarser: int, slots: int) -> tuple[float, float, float]:
    """Seconds of a run, with the interval that is to hold four runs of five.

    To the mean of the blocks comes what each worker's first blocks take longer, once. The interval is that of the mean
    of the sampled blocks (Student's t), the spread of the run's own blocks, and a margin for the drift of a machine's
    speed.

    Args:
        trial: what was measured.
        blocks: of level 0.
        coarser: blocks of coarser levels.
        slots: blocks in flight at once.

    >>> [round(value) for value in run_seconds(Trial((9.0, 10.0, 11.0), (13.0,), (), (1,), 1, "cpu"), 100, 0, 2)]
    [388, 503, 618]
    """
    from scipy.special import stdtrit  # noqa: PLC0415 - takes as long as the rest of the command line

    count, mean = len(trial.seconds), float(np.mean(trial.seconds))
    deviation = float(np.std(trial.seconds, ddof=1)) if count > 1 else mean
    quantile = float(stdtrit(max(1, count - 1), (1 + CONFIDENCE) / 2))
    relative = quantile * deviation / mean * sqrt(1 / count + 1 / max(1, blocks))
    above = coarser * float(np.mean(trial.coarser_seconds)) / slots if trial.coarser_seconds else 0.0
    loading = max(0.0, float(np.mean(trial.first_seconds)) - mean) if trial.first_seconds else 0.0
    seconds = ceil(blocks / slots) * mean + above + loading
    half = sqrt(relative**2 + _DRIFT**2)
    return seconds * max(0.0, 1 - half), seconds, seconds * (1 + half)


def plan_networks(record: RunRecord, model_files: tuple[str, ...], load: Load) -> list[MemoryPlan]:
    """The memory plan of each network of a run; runs on a worker."""
    from volseg.models.model import load_shared_model  # noqa: PLC0415 - the driver imports this module without torch

    networks: list[Any] = [load_shared_model(file).network for file in model_files]
    weights = sum(parameter.numel() for network in networks for parameter in network.parameters())
    return [
        plan_memory(network, record.network_grid, entry.tiling, replace(load, batch=entry.batch), weights)
        for network, entry in zip(networks, record.models, strict=True)
    ]
