"""The last mark of each block, in 42 bytes a block: what a verification compares the shards with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from xxhash import xxh3_64_hexdigest

from volseg.errors import TargetError
from volseg.storage.journal import read_mark_batches
from volseg.storage.mark_records import RECORD_BYTES
from volseg.storage.mark_turns import MarkTurns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.blocks import PyramidGrid
    from volseg.storage.object_path import TargetPath

UNMARKED, COMPUTED, SKIPPED = range(3)
"""States of a block."""
MARK_ENTRY = np.dtype([("state", "u1"), ("lacking", "?"), ("bytes", "<u8"), ("voxels", "V16"), ("files", "V16")])
"""State, whether it read chunks that the source lacked, bytes of its shards, digests of its voxels and its shards."""


@dataclass(frozen=True)
class MarkTable:
    """The last marks of a journal.

    Attributes:
        entries: of each block, `MARK_ENTRY`.
        damaged: records that cannot be read, or that say nothing of a block of the run.
    """

    entries: NDArray[np.void]
    damaged: int

    def count(self, state: int) -> int:
        """Number of blocks in a state."""
        return int(np.count_nonzero(self.entries["state"] == state))

    @property
    def lacking(self) -> int:
        """Number of blocks that read chunks which the source lacked."""
        return int(np.count_nonzero(self.entries["lacking"]))


def read_mark_table(folder: TargetPath, pyramid: PyramidGrid) -> MarkTable:
    """Read the journal of a run; of several marks of a block the last counts.

    A block of a coarser level counts only if it was made after all that it is made of.

    Raises:
        TargetError: it cannot be read, or another version of volseg wrote it.
    """
    entries, turns = np.zeros(pyramid.count, MARK_ENTRY), MarkTurns(pyramid)
    damaged: list[int] = []
    try:
        for batch in read_mark_batches(folder, lambda _, records: damaged.append(records)):
            is_whole = (batch.marks["block"] < pyramid.count) & _are_whole(batch.marks)
            marks = batch.marks[is_whole]
            damaged.append(len(batch.marks) - len(marks))
            blocks = marks["block"].astype(np.int64)
            turns.add(blocks)
            entries["state"][blocks] = np.where(marks["reason"] > 0, SKIPPED, COMPUTED)
            entries["lacking"][blocks] = marks["absent"] > 0
            for name in ("bytes", "voxels", "files"):
                entries[name][blocks] = marks[name]
    except TargetError:
        raise
    except OSError as error:
        raise TargetError(f"cannot read the journal in {folder}: {error.strerror or error}") from error
    entries["state"][turns.outdated()] = UNMARKED
    return MarkTable(entries, sum(damaged))


def _are_whole(marks: NDArray[np.void]) -> NDArray[np.bool_]:
    """Whether each mark says why its block was skipped, or has bytes and digests."""
    words = marks.view("<u8").reshape(-1, RECORD_BYTES // 8)
    voxels, files = (words[:, at] | words[:, at + 1] for at in (4, 6))
    whole: NDArray[np.bool_] = (marks["reason"] > 0) | ((marks["bytes"] > 0) & (voxels > 0) & (files > 0))
    return whole


def journal_state(folder: TargetPath) -> str:
    """Digest of names, sizes and times of a journal's segments, which changes with every mark."""
    states = [(file.name, (found := file.stat()).st_size, found.st_mtime_ns) for file in folder.glob("journal-*.marks")]
    return xxh3_64_hexdigest(str(sorted(states)).encode())
