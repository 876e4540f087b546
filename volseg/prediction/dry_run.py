"""What a run would do, in numbers, before anything is started: `predict --dry-run`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, prod
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Zyx, ZyxFloat, count_chunk_decodes, format_zyx, pyramid_levels, read_amplification
from volseg.cluster import SLOTS, visible_gpus
from volseg.cluster.dask_cluster import default_workers
from volseg.config.cluster import BatchConfig
from volseg.errors import MemoryPlanError
from volseg.inference import choose_precision, worker_info
from volseg.inference.memory.plan import block_bytes
from volseg.prediction.autotune.tile import choose_tiles
from volseg.prediction.autotune.tuner import largest_batch, tilings_of
from volseg.prediction.resume import done_blocks
from volseg.storage import ObjectPath, is_object_url, open_target, resampling_of, stored_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.blocks import Tiling
    from volseg.inference import Device, Precision
    from volseg.prediction.prepare import RunSpec
    from volseg.storage import RunRecord

_UNLIMITED = (1 << 62, 1 << 62)
"""Unlimited memory, of the host and of a GPU."""


@dataclass(frozen=True)
class RunEstimate:
    """What a run would do. Voxel counts are of the source's blocks and halos, tiles aside.

    Attributes:
        source: location of the volume.
        shape: of the map (z, y, x).
        dtype: of the volume.
        voxel_nm: size of the map's voxels (z, y, x) in nanometres; None if not known.
        resampled: from which voxels and how, if it is read at another size than it is stored.
        translation_nm: of its first voxel, likewise.
        target: path of the map.
        models: names.
        models_voxel_nm: voxel size of each model's training data, (z, y, x) in nanometres.
        orientations: in which each tile is predicted.
        uncertainty: whether the standard deviation is written too.
        classes: written.
        estimates_averaged: per voxel and class.
        blocks: of the run in all.
        block: voxels (z, y, x).
        shard: voxels (z, y, x).
        chunk: voxels (z, y, x).
        levels: voxels (z, y, x) of level 0 that a voxel of each coarser level is made of.
        halo: voxels (z, y, x).
        halo_is: whether that is final.
        region: z0:z1,y0:y1,x0:x1.
        voxels_to_write: of all classes.
        read_for_each_written: voxels of a read box for each of its write box.
        mask: location; None without one.
        blocks_outside_the_mask: not computed.
        blocks_done_before: by the run that is resumed.
        blocks_to_do: left.
        read_amplification: how often a chunk of the source is decoded.
        bytes_to_read: of all blocks, before compression.
        bytes_to_write: likewise.
        requests_to_read: of a source in a store: chunks, each as often as it is decoded; 0 for a file system.
        requests_to_write: of a target in a store: shards of all levels; 0 for a file system.
        bytes_of_blocks_in_flight: main memory of the blocks that a worker holds at once, without the network.
    """

    source: str
    shape: Zyx
    dtype: str
    voxel_nm: ZyxFloat | None
    resampled: str | None
    translation_nm: ZyxFloat | None
    target: str
    models: tuple[str, ...]
    models_voxel_nm: tuple[ZyxFloat, ...]
    orientations: str
    uncertainty: bool
    classes: tuple[str, ...]
    estimates_averaged: int
    blocks: int
    block: Zyx
    shard: Zyx
    chunk: Zyx
    levels: tuple[Zyx, ...]
    halo: Zyx
    halo_is: str
    region: str
    voxels_to_write: int
    read_for_each_written: float
    mask: str | None
    blocks_outside_the_mask: int
    blocks_done_before: int
    blocks_to_do: int
    read_amplification: float
    bytes_to_read: int
    bytes_to_write: int
    requests_to_read: int
    requests_to_write: int
    bytes_of_blocks_in_flight: int


@dataclass(frozen=True)
class PeakEstimate:
    """Predicted work per voxel, and peak memory of a worker.

    Attributes:
        flops_per_voxel: of the map, with what is computed for halos; None if no tile fits.
        predicted_peak_bytes: of main memory; None if no tile fits.
        predicted_gpu_peak_bytes: of the GPU, 0 on a CPU; None if no tile fits.
        peak_is: of which worker, or why there is none.
    """

    flops_per_voxel: int | None
    predicted_peak_bytes: int | None
    predicted_gpu_peak_bytes: int | None
    peak_is: str


def estimate_run(spec: RunSpec, recorded: RunRecord | None, tilings: Sequence[Tiling] = ()) -> RunEstimate:
    """Estimate what a run would do.

    Args:
        spec: the run.
        recorded: the record of the run that it resumes.
        tilings: how a worker cuts blocks for each network; by default those of the record, or one tile per block.
    """
    plan, mask, volume = spec.plan, spec.mask, spec.volume
    grid, seen = plan.grid, plan.network_grid
    largest = seen.largest_box
    done = 0
    if recorded is not None:
        accepts = spec.missing_chunks == "fill" or bool(recorded.source.chunk_census)
        marked = done_blocks(open_target(spec.target).journal, recorded.pyramid, accepts_missing=accepts)
        done = len(marked.blocks)
    planned = mask.count if mask else grid.count
    if not tilings:
        tilings = [options[0] for options in tilings_of(plan, recorded.models if recorded else None)]
    decodes = count_chunk_decodes(seen, tilings, volume.chunk)
    shards = shards_of(grid.block, plan.shard, len(plan.levels)) * (2 if spec.uncertainty else 1)
    in_flight = max(block_bytes(seen, tiling, spec.load)[0] for tiling in tilings) * _slots(spec)
    return RunEstimate(
        source=volume.location,
        shape=grid.shape,
        dtype=volume.dtype,
        voxel_nm=spec.map_place.voxel_nm,
        resampled=_resampled(spec),
        translation_nm=spec.map_place.translation_nm,
        target=str(spec.target),
        models=tuple(model.card.name for model in spec.models),
        models_voxel_nm=tuple(model.card.voxel_nm for model in spec.models),
        orientations=spec.orientations,
        uncertainty=spec.uncertainty,
        classes=spec.classes,
        estimates_averaged=spec.load.estimates,
        blocks=grid.count,
        block=grid.block,
        shard=plan.shard,
        chunk=plan.chunk,
        levels=tuple(level.scale for level in pyramid_levels(grid.shape, plan.shard, plan.chunk, plan.levels)),
        halo=plan.halo,
        halo_is="an upper bound: measured on a worker when the run starts" if spec.measures_halo else "final",
        region=str(grid.region),
        voxels_to_write=grid.region.voxels * len(spec.classes),
        read_for_each_written=round(largest.grow(plan.halo).voxels / largest.voxels, 2),
        mask=mask.volume.location if mask else None,
        blocks_outside_the_mask=grid.count - planned,
        blocks_done_before=done,
        blocks_to_do=planned - done,
        read_amplification=round(read_amplification(seen, tilings, volume.chunk), 2),
        bytes_to_read=decodes * prod(stored_volume(volume).chunk) * np.dtype(volume.dtype).itemsize,
        bytes_to_write=grid.region.voxels * len(spec.classes) * (2 if spec.uncertainty else 1),
        requests_to_read=decodes if is_object_url(volume.location) else 0,
        requests_to_write=ceil((planned - done) * shards) if isinstance(spec.target, ObjectPath) else 0,
        bytes_of_blocks_in_flight=in_flight,
    )


def shards_of(block: Zyx, shard: Zyx, levels: int) -> float:
    """Shards of a block of level 0, with its part of those of coarser levels.

    >>> shards_of((16, 1024, 1024), (16, 512, 512), 0), shards_of((16, 1024, 1024), (16, 1024, 1024), 2)
    (4, 2.25)
    """
    own = prod(-(-b // s) for b, s in zip(block, shard, strict=True))
    return own * (1 + bool(levels) + sum(0.25**level for level in range(1, levels)))


def estimate_peak_memory(spec: RunSpec, recorded: RunRecord | None) -> PeakEstimate:
    """Predict the peak memory of a worker on this machine; loads torch and the networks.

    A halo that is still to be measured counts as large as it may get.

    Raises:
        ModelError: a model file does not hold its network.
        ConfigError: the run would be refused on this machine because of its precision.
    """
    models = recorded.models if recorded else None
    device, precision, free = _local_worker(spec, recorded)
    load = replace(spec.load, precision=precision, device=device, slots=_slots(spec), batch=largest_batch(models))
    try:
        tiles = choose_tiles(spec.model_files, spec.plan.network_grid, tilings_of(spec.plan, models), load, free)
    except MemoryPlanError as error:
        return PeakEstimate(None, None, None, f"too much for a worker on this machine: {error}")
    cores = " and ".join(sorted({format_zyx(tile.core) for tile in tiles}))
    tilings = [
        replace(options[0], core=tile.core) for options, tile in zip(tilings_of(spec.plan, models), tiles, strict=True)
    ]
    return PeakEstimate(
        flops_per_voxel=flops_per_voxel(spec, tilings),
        predicted_peak_bytes=max(tile.memory.host_peak for tile in tiles),
        predicted_gpu_peak_bytes=max(tile.memory.device_peak for tile in tiles),
        peak_is=f"of a worker that computes in {precision} on {device.upper()}, with tiles of {cores}",
    )


def flops_per_voxel(spec: RunSpec, tilings: Sequence[Tiling]) -> int:
    """Floating-point operations for each voxel of the map, with those for halos; loads torch.

    Args:
        spec: the run.
        tilings: how a worker cuts blocks for each network.
    """
    from volseg.models.describe import describe_network  # noqa: PLC0415 - loads torch

    flops = 0.0
    for model, tiling in zip(spec.models, tilings, strict=True):
        flops += describe_network(model.card.network, model.card.arguments).flops_per_voxel * tiling.overhead
    return round(flops * spec.load.estimates / len(spec.models) / spec.load.enlargement)


def _resampled(spec: RunSpec) -> str | None:
    """How the source is read at another voxel size, and whether the map has the source's; None if it is not."""
    resampling = resampling_of(spec.volume)
    return f"{resampling}{', and the map back' if spec.map else ''}" if resampling else None


def _local_worker(spec: RunSpec, recorded: RunRecord | None) -> tuple[Device, Precision, tuple[int, int]]:
    """How a worker on this machine would compute, and the bytes that it may use of main memory and of a GPU's.

    The free memory of workers elsewhere is unknown, and that of GPUs that are not visible here.
    """
    settings = recorded.settings if recorded else None
    requested = settings.device if settings else spec.device
    precision = settings.precision if settings and spec.precision == "auto" else spec.precision
    gpus = visible_gpus(requested)
    if requested == "cuda" and not gpus and spec.cluster not in ("serial", "local"):
        return "cuda", "float16" if precision == "auto" else precision, _UNLIMITED
    worker = worker_info(requested)
    is_name = isinstance(spec.cluster, str)
    count = {"serial": 1, "local": spec.workers or default_workers(gpus)}.get(spec.cluster) if is_name else None
    precision = choose_precision(precision, [worker], on_gpus="float16")
    if isinstance(spec.cluster, BatchConfig):
        job = spec.cluster
        return worker.device, precision, (job.memory // max(1, job.gpus), _UNLIMITED[1])
    if count is None:
        return worker.device, precision, _UNLIMITED
    host = min(worker.memory // count, worker.job_memory // count, worker.own_memory)
    return worker.device, precision, (host, worker.device_memory // ceil(count / max(1, len(gpus))))


def _slots(spec: RunSpec) -> int:
    return 1 if spec.cluster == "serial" else SLOTS
