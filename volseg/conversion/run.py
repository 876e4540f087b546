"""A conversion, from a checked specification to a finished volume.

specification -> cluster -> census of the source's chunks -> record -> empty volume beside its path
-> blocks that are not done -> marks -> the volume appears under its path
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from volseg.cluster import (
    MIN_FAILED,
    Attempt,
    BlockTask,
    FailurePolicy,
    connect,
    mark_of,
    refuse_other_versions,
    run_blocks,
    take_failure,
)
from volseg.conversion.prepare import refuse_other
from volseg.conversion.worker import ConversionRef, convert_block, forget
from volseg.errors import TargetError
from volseg.storage import (
    COMPUTED,
    FailureLog,
    Journal,
    SourceEntry,
    census_to_take,
    read_mark_table,
    recorded_census,
    rule_of,
    source_marks,
    volume_fingerprint,
)
from volseg.storage.conversion_record import ConversionRecord, refuse_other_conversion
from volseg.storage.unfinished import begin, finish, held, refuse_other_owner, unfinished, work_folder
from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from volseg.cluster import Executor, Progress
    from volseg.conversion.prepare import ConversionSpec
    from volseg.pipeline import BlockReport
    from volseg.storage import ChunkRule, MarkTable
    from volseg.storage.writers.base import Writer

_THREADS = 16


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
        blocks: of the conversion in all.
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
    """

    target: str
    complete: bool
    format: str
    shape: tuple[int, int, int]
    dtype: str
    place: str
    scaling: str
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


@dataclass
class _Counts:
    """What a driver counts of the blocks that are done."""

    lacking: set[int]
    voxels: int = 0
    clipped: int = 0
    bytes: int = 0


def execute(spec: ConversionSpec, recorded: ConversionRecord | None, progress: Progress) -> Conversion:
    """Convert to the end.

    Args:
        spec: the conversion.
        recorded: the record of the one to resume; None for a new one.
        progress: receives the progress.

    Raises:
        VolsegError: the cluster, the source or the target refused, or the recorded conversion was another.
    """
    if spec.cluster != "serial":
        progress.stage("waiting for workers")
    with held(spec.target) as folder, connect(spec.cluster, spec.workers, (), spec.tls) as executor:
        refuse_other_versions(executor, progress)
        rule = _chunk_rule(spec, recorded, folder, progress)
        record = _record(spec, rule)
        if recorded is not None:
            refuse_other_conversion(recorded, record, str(spec.target))
            if unfinished(spec.target) is None:
                return _summary(spec, recorded, recorded.output.grid.count)
        else:
            begin(folder, spec.target, record, spec.overwrite, partial(_create, spec, record))
        for note in spec.notes if recorded is None else ():
            progress.note(note)
        return _run(spec, recorded or record, rule, executor, progress)


def _create(spec: ConversionSpec, record: ConversionRecord, path: Path) -> None:
    name = spec.target.name.removesuffix(".zarr")
    spec.format.create(path, record.output, name, record.to_attributes())


def _chunk_rule(
    spec: ConversionSpec, recorded: ConversionRecord | None, folder: Path, progress: Progress
) -> ChunkRule:
    """Count the chunks that the source lacks, before anything is read, and say how many."""
    if recorded is not None:
        census = recorded_census(spec.volume, recorded.source, spec.roi, folder)
        return rule_of(spec.volume, census, spec.missing_chunks, lambda line: None)
    progress.stage("looking for missing chunks")
    return rule_of(spec.volume, census_to_take(spec.volume, spec.roi), spec.missing_chunks, progress.note)


def _record(spec: ConversionSpec, rule: ChunkRule) -> ConversionRecord:
    volume, output = spec.volume, spec.output
    source = SourceEntry(
        location=volume.location,
        shape=volume.shape,
        dtype=volume.dtype,
        voxel_nm=output.scale if output.is_nm else None,
        identity=volume_fingerprint(volume),
        options=spec.options,
        marks=source_marks(volume.location),
        voxel_size_given=spec.voxel_size_given,
        **rule.fields,
    )
    return ConversionRecord(source=source, roi=spec.roi, output=output, version=__version__)


def _run(
    spec: ConversionSpec, record: ConversionRecord, rule: ChunkRule, executor: Executor, progress: Progress
) -> Conversion:
    folder, grid = work_folder(spec.target), record.output.grid
    reference = ConversionRef(str(spec.target), record.digest, spec.source, spec.missing_chunks)
    writer = spec.format.open(folder / spec.target.name, record.output)
    workers: Counter[str] = Counter()
    if rule.census is not None:
        rule.census.write(folder)
    try:
        with Journal(folder, run=record.digest, is_locked=True) as journal:
            marks = read_mark_table(folder, grid.count)
            done = _done(marks, accepts_missing=rule.explains)
            counts, lost = _Counts(set(np.flatnonzero(marks.entries["lacking"] & done).tolist())), list[int]()
            log = FailureLog(folder)

            def on_done(report: BlockReport, attempt: int, worker: str) -> None:
                journal.mark(mark_of(report, attempt, worker), writer.folders(grid.box(report.number)))
                _count(counts, report)
                workers[worker] += 1

            def on_failed(task: BlockTask, attempt: Attempt, given_up: bool) -> None:
                refuse_other_owner(spec.target, record.digest)
                take_failure(task, attempt, given_up, spec.volume, log)

            todo = np.flatnonzero(~done).tolist()
            progress.begin(len(todo))
            started = time.perf_counter()
            plan = chain(todo, _lost_blocks(writer, record, marks, done, lost, progress))
            outcome = run_blocks(
                executor, plan, partial(convert_block, reference=reference), on_done, progress, on_failed=on_failed,
                policy=FailurePolicy(max_failed=max(MIN_FAILED, grid.count // 100)),
            )  # fmt: skip
            seconds = time.perf_counter() - started
    finally:
        writer.close()
        forget(reference)
    is_complete = not outcome.failed and (rule.explains or not counts.lacking)
    if is_complete:
        finish(folder, spec.target, overwrite=spec.overwrite, refuse=partial(refuse_other, spec.format))
    return _summary(
        spec, record, int(done.sum()) - len(lost), is_complete, outcome.done, outcome.failed, counts, seconds, workers,
        0 if rule.explains else len(counts.lacking),
    )  # fmt: skip


def _done(marks: MarkTable, *, accepts_missing: bool) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which blocks are done; those whose chunks the source lacked in part only if that is accepted."""
    done: np.ndarray[tuple[int], np.dtype[np.bool_]] = marks.entries["state"] == COMPUTED
    return done if accepts_missing else done & ~marks.entries["lacking"]


def _lost_blocks(  # noqa: PLR0913 - what the end of a plan depends on
    writer: Writer,
    record: ConversionRecord,
    marks: MarkTable,
    done: np.ndarray[tuple[int], np.dtype[np.bool_]],
    lost: list[int],
    progress: Progress,
) -> Iterator[int]:
    """Blocks that are marked and whose files are not there in their size: the end of the plan.

    Raises:
        TargetError: a file cannot be looked for.
    """
    grid, numbers = record.output.grid, np.flatnonzero(done).tolist()
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            sizes = pool.map(lambda number: writer.stored(grid.box(number)), numbers)
            lost += [n for n, size in zip(numbers, sizes, strict=True) if size != int(marks.entries["bytes"][n])]
    except OSError as error:
        raise TargetError(f"cannot look for the blocks that are done: {error}; rerun with --resume") from error
    if lost:
        blocks = "1 block that was" if len(lost) == 1 else f"{len(lost)} blocks that were"
        progress.note(f"{blocks} done lost files, or they changed in size; copying them again")
        progress.begin(grid.count - len(numbers) + len(lost))
    yield from lost


def _count(counts: _Counts, report: BlockReport) -> None:
    counts.voxels += report.voxels
    counts.clipped += report.clipped
    counts.bytes += report.bytes
    (counts.lacking.add if report.absent else counts.lacking.discard)(report.number)


def _summary(  # noqa: PLR0913 - what a summary consists of
    spec: ConversionSpec,
    record: ConversionRecord,
    already_done: int,
    complete: bool = True,
    done: int = 0,
    failed: dict[int, str] | None = None,
    counts: _Counts | None = None,
    seconds: float = 0.0,
    workers: Counter[str] | None = None,
    unexplained: int = 0,
) -> Conversion:
    counts, output = counts or _Counts(set()), record.output
    return Conversion(
        target=str(spec.target),
        complete=complete,
        format=output.format,
        shape=output.shape,
        dtype=output.dtype,
        place=str(output.place),
        scaling=str(record.rescale),
        blocks=output.grid.count,
        already_done=already_done,
        done=done,
        failed=failed or {},
        voxels=counts.voxels,
        clipped=counts.clipped,
        chunks=record.source.chunks,
        chunks_absent=record.source.chunks_absent,
        unexplained=unexplained,
        bytes=counts.bytes,
        seconds=seconds,
        workers=dict(workers or {}),
    )
