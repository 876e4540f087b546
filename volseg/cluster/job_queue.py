"""The order of blocks: failed ones that wait for another worker, then quarantined ones, then new ones."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class BlockTask:
    """One attempt at a block.

    Attributes:
        number: of the block.
        attempt: 1 for the first.
        failed_on: workers on which it failed.
    """

    number: int
    attempt: int = 1
    failed_on: tuple[str, ...] = ()


class BlockQueue:
    """Blocks to start.

    A block whose worker died is quarantined: such blocks run one at a time, so that the one that kills workers is
    identified, and not those that ran beside it.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        """Take the numbers of the blocks, consumed as they start."""
        self._new = iter(numbers)
        self._retries: deque[BlockTask] = deque()
        self._quarantine: deque[BlockTask] = deque()
        self._isolated: BlockTask | None = None
        self._in_flight = 0
        self.peak_in_flight = 0

    def take(self) -> BlockTask | None:
        """The next task; None if there is none for now."""
        task = self._next()
        if task is not None:
            self._in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self._in_flight)
        return task

    def _next(self) -> BlockTask | None:
        if self._retries:
            return self._retries.popleft()
        if self._quarantine and self._isolated is None:
            self._isolated = self._quarantine.popleft()
            return self._isolated
        number = next(self._new, None)
        return None if number is None else BlockTask(number)

    def completed(self, task: BlockTask) -> None:
        """An attempt has ended, well or badly; the next quarantined block may run."""
        self._in_flight -= 1
        if task is self._isolated:
            self._isolated = None

    def retry(self, task: BlockTask, worker: str) -> None:
        """Queue a failed block again, for a worker on which it has not failed."""
        self._retries.append(replace(task, attempt=task.attempt + 1, failed_on=(*task.failed_on, worker)))

    def quarantine(self, task: BlockTask) -> None:
        """Queue a block again whose worker died."""
        self._quarantine.append(replace(task, attempt=task.attempt + 1))
