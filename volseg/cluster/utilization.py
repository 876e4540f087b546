"""How busy the devices of a run are."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class _Worker:
    first: float
    last: float
    seconds: float = 0.0


@dataclass(slots=True)
class Utilization:
    """The share of its time that each worker spends in the network, from its first finished block on.

    What comes before that is warm-up: opening the model, the first forward pass.

    >>> busy = Utilization()
    >>> for now in (10.0, 12.0, 14.0):
    ...     busy.add("a", seconds=1.5, now=now)
    >>> busy.shares(), busy.share
    ({'a': 0.75}, 0.75)
    """

    _workers: dict[str, _Worker] = field(default_factory=dict)

    def add(self, worker: str, seconds: float, now: float) -> None:
        """A block is done.

        Args:
            worker: who did it.
            seconds: that it was in the network.
            now: when it came back, in seconds on any clock.
        """
        if worker not in self._workers:
            self._workers[worker] = _Worker(now, now)
            return
        known = self._workers[worker]
        known.last, known.seconds = now, known.seconds + seconds

    def shares(self) -> dict[str, float]:
        """Of each worker that did at least two blocks; 1 is all of its time."""
        return {
            name: min(1.0, worker.seconds / (worker.last - worker.first))
            for name, worker in self._workers.items()
            if worker.last > worker.first
        }

    @property
    def share(self) -> float | None:
        """The mean over workers; None before there is any to tell."""
        shares = self.shares()
        return sum(shares.values()) / len(shares) if shares else None
