"""Coarser levels for an image, from a checked specification to their place in its metadata.

specification -> record -> empty arrays, which the image does not list -> blocks that are not done -> marks
-> the image lists the levels -> levels that they replace are deleted
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
from volseg.conversion.pyramid_worker import LevelsWriter, PyramidRef, forget, make_block
from volseg.errors import SourceLostError, TargetError
from volseg.storage import FailureLog, Journal, source_marks
from volseg.storage.level_group import open_level_group
from volseg.storage.level_list import list_levels, remove_level
from volseg.storage.pyramid_record import held_levels, write_pyramid

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.cluster import Attempt, BlockTask, Executor, Progress
    from volseg.conversion.pyramid_prepare import PyramidSpec
    from volseg.storage.pyramid_record import PyramidRecord


@dataclass(frozen=True)
class PyramidSummary:
    """Result of adding levels to an image.

    Attributes:
        target: path of the image.
        complete: whether every block is made, so that the image lists the levels.
        levels: paths of the new levels in the image, finest first.
        shapes: voxels of each along z, y, x.
        method: `mean` or `mode`.
        place: voxel size and translation of level 0, in words.
        blocks: of all levels.
        already_done: blocks done before this start.
        done: blocks done in this start.
        failed: block numbers with the reason of each.
        voxels: of level 0 that were read in this start.
        chunks: of level 0.
        chunks_absent: of these, how many it lacks; they read as the fill value.
        seconds: from the first block sent to the last completed.
        workers: number of blocks of level 0 that each worker did.
    """

    target: str
    complete: bool
    levels: tuple[str, ...]
    shapes: tuple[tuple[int, int, int], ...]
    method: str
    place: str
    blocks: int
    already_done: int
    done: int
    failed: dict[int, str]
    voxels: int
    chunks: int
    chunks_absent: int
    seconds: float
    workers: dict[str, int]


def execute_pyramid(spec: PyramidSpec, progress: Progress) -> PyramidSummary:
    """Make the levels to the end.

    Raises:
        VolsegError: the cluster, level 0 or the image refused.
    """
    record = spec.record
    if record is None:
        return summary_of(spec)
    for note in spec.notes:
        progress.note(note)
    record = spec.resumed.record if spec.resumed and spec.resumed.record else record
    held = held_levels(spec.group, record, spec.recorded, spec.replaced, resumes=spec.resumed is not None)
    with held as folder:
        for rule in spec.rules:
            if rule.census is not None:
                rule.census.write(folder)
        if spec.cluster != "serial":
            progress.stage("waiting for workers")
        with connect(spec.cluster, spec.config.workers, (), spec.config.tls, progress.note) as executor:
            refuse_other_versions(executor, progress)
            return _run(spec, record, folder, executor, progress)


def _run(
    spec: PyramidSpec, record: PyramidRecord, folder: Path, executor: Executor, progress: Progress
) -> PyramidSummary:
    group, pyramid = spec.group.path, record.pyramid
    reference = PyramidRef(str(group), record.names[0], record.digest, spec.sources, spec.config.missing_chunks)
    writer = LevelsWriter(group, record)
    try:
        with Journal(folder, run=record.digest, is_locked=True, known=(group,)) as journal:
            before = DoneBefore(folder, pyramid, accepts_missing=True)
            marking = MarkWriter(journal, writer, pyramid.base, before.lacking)
            coarser = len(before.coarser)
            planned = len(before.others) + pyramid.count - pyramid.base.count - coarser
            progress.begin(planned)
            finest = chain(before.others, before.find_lost(writer, progress, planned, reads=spec.config.check))
            order = BlockOrder(finest, pyramid, BlockSet(before.numbers), before.coarser, count=planned)
            started = time.perf_counter()
            outcome = run_blocks(
                executor,
                order,
                partial(make_block, reference=reference),
                order.tracking(marking),
                progress,
                on_failed=order.tracking_failures(partial(_watch, spec, reference, FailureLog(folder))),
                policy=FailurePolicy(max_failed=max(MIN_FAILED, pyramid.base.count // 100)),
            )
            seconds = time.perf_counter() - started
    finally:
        writer.close()
        forget(reference)
    is_complete = not (outcome.failed or order.left)
    if is_complete:
        _publish(spec, record, folder)
    return replace(
        summary_of(spec),
        complete=is_complete,
        already_done=pyramid.count - outcome.done if is_complete else len(before.numbers) + coarser - len(before.lost),
        done=outcome.done,
        failed=outcome.failed,
        voxels=marking.voxels,
        seconds=seconds,
        workers=dict(marking.workers),
    )


def _watch(
    spec: PyramidSpec, reference: PyramidRef, log: FailureLog, task: BlockTask, attempt: Attempt, given_up: bool
) -> None:
    """Look after a failed attempt whether the levels and level 0 are still there."""
    reference.check()
    take_failure(task, attempt, given_up, spec.volumes[0], log)


def _publish(spec: PyramidSpec, record: PyramidRecord, folder: Path) -> None:
    """Let the image list its levels, and delete those that they replace.

    Raises:
        SourceLostError: level 0 has changed since the first block was made.
        TargetError: the metadata cannot be written.
    """
    entry = record.sources[0]
    location = spec.volumes[0].location
    if entry.location == location and source_marks(location) != entry.marks:
        raise SourceLostError(
            f"{location} changed while levels were made of it, so they are not listed; rerun with --overwrite"
        )
    try:
        scales = [level.scale for level in record.pyramid.levels]
        list_levels(spec.group, record.names, scales, record.method, folder)
        group = open_level_group(spec.group.path)
        replaced = spec.replaced
        for name in replaced:
            if name not in group.paths:
                remove_level(group, name)
        if replaced:
            write_pyramid(folder, record, ())
    except OSError as error:
        raise TargetError(
            f"cannot write the metadata of {spec.group.path}: {error.strerror or error}; rerun with --resume"
        ) from error


def summary_of(spec: PyramidSpec) -> PyramidSummary:
    """The result of a run that has made nothing: that which is planned, for a dry run, too."""
    record = spec.record
    entries = record.sources if record else ()
    return PyramidSummary(
        target=str(spec.group.path),
        complete=True,
        levels=record.names if record else (),
        shapes=tuple(level.shape for level in record.pyramid.levels) if record else (),
        method=record.method if record else "mean",
        place=str(spec.place),
        blocks=record.pyramid.count if record else 0,
        already_done=0,
        done=0,
        failed={},
        voxels=0,
        chunks=sum(entry.chunks for entry in entries),
        chunks_absent=sum(entry.chunks_absent for entry in entries),
        seconds=0.0,
        workers={},
    )
