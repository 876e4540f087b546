"""The marks of finished blocks, and what a run counts of them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from volseg.cluster import mark_of
from volseg.pipeline import EMPTY, FALLBACK

if TYPE_CHECKING:
    from volseg.blocks import BlockSet
    from volseg.cluster import Progress
    from volseg.pipeline import BlockReport
    from volseg.storage import Journal, Pyramid


class MarkWriter:
    """Marks finished blocks in the journal. It counts those of level 0, and apart those of coarser levels.

    Attributes:
        coarser: blocks of coarser levels that were made in this start.
        empty: blocks of the run that were empty.
        lacking: blocks of the run that read chunks which the source lacked.
        voxels: written in this start.
        workers: blocks of this start that each worker did.
        repeats: requests to the target's store that workers have repeated in this start.
    """

    def __init__(
        self,
        journal: Journal,
        pyramid: Pyramid,
        empty: int,
        lacking: BlockSet,
        progress: Progress,
    ) -> None:
        """Count on from `empty` and `lacking` of the earlier starts.

        Args:
            journal: receives the marks.
            pyramid: the volumes of the run.
            empty: number of blocks.
            lacking: blocks; changed here.
            progress: receives a note of each worker that ran out of memory.
        """
        self._journal, self._pyramid, self._progress = journal, pyramid, progress
        self._kinds: dict[str, str] = {}
        self.empty, self.lacking, self.voxels, self.workers = empty, lacking, 0, Counter[str]()
        self.coarser = self.repeats = 0

    def __call__(self, report: BlockReport, attempt: int, worker: str) -> None:
        """Mark a block."""
        folders = set() if report.skipped else self._pyramid.shard_folders(report.number)
        self._journal.mark(mark_of(report, attempt, worker), folders)
        self.repeats += report.repeats
        if report.number >= self._pyramid.grid.base.count:
            self.coarser += 1
            return
        self.voxels += report.voxels
        self.empty += report.skipped == EMPTY
        (self.lacking.add if report.absent else self.lacking.discard)(report.number)
        self.workers[worker] += 1
        if report.kind != self._kinds.get(worker):
            if FALLBACK in report.kind:
                self._progress.note(f"{worker} ran out of memory; from block {report.number} on: {report.kind}")
            self._kinds[worker] = report.kind
