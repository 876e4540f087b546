"""The last mark of each block, in 42 bytes a block: what a verification compares the shards with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from xxhash import xxh3_64_hexdigest

from volseg.errors import TargetError
from volseg.storage.journal import read_marks
from volseg.storage.pyramid import outdated_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.blocks import PyramidGrid
    from volseg.storage.marks import Mark
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
    count = pyramid.count
    entries, turns = np.zeros(count, MARK_ENTRY), np.zeros(count, np.int64)
    damaged: list[int] = []
    try:
        for turn, mark in enumerate(read_marks(folder, lambda _, records: damaged.append(records)), 1):
            if 0 <= mark.block < count and _is_whole(mark):
                turns[mark.block] = turn
                entries[mark.block] = (
                    SKIPPED if mark.skipped else COMPUTED,
                    mark.absent > 0,
                    mark.bytes,
                    bytes.fromhex(mark.digest),
                    bytes.fromhex(mark.file_digest),
                )
            else:
                damaged.append(1)
    except TargetError:
        raise
    except OSError as error:
        raise TargetError(f"cannot read the journal in {folder}: {error.strerror or error}") from error
    entries["state"][outdated_blocks(pyramid, turns)] = UNMARKED
    return MarkTable(entries, sum(damaged))


def _is_whole(mark: Mark) -> bool:
    return bool(mark.skipped or (mark.bytes and mark.digest and mark.file_digest))


def journal_state(folder: TargetPath) -> str:
    """Digest of names, sizes and times of a journal's segments, which changes with every mark."""
    states = [(file.name, (found := file.stat()).st_size, found.st_mtime_ns) for file in folder.glob("journal-*.marks")]
    return xxh3_64_hexdigest(str(sorted(states)).encode())
