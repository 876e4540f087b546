"""When a failed block is tried again, when a block is late, and when a run ends."""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST_BACKOFF = 1.0
"""Seconds between the first and the second attempt at a block."""
MIN_FAILED = 16
"""Blocks that a run may always give up."""
_OUTAGE_FACTOR = 10.0
_MEAN_OF = 100
"""Blocks over which the time of a block is averaged."""


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """What a run bears.

    Attributes:
        first_backoff: seconds between the first and the second attempt at a block; ten times as long while all fail.
        backoff_factor: between one pause and the next.
        max_backoff: seconds.
        early: blocks; the run ends if so many failed before any was done.
        max_failed: blocks that may be given up.
        strikes: failures in succession after which a worker is replaced, and after as many again left out.
    """

    first_backoff: float = field(default_factory=lambda: FIRST_BACKOFF)
    backoff_factor: float = 5.0
    max_backoff: float = 120.0
    early: int = 8
    max_failed: int = MIN_FAILED
    strikes: int = 3

    def backoff(self, attempt: int, *, all_fail: bool = False) -> float:
        """Seconds to wait after an attempt.

        >>> [FailurePolicy().backoff(attempt) for attempt in (1, 2, 3, 4)]
        [1.0, 5.0, 25.0, 120.0]
        >>> [FailurePolicy().backoff(attempt, all_fail=True) for attempt in (1, 2, 3, 4)]
        [10.0, 50.0, 120.0, 120.0]
        """
        seconds = self.first_backoff * self.backoff_factor ** (attempt - 1)
        return min(seconds * _OUTAGE_FACTOR if all_fail else seconds, self.max_backoff)


@dataclass(slots=True)
class Deadline:
    """Seconds that a block may take on a worker.

    Attributes:
        given: by the user; None to derive it from the blocks that are done.
        first: at least, for the first block on a worker, which loads and may compile the network.
        least: if it is derived, and for the first block if it is given.
        factor: of the mean time of the last blocks, if it is derived.
        mean: seconds of the last blocks.
    """

    given: float | None = None
    first: float = 600.0
    least: float = 120.0
    factor: float = 10.0
    mean: float = 0.0
    _blocks: int = field(default=0)

    def add(self, seconds: float) -> None:
        """Count a block that was computed."""
        self._blocks = min(self._blocks + 1, _MEAN_OF)
        self.mean += (seconds - self.mean) / self._blocks

    def seconds(self, *, warm: bool) -> float:
        """For a worker that has done a block of this run, or has not.

        >>> deadline = Deadline()
        >>> deadline.add(30.0)
        >>> deadline.seconds(warm=True), deadline.seconds(warm=False), Deadline(5.0).seconds(warm=False)
        (300.0, 600.0, 120.0)
        """
        if self.given is not None:
            return self.given if warm else max(self.given, self.least)
        derived = max(self.least, self.factor * self.mean)
        return derived if warm and self._blocks else max(self.first, derived)

    def __str__(self) -> str:
        return f"blocks of this run take {self.mean:.3g} s" if self._blocks else "no block is done yet"
