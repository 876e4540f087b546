"""What the marks of a journal say of each block, in one byte a block."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import BlockSet
from volseg.storage.journal import read_mark_batches
from volseg.storage.mark_turns import MarkTurns
from volseg.storage.size_table import NO_SHARDS, release_pages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.blocks import PyramidGrid
    from volseg.storage.marks import MarkBatch
    from volseg.storage.object_path import TargetPath

MARKED, WAS_EMPTY, LACKING = 1, 2, 4
"""Flags of a block: it has a mark, was empty, read chunks that the source lacked."""
_MAX_BYTES = 2**63 - 1
_SLAB = 1 << 22
"""Blocks that are looked at together."""
_MAX_COUNTED = 1 << 24
"""Workers of a segment that are counted by their kind."""


@dataclass
class Tally:
    """What is counted of the marks of level 0, those included that a later mark replaces.

    Attributes:
        retried: took more than one attempt.
        computed: was not skipped.
        seconds: of these, on their workers.
        kinds: of these, by the kind of their worker.
    """

    retried: int = 0
    computed: int = 0
    seconds: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)

    def add(self, marks: NDArray[np.void], batch: MarkBatch) -> None:
        """Count some marks of level 0."""
        computed = marks[marks["reason"] == 0]
        self.computed += len(computed)
        self.seconds += float(computed["seconds"].sum(dtype=np.float64))
        if len(computed) and int(computed["worker"].max()) < _MAX_COUNTED:
            counts = np.bincount(computed["worker"])
        else:  # numbers of a journal that volseg did not write
            counts = np.zeros(0, np.int64)
        for worker in np.flatnonzero(counts).tolist():
            self.kinds[batch.names[worker].partition(", ")[2] or "unknown"] += int(counts[worker])


class BlockStates:
    """Takes marks in their order; of several marks of a block the last counts.

    Args:
        pyramid: the blocks.
        empty: reason of a mark to skip an empty block.

    Attributes:
        states: flags of each block.
        tally: what is counted beside them.
        damaged: marks that cannot be read.
    """

    def __init__(self, pyramid: PyramidGrid, empty: str) -> None:
        self.pyramid, self._empty = pyramid, empty
        self.states = np.zeros(pyramid.count, np.uint8)
        self.tally, self.damaged = Tally(), 0
        self._turns = MarkTurns(pyramid)

    def read(self, folder: TargetPath, sizes: NDArray[np.int64] | None = None) -> None:
        """Take the marks of a journal; `sizes` as of `add`.

        Raises:
            TargetError: another version of volseg wrote it.
        """
        damaged: list[int] = []
        for turn, batch in enumerate(read_mark_batches(folder, lambda _, records: damaged.append(records))):
            self.add(batch, sizes)
            if sizes is not None and turn % 64 == 0:
                release_pages(sizes)
        self.damaged += sum(damaged)

    def add(self, batch: MarkBatch, sizes: NDArray[np.int64] | None = None) -> None:
        """Take some marks; those of no block of the run say nothing.

        Args:
            batch: the marks.
            sizes: receives the bytes of the shards of each block, if it is given.
        """
        marks = batch.marks
        if len(marks) and int(marks["block"].max()) >= self.pyramid.count:
            marks = marks[marks["block"] < self.pyramid.count]
        blocks, reasons = marks["block"].astype(np.int64), marks["reason"]
        is_empty = np.array([batch.names.get(number) == self._empty for number in range(256)])[reasons]
        self.states[blocks] = MARKED + WAS_EMPTY * is_empty + LACKING * (marks["absent"] > 0)
        self._turns.add(blocks)
        if sizes is not None:
            sizes[blocks] = np.where(reasons > 0, NO_SHARDS, np.minimum(marks["bytes"], _MAX_BYTES).astype(np.int64))
        self.tally.retried += int(np.count_nonzero(marks["attempt"] > 1))
        finest = blocks < self.pyramid.base.count
        self.tally.add(marks if finest.all() else marks[finest], batch)

    def settle(self) -> NDArray[np.int64]:
        """Take the marks off blocks of coarser levels that are outdated; returns their numbers."""
        outdated = self._turns.outdated()
        self.states[outdated] = 0
        return outdated

    def restore(self, states: NDArray[np.uint8], outdated: Sequence[int], tally: Tally, damaged: int) -> None:
        """Begin with what settled earlier marks said."""
        self.states[:], self.tally, self.damaged = states, tally, damaged
        first = self.pyramid.base.count
        self._turns.restore(first + np.flatnonzero(states[first:]), np.array(outdated, np.int64))

    def finest(self, flag: int) -> BlockSet:
        """Blocks of level 0 that have a mark and a flag."""
        return self._having(flag, 0, self.pyramid.base.count)

    def coarser(self) -> BlockSet:
        """Blocks of coarser levels that have a mark."""
        return self._having(MARKED, self.pyramid.base.count, self.pyramid.count)

    def count(self, flag: int) -> int:
        """Number of blocks of level 0 that have a flag."""
        return int(np.count_nonzero(self.states[: self.pyramid.base.count] & flag))

    def _having(self, flag: int, start: int, stop: int) -> BlockSet:
        first, parts = start // 8 * 8, list[bytes]()
        for low in range(first, stop, _SLAB):
            bits = (self.states[low : min(low + _SLAB, stop)] & flag) > 0
            bits[: max(0, start - low)] = False
            parts.append(np.packbits(bits, bitorder="little").tobytes())
        return BlockSet.from_bits(b"".join(parts), first)
