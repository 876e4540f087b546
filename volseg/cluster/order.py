"""The order of blocks: those of level 0 as they are listed, and each of a coarser level when it can be made."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Self

from volseg.blocks import BlockSet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from volseg.blocks import PyramidGrid
    from volseg.cluster.attempt import Attempt
    from volseg.cluster.job_queue import BlockTask
    from volseg.pipeline import BlockReport


class BlockOrder:
    """Yields block numbers; it may have none for the moment, and some again when blocks that were sent have ended.

    A block of a coarser level is made when all blocks are done that it is made of, and again whenever one of them is.
    """

    def __init__(
        self,
        numbers: Iterable[int],
        pyramid: PyramidGrid,
        done: BlockSet,
        coarser: BlockSet,
        planned: BlockSet | None = None,
    ) -> None:
        """Take the blocks of level 0 in their order.

        Args:
            numbers: of blocks of level 0 to compute.
            pyramid: all blocks.
            done: blocks of level 0 that are done before.
            coarser: blocks of coarser levels that are; loses those that are made again.
            planned: the blocks of all levels to compute; None for all.
        """
        self._finest, self._pyramid, self._planned = iter(numbers), pyramid, planned
        self._before, self._coarser = done, coarser
        self._now = BlockSet()
        self._ready = deque[int]()
        self._queued, self._sent, self._outdated = set[int](), set[int](), set[int]()
        self._unswept = deque(range(1, len(pyramid.grids)))

    def __iter__(self) -> Self:
        return self

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
        self._now.add(number)
        parent = self._pyramid.parent(number)
        if parent is None or not self._is_planned(parent):
            return
        self._now.discard(parent)
        self._coarser.discard(parent)
        if parent in self._sent:
            self._outdated.add(parent)
        elif self._can_be_made(parent):
            self._queue(parent)

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
        numbers = range(self._pyramid.numbers(1).start, self._pyramid.count)
        return sum(self._is_planned(number) and not self._is_done(number) for number in numbers)

    def _queue(self, number: int) -> None:
        if number not in self._queued:
            self._queued.add(number)
            self._ready.append(number)

    def _sweep(self, grid: int) -> None:
        """Find the blocks of a level that are not done and can be made, when nothing else is left below it."""
        for number in self._pyramid.numbers(grid):
            if not self._is_done(number) and self._is_planned(number) and self._can_be_made(number):
                self._queue(number)

    def _can_be_made(self, number: int) -> bool:
        return all(self._is_done(child) for child in self._pyramid.children(number) if self._is_planned(child))

    def _is_done(self, number: int) -> bool:
        return number in self._now or number in self._before or number in self._coarser

    def _is_planned(self, number: int) -> bool:
        return self._planned is None or number in self._planned
