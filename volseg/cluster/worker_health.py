"""Workers on which block after block fails."""

from __future__ import annotations

from collections import Counter
from typing import Literal


class WorkerHealth:
    """Counts the failures in succession of each worker.

    >>> health = WorkerHealth(strikes=2)
    >>> [health.failed("a") for _ in range(4)]
    [None, 'replace', None, 'leave out']
    >>> health.succeeded("a")
    >>> health.failed("a")

    Args:
        strikes: failures after which a worker is replaced, and after as many again left out.
    """

    def __init__(self, strikes: int) -> None:
        self._strikes = strikes
        self._failures: Counter[str] = Counter()

    def succeeded(self, name: str) -> None:
        """Forget the failures of a worker."""
        del self._failures[name]

    def failed(self, name: str) -> Literal["replace", "leave out"] | None:
        """Count a failure; returns what to do with the worker."""
        self._failures[name] += 1
        if self._failures[name] == self._strikes:
            return "replace"
        return "leave out" if self._failures[name] == 2 * self._strikes else None
