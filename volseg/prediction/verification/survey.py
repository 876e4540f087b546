"""One look at a whole target: metadata, files beside the journal, names, and the shards of all marked blocks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import BlockSet
from volseg.errors import TargetError
from volseg.prediction.verification.report import Fault, Faults
from volseg.prediction.verification.shards import BlockRange, VerifyRef, check_range
from volseg.prediction.verification.tree import check_tree
from volseg.storage import (
    COMPUTED,
    UNMARKED,
    MarkTable,
    metadata_faults,
    read_census,
    read_mark_table,
    read_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.blocks import BlockGrid, PyramidGrid
    from volseg.cluster import Executor
    from volseg.prediction.verification.report import VerifyProgress
    from volseg.prediction.verification.shards import RangeReport
    from volseg.prediction.verification.sound_ranges import SoundRanges
    from volseg.storage import MetadataFault, RunRecord, TargetPath

_RANGE_BYTES = 1 << 28
_RANGE_BLOCKS = 4096
_MAX_STALE = 100_000
"""Shards to delete that are held at once; another repair finds the others."""


@dataclass
class Survey:
    """What was found.

    Attributes:
        table: the marks.
        planned: blocks of all levels, without those outside the run's mask.
        damaged: faults of the map.
        warnings: other faults.
        metadata: that differ from the run's.
        again: blocks whose shards have to be computed again.
        stale: shards to delete.
        half_written: files and folders to delete.
        dirty: ranges in which something was found.
        checked: marked blocks that were compared.
        checked_before: those that an earlier start had found sound.
        unmarked: shards of blocks that are not done.
        lacking: done blocks that read chunks which nothing tells to have been missing from the start.
        bytes: read from shards.
        voxel_bytes: decoded.
        seconds: of the comparison.
    """

    table: MarkTable
    planned: int
    damaged: Faults = field(default_factory=Faults)
    warnings: Faults = field(default_factory=Faults)
    metadata: list[MetadataFault] = field(default_factory=list)
    again: BlockSet = field(default_factory=BlockSet)
    stale: list[str] = field(default_factory=list)
    half_written: list[str] = field(default_factory=list)
    dirty: list[tuple[int, int]] = field(default_factory=list)
    checked: int = 0
    checked_before: int = 0
    unmarked: int = 0
    lacking: int = 0
    bytes: int = 0
    voxel_bytes: int = 0
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Number of blocks that have a mark."""
        return self.table.entries.size - self.table.count(UNMARKED)

    @property
    def lost_marks(self) -> bool:
        """Whether every block that is not done may have had one of the damaged marks."""
        return 0 < self.planned - self.done <= self.table.damaged

    @property
    def lost_tables(self) -> bool:
        """Whether files beside the journal are damaged that a resumed run makes again."""
        return bool({"statistics", "census"} & self.damaged.keys())

    @property
    def needs_run(self) -> bool:
        """Whether a repair computes anything."""
        return bool(len(self.again) or self.lost_marks or self.lost_tables)


def survey(path: TargetPath, record: RunRecord, *, running: bool) -> Survey:
    """Look at all but the shards."""
    journal, planned = path / "0" / ".volseg", record.planned + record.planned_coarser
    found = Survey(read_mark_table(journal, record.pyramid), planned)
    found.metadata = metadata_faults(path, record)
    for fault in found.metadata:
        found.damaged.note("metadata", Fault(fault.file, fault.reason))
    if not (path / "0").is_dir():
        found.damaged.note("missing", Fault("0", "the map is gone, and its journal"))
    if not (record.source.missing_chunks == "fill" or record.source.chunk_census):
        found.lacking = found.table.lacking
    if found.done:
        _check_tables(journal, record, found)
    if found.table.damaged or found.done > found.planned:
        # Of a run that is left off, blocks without a mark are for --resume, and damaged marks say nothing more.
        kind = found.damaged if found.lost_marks or found.done > found.planned else found.warnings
        reason = f"{found.done} blocks are marked, of {found.planned}" if found.done > found.planned else ""
        kind.note("journal", Fault("0/.volseg", reason), count=max(found.table.damaged, 1))
    tree = check_tree(path, record, running=running)
    found.damaged.merge(tree.damaged)
    found.warnings.merge(tree.warnings)
    found.stale, found.half_written = tree.stale[:_MAX_STALE], tree.half_written
    return found


def _check_tables(journal: TargetPath, record: RunRecord, found: Survey) -> None:
    """Check what a resumed run reads beside the marks."""
    for digest in dict.fromkeys(entry.statistics for entry in record.models):
        try:
            read_table(journal, digest)
        except TargetError as error:
            found.damaged.note("statistics", Fault(f"0/.volseg/statistics-{digest}.npy", str(error)))
    if digest := record.source.chunk_census:
        try:
            read_census(journal, digest)
        except TargetError as error:
            found.damaged.note("census", Fault(f"0/.volseg/chunks-{digest}.bin", str(error)))


def check_shards(  # noqa: PLR0913 - parts of one survey
    path: TargetPath,
    record: RunRecord,
    found: Survey,
    executor: Executor,
    progress: VerifyProgress,
    *,
    deep: bool,
    sound: SoundRanges | None = None,
    only: Sequence[tuple[int, int]] | None = None,
) -> None:
    """Compare the shards of all marked blocks with their marks, on the workers.

    Args:
        path: of the target.
        record: of its run.
        found: receives what is found.
        executor: whose workers read.
        progress: receives the progress.
        deep: decode the voxels too.
        sound: ranges that an earlier start found sound, which are left out; receives those of this one.
        only: ranges to look at; None for all.
    """
    entries, started, compared = found.table.entries, time.perf_counter(), 0
    total = record.pyramid.count if only is None else sum(stop - first for first, stop in only)

    def left() -> Iterator[BlockRange]:
        nonlocal compared
        for first, stop in ranges(record.pyramid, found.table) if only is None else only:
            if sound is not None and (first, stop) in sound:
                found.checked_before += int(np.count_nonzero(entries["state"][first:stop]))
                compared += stop - first
            else:
                yield BlockRange(first, stop, entries[first:stop].tobytes())

    progress.compared(0, total, 0)
    reference = VerifyRef(str(path), record.digest, deep, found.done == found.planned)
    for report in executor.map(partial(check_range, reference=reference), left()):
        _add(report, found)
        compared += report.stop - report.first
        if sound is not None and not (report.damaged or report.warnings or report.unmarked):
            sound.add(report.first, report.stop)
        progress.compared(compared, total, found.bytes)
    found.seconds += time.perf_counter() - started


def _add(report: RangeReport, found: Survey) -> None:
    found.damaged.merge(report.damaged)
    found.warnings.merge(report.warnings)
    if report.damaged or report.warnings:
        found.dirty.append((report.first, report.stop))
    for number in report.blocks:
        found.again.add(number)
    found.stale += report.stale[: _MAX_STALE - len(found.stale)]
    found.checked += report.checked
    found.unmarked += report.unmarked
    found.bytes += report.bytes
    found.voxel_bytes += report.voxel_bytes


def ranges(
    pyramid: PyramidGrid, table: MarkTable, size: int = _RANGE_BYTES, blocks: int = _RANGE_BLOCKS
) -> Iterator[tuple[int, int]]:
    """Cut the blocks into ranges of about so many bytes, at most so many blocks: rows of a level, or parts of one."""
    for at, grid in enumerate(pyramid.grids):
        base = pyramid.numbers(at).start
        entries = table.entries[base : base + grid.count]
        yield from ((base + first, base + stop) for first, stop in _ranges_of(grid, entries, size, blocks))


def _ranges_of(grid: BlockGrid, marks: NDArray[np.void], size: int, blocks: int) -> Iterator[tuple[int, int]]:
    nx = grid.counts[2]
    first = weight = 0
    for row in range(prod(grid.counts[:2])):
        start, stop = row * nx, row * nx + nx
        entries = marks[start:stop]
        heavy = int(entries["bytes"][entries["state"] == COMPUTED].sum())
        if first < start and (weight + heavy > size or stop - first > blocks):
            yield first, start
            first, weight = start, 0
        weight += heavy
        parts = max(-(-heavy // size), -(-nx // blocks))
        if parts > 1:
            step = -(-nx // parts)
            yield from ((at, min(at + step, stop)) for at in range(start, stop, step))
            first, weight = stop, 0
    if first < grid.count:
        yield first, grid.count
