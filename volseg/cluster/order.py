"""The order of blocks: those of level 0 as they are listed, and each of a coarser level when it can be made."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Self

import numpy as np

from volseg.blocks import BlockSet
from volseg.cluster.missing_finer import members, missing_finer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from volseg.blocks import PyramidGrid
    from volseg.cluster.attempt import Attempt
    from volseg.cluster.job_queue import BlockTask
    from volseg.pipeline import BlockReport


class BlockOrder:
    """Yields block numbers; it may have none for the moment, and some again when blocks that were sent have ended.

    A block of a coarser level is made when all blocks are done that it is made of, and again whenever one of them is.
    It keeps bits of blocks of level 0, and a few bytes for each block of a coarser level.
    """

    def __init__(
        self,
        numbers: Iterable[int],
        pyramid: PyramidGrid,
        done: BlockSet,
        coarser: BlockSet,
        planned: BlockSet | None = None,
        *,
        count: int = 0,
    ) -> None:
        """Take the blocks of level 0 in their order.

        Args:
            numbers: of blocks of level 0 to compute.
            pyramid: all blocks.
            done: blocks of level 0 that are done before.
            coarser: blocks of coarser levels that are; loses those that are made again.
            planned: the blocks of all levels to compute; None for all.
            count: of `numbers`, about; 0 if unknown.
        """
        self._finest, self._pyramid, self._planned = iter(numbers), pyramid, planned
        self._before, self._coarser, self._now = done, coarser, BlockSet()
        self._first, self._count = pyramid.base.count, count
        self._missing = missing_finer(pyramid, self._undone)
        self._ready = deque[int]()
        self._queued, self._sent, self._outdated = set[int](), set[int](), set[int]()
        self._unswept = deque(range(1, len(pyramid.grids)))

    def __iter__(self) -> Self:
        return self

    def __length_hint__(self) -> int:
        """Blocks of level 0 that are left, about; 0 if that is unknown."""
        return max(1, self._count) if self._count else 0

    def __next__(self) -> int:
        number = self._next()
        while number is None:
            if self._sent or not self._unswept:
                raise StopIteration
            self._sweep(self._unswept.popleft())
            number = self._next()
        self._sent.add(number)
        return number

    def _next(self) -> int | None:
        if not self._ready:
            self._count -= self._count > 1
            return next(self._finest, None)
        number = self._ready.popleft()
        self._queued.discard(number)
        return number

    def done(self, number: int) -> None:
        """A block is done: the one above it is to be made, or made again, if it can be."""
        self._sent.discard(number)
        if number in self._outdated:
            self._outdated.discard(number)
            self._queue(number)
            return
        was_done = self._is_done(number)
        self._now.add(number)
        parent = self._pyramid.parent(number)
        if parent is None or not self._is_planned(parent):
            return
        if not was_done and self._is_planned(number):
            self._missing[parent - self._first] -= 1
        self._undo(parent)
        if parent in self._sent:
            self._outdated.add(parent)
        elif not self._missing[parent - self._first]:
            self._queue(parent)

    def _undo(self, number: int) -> None:
        """A block of a coarser level is not done any more."""
        if self._is_done(number):
            self._now.discard(number)
            self._coarser.discard(number)
            above = self._pyramid.parent(number)
            if above is not None and self._is_planned(number):
                self._missing[above - self._first] += 1

    def given_up(self, number: int) -> None:
        """A block has failed permanently; no block of a coarser level that needs it is made."""
        self._sent.discard(number)
        self._outdated.discard(number)

    def tracking(self, on_done: Callable[[BlockReport, int, str], None]) -> Callable[[BlockReport, int, str], None]:
        """`on_done` of `run_blocks`, which then tells this order."""

        def call(report: BlockReport, attempt: int, worker: str) -> None:
            on_done(report, attempt, worker)
            self.done(report.number)

        return call

    def tracking_failures(
        self, on_failed: Callable[[BlockTask, Attempt, bool], None]
    ) -> Callable[[BlockTask, Attempt, bool], None]:
        """`on_failed` of `run_blocks`, which then tells this order."""

        def call(task: BlockTask, attempt: Attempt, given_up: bool) -> None:
            on_failed(task, attempt, given_up)
            if given_up:
                self.given_up(task.number)

        return call

    @property
    def left(self) -> int:
        """Planned blocks of coarser levels that are not done."""
        if len(self._pyramid.grids) == 1:
            return 0
        return int(np.count_nonzero(self._undone(self._first, self._pyramid.count)))

    def _queue(self, number: int) -> None:
        if number not in self._queued:
            self._queued.add(number)
            self._ready.append(number)

    def _sweep(self, grid: int) -> None:
        """Find the blocks of a level that are not done and can be made, when nothing else is left below it."""
        numbers = self._pyramid.numbers(grid)
        self._missing = missing_finer(self._pyramid, self._undone)  # some may have been found to be lost
        missing = self._missing[numbers.start - self._first : numbers.stop - self._first]
        for at in np.flatnonzero(self._undone(numbers.start, numbers.stop) & (missing == 0)):
            self._queue(numbers.start + int(at))

    def _undone(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Whether each block from one to another is planned and not done."""
        done = members(self._now, start, stop)
        for blocks in (self._before, self._coarser):
            done = done | members(blocks, start, stop)
        return members(self._planned, start, stop) & ~done

    def _is_done(self, number: int) -> bool:
        return number in self._now or number in self._before or number in self._coarser

    def _is_planned(self, number: int) -> bool:
        return self._planned is None or number in self._planned
