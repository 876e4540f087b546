"""The worker's side of a run: open its pipeline once, then process any block by number.

Only the number and a `RunRef` cross from the driver to a worker; all else is read from the target's run record.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from volseg.cluster import Executor, SerialExecutor
from volseg.errors import MemoryPlanError, VolsegError
from volseg.inference import Engine, Load, device_here, device_kind, open_predictor, worker_info, worker_kind
from volseg.malloc import release_heap, retain_heap, trim
from volseg.pipeline import EMPTY, BlockPipeline, BlockReport, EnsembleMember, process_block
from volseg.prediction.absence import CheckedSource, ChunkRule
from volseg.prediction.autotune.guard import check_on_sample
from volseg.prediction.autotune.probe import ProbeSpec
from volseg.prediction.sink import FencedSink, VolumeSink, read_own_record
from volseg.storage import (
    REPEATS,
    ObjectPath,
    Readable,
    RunRecord,
    VolumeRef,
    lease_watch,
    open_pyramid,
    read_census,
    read_table,
    target_path,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from volseg.ops import Statistics
    from volseg.prediction.source import MissingChunks
    from volseg.storage import Pyramid

_CACHED_RUNS = 2
_pipelines: dict[RunRef, tuple[BlockPipeline, Readable, ChunkRule]] = {}
_opening = threading.Lock()
_scarce = threading.Lock()
"""Held by a block that is tried again after memory ran out: of such blocks a process computes one at a time."""


@dataclass(frozen=True, slots=True)
class RunRef:
    """Reference to a run, in a few bytes.

    Attributes:
        target: path of the target, whose attributes hold the run record.
        digest: of that record.
        source: the volume, as the driver opened it.
        models: paths of the model files, likewise.
        missing_chunks: what the user states of chunks that the source lacks.
    """

    target: str
    digest: str
    source: VolumeRef
    models: tuple[str, ...]
    missing_chunks: MissingChunks = None


def compute_block(number: int, reference: RunRef) -> BlockReport:
    """Process one block of a run, in the calling process; once more, alone, if memory runs out.

    Raises:
        MemoryPlanError: memory ran out again; another worker may have more.
        VolsegError: as `process_block`.
    """
    try:
        return _compute_block(number, reference)
    except MemoryError as error:
        if isinstance(error, VolsegError):
            raise
    with _scarce:
        trim()
        try:
            return _compute_block(number, reference)
        except MemoryError as error:
            if isinstance(error, VolsegError):
                raise
            raise MemoryPlanError(
                f"block {number}: this worker ran out of main memory twice ({error!r}); give a "
                "smaller --block or --tile, or fewer --workers"
            ) from None


def _compute_block(number: int, reference: RunRef) -> BlockReport:
    pipeline, volume, rule = pipeline_of(reference)
    if number >= pipeline.grid.count:
        return replace(_make_coarser(number, reference, pipeline.kind), repeats=REPEATS.take())
    source = CheckedSource(volume, rule)
    report = process_block(number, replace(pipeline, source=source))
    return replace(report, absent=len(source.absent), repeats=REPEATS.take())


def _make_coarser(number: int, reference: RunRef, kind: str) -> BlockReport:
    """Make a block of a coarser level of the finer one; without a shard if it is 0 everywhere."""
    started, path = time.perf_counter(), target_path(reference.target)
    pyramid = _pyramid_of(reference.target, reference.digest)
    targets, box = pyramid.targets_of(number)
    sink = FencedSink(VolumeSink(targets), path, reference.digest)
    volumes = pyramid.downsample(number)
    if not any(volume.any() for volume in volumes):
        sink.clear(box)
        return BlockReport(number, 0, "", time.perf_counter() - started, 0.0, skipped=EMPTY, kind=kind)
    digest, stored, file_digest = sink.write(box, volumes)
    return BlockReport(number, 0, digest, time.perf_counter() - started, 0.0, "", stored, file_digest, kind)


@lru_cache(maxsize=_CACHED_RUNS)
def _pyramid_of(target: str, digest: str) -> Pyramid:
    return open_pyramid(target_path(target), read_own_record(target_path(target), digest))


def pipeline_of(reference: RunRef) -> tuple[BlockPipeline, Readable, ChunkRule]:
    """The pipeline of a run, its source, and which chunks that may lack; opened at its first block and cached."""
    with _opening:
        if reference not in _pipelines:
            while len(_pipelines) >= _CACHED_RUNS:
                _pipelines.pop(next(iter(_pipelines)))
            _pipelines[reference] = open_pipeline(reference)
        return _pipelines[reference]


def open_pipeline(reference: RunRef) -> tuple[BlockPipeline, Readable, ChunkRule]:
    """Open source, networks and sink of a run; sets malloc up for its forward passes.

    Raises:
        TargetError: the target holds another run.
        VolsegError: this kind of worker computes something else than the network that was trained.
    """
    path = target_path(reference.target)
    record = read_own_record(path, reference.digest)
    if record.settings.device == "cuda":
        worker_info("cuda")  # one without a GPU that has joined meanwhile
    if isinstance(path, ObjectPath):
        lease_watch(path, reference.digest).refresh()
    release_heap()  # fragments that measurements left
    retain_heap()
    with_std = record.settings.uncertainty
    targets = open_pyramid(path, record).finest
    sink = FencedSink(VolumeSink(targets), path, reference.digest)
    tables = [read_table(targets[0].journal, entry.statistics) for entry in record.models]
    check_kind(record, reference, tables)
    members = ensemble_of(record, reference.models, tables)
    digest = record.source.chunk_census
    rule = ChunkRule(read_census(targets[0].journal, digest) if digest else None, reference.missing_chunks)
    volume, kind = reference.source.open(), worker_kind(engine_of(record))
    pipeline = BlockPipeline(record.grid, members, volume, sink, with_std=with_std, kind=kind, output=record.output)
    return pipeline, volume, rule


def check_kind(record: RunRecord, reference: RunRef, statistics: Sequence[Statistics]) -> None:
    """Check the networks on a kind of worker that the record does not name, on the record's own sample.

    Raises:
        VolsegError: as `NetworkCheck.fault` says.
    """
    engine = engine_of(record)
    kind, item = worker_kind(engine), np.dtype(record.source.dtype).itemsize
    load = Load(1, engine.precision, item, 1, engine.device)
    for entry, file, constants in zip(record.models, reference.models, statistics, strict=True):
        if entry.activations is None or kind in entry.activations.kinds:
            continue
        probe = ProbeSpec(
            reference.source, file, entry.digest, entry.footprint, constants, engine, record.settings.classes, load
        )
        check = check_on_sample(probe, record.network_grid)
        fault = check.fault(file) if check is not None else None
        if fault is not None:
            raise fault


def ensemble_of(
    record: RunRecord, model_files: tuple[str, ...], statistics: Sequence[Statistics]
) -> tuple[EnsembleMember, ...]:
    """The networks of a run, optimised for this process.

    Args:
        record: of the run.
        model_files: paths of its models.
        statistics: constants of each network's input.
    """
    from volseg.models.model import clear_model_cache  # noqa: PLC0415 - the driver imports this module without torch

    engine, settings = engine_of(record), record.settings
    entries = [entry.of_kind(device_kind(engine.device)) for entry in record.models]
    single = len(record.models) == 1 and settings.orientations == "one" and not settings.uncertainty
    is_final = single and settings.map is None
    predictors = [
        open_predictor(
            file,
            entry.digest,
            entry.tiling,
            replace(engine, batch=entry.batch, compiled=entry.compiled),
            settings.classes,
            as_bytes=is_final,
        )
        for entry, file in zip(entries, model_files, strict=True)
    ]
    clear_model_cache()
    return tuple(
        EnsembleMember(entry.tiling, constants, predictor, predictor)
        for entry, constants, predictor in zip(entries, statistics, predictors, strict=True)
    )


@contextmanager
def restored_heap(executor: Executor) -> Iterator[None]:
    """Restore malloc after a serial run: the process is the caller's."""
    try:
        yield
    finally:
        if isinstance(executor, SerialExecutor):
            release_heap()


def engine_of(record: RunRecord) -> Engine:
    """How the networks of a run are run, one tile at a time."""
    settings = record.settings
    return Engine(device_here(settings.device), settings.precision, 1, settings.threads, settings.orientations)
