"""The marks of finished blocks, and what a run counts of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from volseg.cluster import mark_of
from volseg.pipeline import EMPTY, FALLBACK

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.blocks import BlockGrid, BlockSet
    from volseg.cluster import Progress
    from volseg.pipeline import BlockReport
    from volseg.storage import Journal, Target


class MarkWriter:
    """Marks finished blocks in the journal.

    Attributes:
        empty: blocks of the run that were empty.
        lacking: blocks of the run that read chunks which the source lacked.
        voxels: written in this start.
        workers: blocks of this start that each worker did.
    """

    def __init__(
        self,
        journal: Journal,
        targets: list[Target],
        grid: BlockGrid,
        empty: int,
        lacking: BlockSet,
        progress: Progress,
    ) -> None:
        """Count on from `empty` and `lacking` of the earlier starts.

        Args:
            journal: receives the marks.
            targets: the volumes of the run.
            grid: its blocks.
            empty: number of blocks.
            lacking: blocks; changed here.
            progress: receives a note of each worker that ran out of memory.
        """
        self._journal, self._targets, self._grid, self._progress = journal, targets, grid, progress
        self._kinds: dict[str, str] = {}
        self.empty, self.lacking, self.voxels, self.workers = empty, lacking, 0, Counter[str]()

    def __call__(self, report: BlockReport, attempt: int, worker: str) -> None:
        """Mark a block."""
        self._journal.mark(mark_of(report, attempt, worker), self._folders(report))
        self.voxels += report.voxels
        self.empty += report.skipped == EMPTY
        (self.lacking.add if report.absent else self.lacking.discard)(report.number)
        self.workers[worker] += 1
        if report.kind != self._kinds.get(worker):
            if FALLBACK in report.kind:
                self._progress.note(f"{worker} ran out of memory; from block {report.number} on: {report.kind}")
            self._kinds[worker] = report.kind

    def _folders(self, report: BlockReport) -> set[Path]:
        """Folders of the shards that a block has written."""
        if report.skipped:
            return set()
        return set().union(*(target.shard_folders(self._grid.box(report.number)) for target in self._targets))
