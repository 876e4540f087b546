"""How many blocks each block of a coarser level still waits for, by arrays: a byte or two a block, not an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volseg.blocks import BlockSet, PyramidGrid

_SLAB = 1 << 22
"""Blocks of a finer grid that are counted at a time."""


def members(blocks: BlockSet | None, start: int, stop: int) -> NDArray[np.bool_]:
    """Whether each number is in a set; all are if there is none.

    >>> from volseg.blocks import BlockSet
    >>> members(BlockSet([3, 9]), 3, 10).tolist()
    [True, False, False, False, False, False, True]
    """
    return np.ones(stop - start, bool) if blocks is None else blocks.to_flags(start, stop)


def missing_finer(pyramid: PyramidGrid, undone: Callable[[int, int], NDArray[np.bool_]]) -> NDArray[Any]:
    """For each block of coarser levels, how many planned blocks are not done that it is directly made of.

    Args:
        pyramid: all blocks.
        undone: whether each block from one to another is planned and not done.
    """
    base = pyramid.base.count
    missing = np.zeros(pyramid.count - base, np.int32)
    for at in range(len(pyramid.grids) - 1):
        numbers = pyramid.numbers(at)
        for start in range(numbers.start, numbers.stop, _SLAB):
            found = start + np.flatnonzero(undone(start, min(start + _SLAB, numbers.stop)))
            if len(found):
                parents = pyramid.parents(at, found) - base
                low = int(parents.min())
                counts = np.bincount(parents - low)
                missing[low : low + len(counts)] += counts.astype(np.int32)
    return missing
