"""Time and memory of a run, measured on its own workers: `predict --dry-run --calibrate`.

cluster -> halo, tiles, precision as the run would choose them -> on one worker, as many blocks at once as it has
slots, computed and not written -> seconds, memory. Nothing is written to the target.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING, Any

from volseg.cluster import Progress, connect, refuse_other_versions, visible_gpus
from volseg.errors import BlockError
from volseg.inference import Device, Load, Precision, peak_memory, reset_peak_memory
from volseg.inference.memory.plan import MemoryPlan, plan_memory
from volseg.malloc import release_heap, retain_heap
from volseg.pipeline import BlockPipeline, process_block
from volseg.prediction.dry_run import RunEstimate, estimate_run, flops_per_voxel
from volseg.prediction.resolve import resolve_run
from volseg.prediction.sink import NullSink
from volseg.prediction.worker import ensemble_of, restored_heap
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from volseg.blocks import Box, Zyx
    from volseg.ops import Statistics
    from volseg.prediction.prepare import RunSpec
    from volseg.storage import Readable, RunRecord, VolumeRef

_SECTIONS = 8
"""Sections from which the constants are computed: what they are does not change time and memory."""
_CANDIDATES = 24
"""Blocks among which those that are not empty are searched."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What some blocks took on one worker.

    Attributes:
        seconds: per block, of those that were computed at once.
        voxels: of a block.
        predicted: peak bytes of the worker by plan, in main memory and on its GPU.
        measured: peak bytes, likewise; 0 if the system does not report them.
    """

    seconds: float
    voxels: int
    predicted: tuple[int, int]
    measured: tuple[int, int]


@dataclass(frozen=True)
class Calibration:
    """What a run would take, by measurement.

    Attributes:
        device: of the workers.
        precision: chosen.
        workers: number.
        slots: blocks in flight on all workers.
        halos: of each network, voxels (z, y, x).
        tiles: of each network, voxels (z, y, x).
        batches: tiles per forward pass, of each network.
        flops_per_voxel: of the map, with what is computed for halos.
        kvoxel_s_of_a_worker: thousands of voxels per second.
        seconds_a_block: of a worker.
        seconds_for_the_run: of all workers.
        predicted_peak_bytes: of a worker's main memory.
        measured_peak_bytes: likewise.
        predicted_gpu_peak_bytes: of a worker's GPU.
        measured_gpu_peak_bytes: likewise.
    """

    device: Device
    precision: Precision
    workers: int
    slots: int
    halos: tuple[Zyx, ...]
    tiles: tuple[Zyx, ...]
    batches: tuple[int, ...]
    flops_per_voxel: int
    kvoxel_s_of_a_worker: float
    seconds_a_block: float
    seconds_for_the_run: float
    predicted_peak_bytes: int
    measured_peak_bytes: int
    predicted_gpu_peak_bytes: int
    measured_gpu_peak_bytes: int


def calibrate(spec: RunSpec, recorded: RunRecord | None, progress: Progress) -> tuple[RunEstimate, Calibration]:
    """Resolve a run, compute a few of its blocks without writing them, and extrapolate to all.

    Args:
        spec: the run.
        recorded: the record of the run that it resumes.
        progress: receives what is measured.

    Raises:
        VolsegError: the run would be refused, or all candidate blocks are empty.
    """
    if spec.cluster != "serial":
        progress.stage("waiting for workers")
    gpus = visible_gpus(spec.device)
    with connect(spec.cluster, spec.workers, gpus, spec.tls, progress.note) as executor, restored_heap(executor):
        refuse_other_versions(executor, progress)
        record, constants = resolve_run(spec, recorded, executor, progress, samples=_SECTIONS)
        settings, entries = record.settings, record.models
        load = replace(spec.load, precision=settings.precision, device=settings.device, slots=executor.slots_per_worker)
        numbers = list(islice(_from_the_middle(spec), _CANDIDATES))
        progress.stage(f"calibrating with {counted(load.slots, 'block')} at once on one worker")
        measurement: Measurement = executor.run_on_one(
            measure_blocks, record, spec.source, spec.model_files, constants.tables, numbers, load
        )
        workers, slots = len(executor.workers), executor.slots
    plan = spec.plan.with_halos(tuple(entry.halo for entry in entries))
    resolved = replace(spec, plan=plan, measures_halo=False)
    tilings = [entry.tiling for entry in entries]
    estimate = estimate_run(resolved, recorded, tilings)
    return estimate, Calibration(
        device=settings.device,
        precision=settings.precision,
        workers=workers,
        slots=slots,
        halos=tuple(entry.halo for entry in entries),
        tiles=tuple(entry.tile for entry in entries),
        batches=tuple(entry.batch for entry in entries),
        flops_per_voxel=flops_per_voxel(resolved, tilings),
        kvoxel_s_of_a_worker=round(measurement.voxels / measurement.seconds / 1e3, 1),
        seconds_a_block=round(measurement.seconds, 3),
        seconds_for_the_run=round(total_seconds(estimate.blocks_to_do, workers, measurement.seconds), 1),
        predicted_peak_bytes=measurement.predicted[0],
        measured_peak_bytes=measurement.measured[0],
        predicted_gpu_peak_bytes=measurement.predicted[1],
        measured_gpu_peak_bytes=measurement.measured[1],
    )


def total_seconds(blocks: int, workers: int, seconds: float) -> float:
    """Time of some blocks on several workers; the last ones may leave some workers idle.

    >>> total_seconds(5, 2, 1.5), total_seconds(1, 8, 1.5)
    (4.5, 1.5)
    """
    return ceil(blocks / workers) * seconds


def _from_the_middle(spec: RunSpec) -> Iterator[int]:
    """The planned blocks of a run, from the middle of the region on."""
    grid, mask = spec.plan.grid, spec.mask
    order = (number % grid.count for number in range(grid.count // 2, grid.count // 2 + grid.count))
    return (number for number in order if mask is None or number in mask)


def measure_blocks(
    record: RunRecord,
    source: VolumeRef,
    model_files: tuple[str, ...],
    statistics: Sequence[Statistics],
    numbers: Sequence[int],
    load: Load,
) -> Measurement:
    """Compute as many blocks at once as a worker has slots, and write nothing; runs on a worker.

    Args:
        record: of the run.
        source: the volume.
        model_files: paths of the models.
        statistics: constants of each network's input.
        numbers: candidates; the first that are not empty are computed.
        load: of the worker.

    Raises:
        BlockError: all candidates are empty.
    """
    volume = source.open()
    output = record.output
    boxes = ((n, record.grid.box(n)) for n in numbers)
    seen = ((n, output.network_box(box) if output else box) for n, box in boxes)
    blocks = list(islice((number for number, box in seen if _has_contrast(volume, box)), load.slots))
    if not blocks:
        raise BlockError(
            f"of {counted(len(numbers), 'block')} tried, each holds a single grey value; give --roi or --mask to "
            "select an image"
        )
    plans = _plans(record, model_files, load)
    release_heap()  # as `open_pipeline` does
    retain_heap()
    members, with_std = ensemble_of(record, model_files, statistics), record.settings.uncertainty
    pipeline = BlockPipeline(record.grid, members, volume, NullSink(), with_std=with_std, output=output)
    reset_peak_memory()
    started = time.perf_counter()
    with ThreadPoolExecutor(len(blocks)) as pool:
        reports = list(pool.map(partial(process_block, pipeline=pipeline), blocks))
    seconds = time.perf_counter() - started
    predicted = max(plan.host_peak for plan in plans), max(plan.device_peak for plan in plans)
    voxels = max(report.voxels for report in reports)
    return Measurement(seconds / len(blocks), voxels, predicted, peak_memory(record.settings.device))


def _has_contrast(volume: Readable, box: Box) -> bool:
    """Whether the voxels of a box hold more than one grey value."""
    voxels = volume.read(box)
    return bool(voxels.min() != voxels.max())


def _plans(record: RunRecord, model_files: tuple[str, ...], load: Load) -> list[MemoryPlan]:
    """The memory plan of each network of a run, on this worker."""
    from volseg.models.model import load_shared_model  # noqa: PLC0415 - the driver imports this module without torch

    networks: list[Any] = [load_shared_model(file).network for file in model_files]
    weights = sum(parameter.numel() for network in networks for parameter in network.parameters())
    return [
        plan_memory(network, record.network_grid, entry.tiling, replace(load, batch=entry.batch), weights)
        for network, entry in zip(networks, record.models, strict=True)
    ]
