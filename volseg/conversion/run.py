"""A conversion, from a checked specification to a finished volume.

specification -> cluster -> census of the source's chunks -> record -> empty volume beside its path
-> blocks that are not done -> marks -> the volume appears under its path
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from volseg.blocks import BlockSet
from volseg.cluster import (
    MIN_FAILED,
    BlockOrder,
    FailurePolicy,
    connect,
    refuse_other_versions,
    run_blocks,
    take_failure,
)
from volseg.conversion.marking import DoneBefore, MarkWriter
from volseg.conversion.prepare import complete_conversion, refuse_other
from volseg.conversion.worker import ConversionRef, convert_block, forget, open_writer
from volseg.errors import TargetLostError
from volseg.storage import (
    REPEATS,
    FailureLog,
    Journal,
    ObjectPath,
    SourceEntry,
    census_to_take,
    recorded_census,
    rule_of,
    source_marks,
    volume_fingerprint,
)
from volseg.storage.conversion_record import ConversionRecord, refuse_other_conversion
from volseg.storage.unfinished import begin, finish, held, refuse_other_owner, unfinished, work_folder
from volseg.version import __version__

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from volseg.cluster import Attempt, BlockTask, Executor, Progress
    from volseg.conversion.prepare import ConversionSpec
    from volseg.storage import ChunkRule, TargetPath


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Attributes:
        target: path of the volume.
        complete: whether every block is written, so that the volume is at its path.
        format: name of its format.
        shape: voxels along z, y, x.
        dtype: of a voxel.
        place: voxel size and translation, in words.
        scaling: how values changed, in words.
        levels: number of coarser levels.
        blocks: of level 0.
        already_done: blocks done before this start.
        done: blocks done in this start.
        failed: block numbers with the reason of each.
        voxels: written in this start.
        clipped: of these, how many lay outside the stated limits and got the nearest of them.
        chunks: of the source, a Zarr, that the conversion reads; 0 if it is none.
        chunks_absent: of these, or of a sample of them, how many the source lacked; they read as the fill value.
        unexplained: blocks that read chunks which neither a listing of the store nor the user said to be missing.
        bytes: of the blocks of this start, as stored.
        seconds: from the first block sent to the last completed.
        workers: number of blocks that each worker did.
        repeats: requests to the target's object store that were repeated.
    """

    target: str
    complete: bool
    format: str
    shape: tuple[int, int, int]
    dtype: str
    place: str
    scaling: str
    levels: int
    blocks: int
    already_done: int
    done: int
    failed: dict[int, str]
    voxels: int
    clipped: int
    chunks: int
    chunks_absent: int
    unexplained: int
    bytes: int
    seconds: float
    workers: dict[str, int]
    repeats: int = 0


def execute(spec: ConversionSpec, recorded: ConversionRecord | None, progress: Progress) -> Conversion:
    """Convert to the end.

    Args:
        spec: the conversion.
        recorded: the record of the one to resume; None for a new one.
        progress: receives the progress.

    Raises:
        VolsegError: the cluster, the source or the target refused, or the recorded conversion was another.
    """
    REPEATS.take()  # of an earlier run of this process
    if isinstance(spec.target, ObjectPath):
        progress.stage("taking the lease of the target; that of a run that died ends within a minute")
    with held(spec.target) as folder, _connect(spec, progress) as executor:
        refuse_other_versions(executor, progress)
        rule = _chunk_rule(spec, recorded, folder, progress)
        record = _record(spec, rule)
        if recorded is not None:
            refuse_other_conversion(recorded, record, str(spec.target))
            begun = unfinished(spec.target)
            now = complete_conversion(spec.target) if begun is None else begun[0]
            if now is None or now.digest != recorded.digest:
                raise TargetLostError(f"the conversion of {spec.target} was ended or replaced by another one meanwhile")
            if begun is None:
                return _nothing_done(spec, recorded)
        else:
            begin(spec.target, record, spec.overwrite, partial(_create, spec, record))
        for note in spec.notes if recorded is None else ():
            progress.note(note)
        return _run(spec, recorded or record, rule, executor, progress)


def _connect(spec: ConversionSpec, progress: Progress) -> AbstractContextManager[Executor]:
    if spec.cluster != "serial":
        progress.stage("waiting for workers")
    return connect(spec.cluster, spec.workers, (), spec.tls, progress.note)


def _create(spec: ConversionSpec, record: ConversionRecord, path: Path) -> None:
    name = spec.target.name.removesuffix(".zarr")
    spec.format.create(path, record.output, name, record.to_attributes())


def _chunk_rule(
    spec: ConversionSpec, recorded: ConversionRecord | None, folder: TargetPath, progress: Progress
) -> ChunkRule:
    """Count the chunks that the source lacks, before anything is read, and say how many."""
    if recorded is not None:
        census = recorded_census(spec.volume, recorded.source, spec.roi, folder)
        return rule_of(spec.volume, census, spec.missing_chunks, lambda line: None)
    progress.stage("looking for missing chunks")
    return rule_of(spec.volume, census_to_take(spec.volume, spec.roi), spec.missing_chunks, progress.note)


def _record(spec: ConversionSpec, rule: ChunkRule) -> ConversionRecord:
    volume, output, resampling = spec.volume, spec.output, spec.resampling
    source = SourceEntry(
        location=volume.location,
        shape=volume.shape,
        dtype=volume.dtype,
        voxel_nm=resampling.source_nm if resampling else output.scale if output.is_nm else None,
        identity=volume_fingerprint(volume),
        options=spec.options,
        marks=source_marks(volume.location),
        voxel_size_given=spec.voxel_size_given,
        **rule.fields,
    )
    return ConversionRecord(source=source, roi=spec.roi, output=output, resampling=resampling, version=__version__)


def _run(
    spec: ConversionSpec, record: ConversionRecord, rule: ChunkRule, executor: Executor, progress: Progress
) -> Conversion:
    folder, grid, pyramid = work_folder(spec.target), record.output.grid, record.output.pyramid
    reference = ConversionRef(str(spec.target), record.digest, spec.source, spec.missing_chunks)
    if rule.census is not None:
        rule.census.write(folder)
    writer = open_writer(spec.target, record.output)
    try:
        with Journal(folder, run=record.digest, is_locked=True) as journal:
            before = DoneBefore(folder, pyramid, accepts_missing=rule.explains)
            marking = MarkWriter(journal, writer, grid, before.lacking)
            planned = len(before.others) + pyramid.count - grid.count - len(before.coarser)
            progress.begin(planned)
            finest = chain(before.others, before.find_lost(writer, progress, planned))
            order = BlockOrder(finest, pyramid, BlockSet(before.numbers), before.coarser, count=planned)
            started = time.perf_counter()
            outcome = run_blocks(
                executor,
                order,
                partial(convert_block, reference=reference),
                order.tracking(marking),
                progress,
                on_failed=order.tracking_failures(partial(_watch, spec, record.digest, FailureLog(folder))),
                policy=FailurePolicy(max_failed=max(MIN_FAILED, grid.count // 100)),
            )
            seconds = time.perf_counter() - started
    finally:
        writer.close()
        forget(reference)
    unexplained = 0 if rule.explains else len(marking.lacking)
    is_complete = not (outcome.failed or unexplained or order.left)
    if is_complete:
        finish(spec.target, overwrite=spec.overwrite, refuse=partial(refuse_other, spec.format))
    return replace(
        _nothing_done(spec, record),
        complete=is_complete,
        already_done=len(before.numbers) - len(before.lost),
        done=outcome.done - marking.coarser,
        failed=outcome.failed,
        voxels=marking.voxels,
        clipped=marking.clipped,
        unexplained=unexplained,
        bytes=marking.bytes,
        seconds=seconds,
        workers=dict(marking.workers),
        repeats=marking.repeats + REPEATS.take(),
    )


def _watch(
    spec: ConversionSpec, digest: str, log: FailureLog, task: BlockTask, attempt: Attempt, given_up: bool
) -> None:
    """Look after a failed attempt whether target and source are still there."""
    refuse_other_owner(spec.target, digest)
    take_failure(task, attempt, given_up, spec.volume, log)


def _nothing_done(spec: ConversionSpec, record: ConversionRecord) -> Conversion:
    """The result of a conversion that is complete, and was before."""
    output = record.output
    return Conversion(
        target=str(spec.target),
        complete=True,
        format=output.format,
        shape=output.shape,
        dtype=output.dtype,
        place=str(output.place),
        scaling=str(record.rescale),
        levels=len(output.levels),
        blocks=output.grid.count,
        already_done=output.grid.count,
        done=0,
        failed={},
        voxels=0,
        clipped=0,
        chunks=record.source.chunks,
        chunks_absent=record.source.chunks_absent,
        unexplained=0,
        bytes=0,
        seconds=0.0,
        workers={},
    )
