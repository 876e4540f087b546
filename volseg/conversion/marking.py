"""The marks of blocks that are copied, what a conversion counts of them, and marked blocks whose files are lost."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import BlockSet
from volseg.cluster import mark_of
from volseg.errors import TargetError
from volseg.storage import UNMARKED, read_mark_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.blocks import BlockGrid, PyramidGrid
    from volseg.cluster import Progress
    from volseg.pipeline import BlockReport
    from volseg.storage import Journal
    from volseg.storage.object_path import TargetPath
    from volseg.storage.writers.base import Writer

_THREADS = 16


class MarkWriter:
    """Marks blocks that are copied.

    Attributes:
        lacking: blocks of the conversion that read chunks which the source lacked.
        voxels: written in this start.
        clipped: of these, outside the stated limits.
        bytes: of the blocks of this start, as stored.
        coarser: blocks of coarser levels that were made in this start.
        workers: blocks of this start that each worker did.
        repeats: requests to the target's store that workers have repeated in this start.
    """

    def __init__(self, journal: Journal, writer: Writer, grid: BlockGrid, lacking: set[int]) -> None:
        """Count on from `lacking` of the earlier starts.

        Args:
            journal: receives the marks.
            writer: of the volume.
            grid: the blocks of level 0.
            lacking: blocks; changed here.
        """
        self._journal, self._writer, self._grid = journal, writer, grid
        self.lacking, self.workers = lacking, Counter[str]()
        self.voxels = self.clipped = self.bytes = self.coarser = self.repeats = 0

    def __call__(self, report: BlockReport, attempt: int, worker: str) -> None:
        """Mark a block."""
        self._journal.mark(mark_of(report, attempt, worker), self._folders(report))
        self.repeats += report.repeats
        if report.number >= self._grid.count:
            self.coarser += 1
            return
        self.voxels += report.voxels
        self.clipped += report.clipped
        self.bytes += report.bytes
        (self.lacking.add if report.absent else self.lacking.discard)(report.number)
        self.workers[worker] += 1

    def _folders(self, report: BlockReport) -> set[TargetPath]:
        """Folders of the files of a block."""
        if report.number < self._grid.count:
            return self._writer.folders(self._grid.box(report.number))
        pyramid = self._writer.pyramid
        return set() if pyramid is None or report.skipped else pyramid.shard_folders(report.number)


class DoneBefore:
    """Blocks that the journal marks.

    Args:
        folder: of the journal.
        pyramid: the blocks of all levels.
        accepts_missing: whether a block is done whose chunks the source lacked in part.

    Attributes:
        numbers: of the blocks of level 0 that are done.
        coarser: of those of coarser levels that are.
        lacking: of these, those that read chunks which the source lacked.
        lost: those whose files are not there as they were marked, once they were looked for.
    """

    def __init__(self, folder: TargetPath, pyramid: PyramidGrid, *, accepts_missing: bool) -> None:
        grid, marks = pyramid.base, read_mark_table(folder, pyramid).entries
        entries = marks[: grid.count]
        self._done = entries["state"] != UNMARKED
        if not accepts_missing:
            self._done &= ~entries["lacking"]
        self._pyramid = pyramid
        self._sizes, self._digests, self._grid = marks["bytes"].astype(np.int64), marks["files"], grid
        self.numbers: list[int] = np.flatnonzero(self._done).tolist()
        self.coarser = BlockSet((grid.count + np.flatnonzero(marks["state"][grid.count :] != UNMARKED)).tolist())
        self.lacking = set(np.flatnonzero(self._done & entries["lacking"]).tolist())
        self.lost: list[int] = []

    @property
    def others(self) -> list[int]:
        """Numbers of the blocks that are not done."""
        numbers: list[int] = np.flatnonzero(~self._done).tolist()
        return numbers

    def find_lost(self, writer: Writer, progress: Progress, planned: int, *, reads: bool = False) -> Iterator[int]:
        """Yield the blocks whose files are lost or have changed: the end of the plan.

        Args:
            writer: of the volume.
            progress: receives a note of them.
            planned: blocks that the plan holds without them.
            reads: look for changed files, too, by reading those of the levels of `writer.pyramid`.

        Raises:
            TargetError: a file cannot be looked for.
        """
        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                marked = [number for number in (*self.numbers, *self.coarser) if self._sizes[number]]
                sizes = pool.map(partial(self._stored, writer), marked)
                lost = [n for n, size in zip(marked, sizes, strict=True) if size != self._sizes[n]]
                if reads and writer.pyramid is not None:
                    left = sorted(set(marked).difference(lost))
                    same = pool.map(writer.pyramid.is_as_marked, left, (bytes(self._digests[n]) for n in left))
                    lost += [number for number, is_same in zip(left, same, strict=True) if not is_same]
        except OSError as error:
            raise TargetError(f"cannot look for the blocks that are done: {error}; rerun with --resume") from error
        if lost:
            blocks = "1 block that was" if len(lost) == 1 else f"{len(lost)} blocks that were"
            progress.note(f"{blocks} done lost files, or they changed; making them again")
            again = {*lost, *(above for above in self._pyramid.above(lost) if above in self.coarser)}
            progress.begin(planned + len(again))
        for number in lost:
            self.coarser.discard(number)
        self.lost = [number for number in lost if number < self._grid.count]
        yield from self.lost

    def _stored(self, writer: Writer, number: int) -> int:
        """Bytes that the files of a block take; 0 if some are missing."""
        if number < self._grid.count or writer.pyramid is None:
            return writer.stored(self._grid.box(number))
        return writer.pyramid.stored(number)
