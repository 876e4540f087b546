"""The order of marks: which blocks of coarser levels were made before a block that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.blocks import PyramidGrid

_NEVER = 2**62
"""Turn of a mark that is later than all others."""


class MarkTurns:
    """Takes marks in their order; keeps 16 bytes for each block of a coarser level, and nothing for the others.

    Args:
        pyramid: the blocks.
    """

    def __init__(self, pyramid: PyramidGrid) -> None:
        self._pyramid, self._first, self._turn = pyramid, pyramid.base.count, 0
        self._own, self._newest = np.zeros((2, pyramid.count - self._first), np.int64)

    def add(self, blocks: NDArray[np.int64]) -> None:
        """Take the blocks of some marks, oldest first."""
        if not len(self._own):
            return
        turns = np.arange(self._turn + 1, self._turn + 1 + len(blocks))
        self._turn += len(blocks)
        grids = len(self._pyramid.grids)
        for at in range(grids):
            numbers = self._pyramid.numbers(at)
            inside = (blocks >= numbers.start) & (blocks < numbers.stop)
            found, order = blocks[inside], turns[inside]
            # Of several values for one place numpy keeps the last, which is the newest.
            if at:
                self._own[found - self._first] = order
            if at + 1 < grids:
                self._newest[self._pyramid.parents(at, found) - self._first] = order

    def restore(self, marked: NDArray[np.int64], outdated: NDArray[np.int64]) -> None:
        """Begin with earlier marks of blocks of coarser levels, of which some are outdated."""
        self._own[marked - self._first] = self._own[outdated - self._first] = 1
        self._newest[outdated - self._first] = self._turn = 2

    def outdated(self) -> NDArray[np.int64]:
        """Blocks of coarser levels that were made before a block that they are made of, or one of those was."""
        outdated: list[NDArray[Any]] = [np.zeros(0, np.int64)]
        newest, grids = self._newest.copy(), len(self._pyramid.grids)
        for at in range(1, grids):
            numbers = self._pyramid.numbers(at)
            own = slice(numbers.start - self._first, numbers.stop - self._first)
            late = numbers.start + np.flatnonzero((self._own[own] > 0) & (self._own[own] < newest[own]))
            outdated.append(late)
            if at + 1 < grids:  # what is made of it is outdated, too
                newest[self._pyramid.parents(at, late) - self._first] = _NEVER
        return np.concatenate(outdated)
