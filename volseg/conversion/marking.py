"""The marks of blocks that are copied, what a conversion counts of them, and marked blocks whose files are lost."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from volseg.cluster import mark_of
from volseg.errors import TargetError
from volseg.storage import COMPUTED, read_mark_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from volseg.blocks import BlockGrid
    from volseg.cluster import Progress
    from volseg.pipeline import BlockReport
    from volseg.storage import Journal
    from volseg.storage.writers.base import Writer

_THREADS = 16


class MarkWriter:
    """Marks blocks that are copied.

    Attributes:
        lacking: blocks of the conversion that read chunks which the source lacked.
        voxels: written in this start.
        clipped: of these, outside the stated limits.
        bytes: of the blocks of this start, as stored.
        workers: blocks of this start that each worker did.
    """

    def __init__(self, journal: Journal, writer: Writer, grid: BlockGrid, lacking: set[int]) -> None:
        """Count on from `lacking` of the earlier starts.

        Args:
            journal: receives the marks.
            writer: of the volume.
            grid: the blocks.
            lacking: blocks; changed here.
        """
        self._journal, self._writer, self._grid = journal, writer, grid
        self.lacking, self.workers = lacking, Counter[str]()
        self.voxels = self.clipped = self.bytes = 0

    def __call__(self, report: BlockReport, attempt: int, worker: str) -> None:
        """Mark a block."""
        self._journal.mark(mark_of(report, attempt, worker), self._writer.folders(self._grid.box(report.number)))
        self.voxels += report.voxels
        self.clipped += report.clipped
        self.bytes += report.bytes
        (self.lacking.add if report.absent else self.lacking.discard)(report.number)
        self.workers[worker] += 1


class DoneBefore:
    """Blocks that the journal marks.

    Args:
        folder: of the journal.
        grid: the blocks.
        accepts_missing: whether a block is done whose chunks the source lacked in part.

    Attributes:
        numbers: of the blocks that are done.
        lacking: of these, those that read chunks which the source lacked.
        lost: those whose files are not there as they were marked, once they were looked for.
    """

    def __init__(self, folder: Path, grid: BlockGrid, *, accepts_missing: bool) -> None:
        entries = read_mark_table(folder, grid.count).entries
        self._done = entries["state"] == COMPUTED
        if not accepts_missing:
            self._done &= ~entries["lacking"]
        self._sizes, self._grid = entries["bytes"].astype(np.int64), grid
        self.numbers: list[int] = np.flatnonzero(self._done).tolist()
        self.lacking = set(np.flatnonzero(self._done & entries["lacking"]).tolist())
        self.lost: list[int] = []

    @property
    def others(self) -> list[int]:
        """Numbers of the blocks that are not done."""
        numbers: list[int] = np.flatnonzero(~self._done).tolist()
        return numbers

    def look(self, writer: Writer, progress: Progress) -> Iterator[int]:
        """Yield the blocks whose files are lost or have another size: the end of the plan.

        Args:
            writer: of the volume.
            progress: receives a note of them.

        Raises:
            TargetError: a file cannot be looked for.
        """
        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                sizes = pool.map(lambda number: writer.stored(self._grid.box(number)), self.numbers)
                self.lost = [n for n, size in zip(self.numbers, sizes, strict=True) if size != self._sizes[n]]
        except OSError as error:
            raise TargetError(f"cannot look for the blocks that are done: {error}; rerun with --resume") from error
        if self.lost:
            blocks = "1 block that was" if len(self.lost) == 1 else f"{len(self.lost)} blocks that were"
            progress.note(f"{blocks} done lost files, or they changed in size; copying them again")
            progress.begin(len(self.others) + len(self.lost))
        yield from self.lost
