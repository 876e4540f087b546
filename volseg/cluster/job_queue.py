"""The order of blocks: failed ones that have waited, then isolated ones, then new ones."""

from __future__ import annotations

import heapq
import time
from collections import deque
from dataclasses import dataclass, replace
from itertools import count
from operator import length_hint
from typing import TYPE_CHECKING

from volseg.system import last_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class BlockTask:
    """One attempt at a block.

    Attributes:
        number: of the block.
        attempt: 1 for the first.
        failed_on: workers on which it failed.
        most: blocks of the task in which it may be sent, after its worker died; 0 for any number.
    """

    number: int
    attempt: int = 1
    failed_on: tuple[str, ...] = ()
    most: int = 0


class BlockQueue:
    """Blocks to start.

    A block whose worker died twice is isolated: such blocks run one at a time, so that the one that kills workers is
    identified, and not those that ran beside it.

    Attributes:
        holds_new: whether new blocks wait, because all fail; those that failed are tried again meanwhile.
        peak_in_flight: maximum number of blocks started and not completed.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        """Take the numbers of the blocks, consumed as they start."""
        self._new = iter(numbers)
        self._retries: list[tuple[float, int, BlockTask]] = []
        self._order = count()
        self._isolated: deque[BlockTask] = deque()
        self._running_alone: BlockTask | None = None
        self._in_flight = 0
        self.holds_new = False
        self.peak_in_flight = 0

    def take(self) -> BlockTask | None:
        """The next task; None if there is none for now."""
        task = self._next()
        if task is not None:
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        return task

    def take_like(self, first: BlockTask) -> BlockTask | None:
        """The next task, if it is a first attempt and may be sent with another; None if not."""
        if self._retries:
            waiting = self._retries[0][2]
            if self._retries[0][0] <= time.monotonic():
                return self.take() if (waiting.attempt, waiting.most) == (1, first.most) else None
        is_new = not (first.most or self.holds_new or (self._isolated and self._running_alone is None))
        return self.take() if is_new else None

    @property
    def remaining(self) -> int:
        """New blocks that are left, as far as their iterator tells; 0 if it does not."""
        return length_hint(self._new)

    def _next(self) -> BlockTask | None:
        if last_blocks.requested:
            return None
        if self.pause == 0.0:
            return heapq.heappop(self._retries)[2]
        if self._isolated and self._running_alone is None:
            self._running_alone = self._isolated.popleft()
            return self._running_alone
        if self.holds_new and (self._retries or self._isolated or self._in_flight):
            return None
        number = next(self._new, None)
        return None if number is None else BlockTask(number)

    @property
    def pause(self) -> float | None:
        """Seconds until a failed block may be tried again; None if none waits for its time."""
        if not self._retries or last_blocks.requested:
            return None
        return max(0.0, self._retries[0][0] - time.monotonic())

    def completed(self, task: BlockTask) -> None:
        """An attempt has ended, well or badly; the next isolated block may run."""
        self._in_flight -= 1
        if task is self._running_alone:
            self._running_alone = None

    def put_back(self, task: BlockTask) -> None:
        """Queue a block again that was not attempted."""
        heapq.heappush(self._retries, (time.monotonic(), next(self._order), task))

    def retry(self, task: BlockTask, worker: str, seconds: float = 0.0) -> None:
        """Queue a failed block again, after some seconds, for a worker on which it has not failed."""
        again = replace(task, attempt=task.attempt + 1, failed_on=(*task.failed_on, worker))
        heapq.heappush(self._retries, (time.monotonic() + seconds, next(self._order), again))

    def isolate(self, task: BlockTask) -> None:
        """Queue a block again whose worker died."""
        self._isolated.append(replace(task, attempt=task.attempt + 1))
