"""Utilisation of the devices of a run."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class _Worker:
    first: float
    last: float
    forward_seconds: float = 0.0


@dataclass(slots=True)
class Utilization:
    """The fraction of its time that each worker spends in forward passes, from its first finished block on.

    The time before is warm-up: opening the model, the first forward pass.

    >>> utilization = Utilization()
    >>> for now in (10.0, 12.0, 14.0):
    ...     utilization.add("a", forward_seconds=1.5, now=now)
    >>> utilization.fractions(), utilization.mean
    ({'a': 0.75}, 0.75)
    """

    _workers: dict[str, _Worker] = field(default_factory=dict)

    def add(self, worker: str, forward_seconds: float, now: float) -> None:
        """Count a finished block.

        Args:
            worker: that computed it.
            forward_seconds: time of its forward passes.
            now: time at which it was reported, in seconds of any clock.
        """
        if worker not in self._workers:
            self._workers[worker] = _Worker(now, now)
            return
        known = self._workers[worker]
        known.last, known.forward_seconds = now, known.forward_seconds + forward_seconds

    def fractions(self) -> dict[str, float]:
        """For each worker that finished at least two blocks; 1 is all of its time."""
        return {
            name: min(1.0, worker.forward_seconds / (worker.last - worker.first))
            for name, worker in self._workers.items()
            if worker.last > worker.first
        }

    @property
    def mean(self) -> float | None:
        """Mean over the workers; None as long as none has finished two blocks."""
        fractions = self.fractions()
        return sum(fractions.values()) / len(fractions) if fractions else None
