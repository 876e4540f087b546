"""Whether there are workers, looked at while no block completes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from volseg.errors import ClusterError

if TYPE_CHECKING:
    from volseg.cluster.progress import Progress

_LIVENESS_SECONDS, _NO_WORKERS_SECONDS = 5.0, 300.0
"""Interval of looks, and how long there may be no workers."""


class _Pool(Protocol):
    @property
    def where(self) -> str: ...

    @property
    def patient(self) -> bool: ...

    def has_workers(self) -> bool: ...


class WorkerWatch:
    """Says once that there are no workers, and gives up after minutes, unless they are queued jobs."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self.reset()

    def reset(self) -> None:
        """A block has completed."""
        self._checked = time.monotonic()
        self._absent_since: float | None = None

    def check(self, progress: Progress) -> None:
        """Look, at most every few seconds.

        Args:
            progress: receives a note.

        Raises:
            ClusterError: there were no workers for minutes.
        """
        now = time.monotonic()
        if now - self._checked < _LIVENESS_SECONDS:
            return
        self._checked = now
        if self._pool.has_workers():
            self._absent_since = None
            return
        if self._absent_since is None:
            self._absent_since = now
            progress.note(f"{self._pool.where} has no workers left; waiting for new ones")
        if now - self._absent_since > _NO_WORKERS_SECONDS and not self._pool.patient:
            raise ClusterError(
                f"{self._pool.where} has had no workers for {_NO_WORKERS_SECONDS / 60:g} minutes; start some, "
                "then rerun with --resume instead of --overwrite"
            )
