"""Which block goes next: one that failed and waits for another worker, a suspect, or a new one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(slots=True)
class BlockTask:
    """A block to do.

    Attributes:
        number: the block's.
        attempt: 1 for the first.
        tried: workers that it failed on.
    """

    number: int
    attempt: int = 1
    failed_on: tuple[str, ...] = ()


class BlockQueue:
    """Blocks to start: those that failed and wait for another worker first, then new ones.

    Suspects go one at a time, so that a block that takes workers down is found out, and not what ran beside it.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._new = iter(numbers)
        self.again: deque[BlockTask] = deque()
        self.quarantine: deque[BlockTask] = deque()
        self._questioned: BlockTask | None = None

    def take(self) -> BlockTask | None:
        """The next job; None where there is none for now."""
        if self.again:
            return self.again.popleft()
        if self.quarantine and self._questioned is None:
            self._questioned = self.quarantine.popleft()
            return self._questioned
        number = next(self._new, None)
        return None if number is None else BlockTask(number)

    def came_back(self, job: BlockTask) -> None:
        """Something came of a job; a next suspect may go."""
        if job is self._questioned:
            self._questioned = None
