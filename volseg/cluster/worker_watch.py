"""Whether there are workers, looked at while no block completes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from volseg.errors import ClusterError

if TYPE_CHECKING:
    from volseg.cluster.progress import Progress

_LIVENESS_SECONDS, _NO_WORKERS_SECONDS = 5.0, 300.0
"""Interval of looks for workers while no block completes, and how long there may be none."""


class _Pool(Protocol):
    @property
    def where(self) -> str: ...

    def has_workers(self) -> bool: ...


class WorkerWatch:
    """Checks whether there are workers while no block completes."""

    def __init__(self, pool: _Pool, progress: Progress) -> None:
        self._pool = pool
        self._progress = progress
        self._checked = time.monotonic()
        self._absent_since: float | None = None

    def check(self) -> None:
        """Say once that there are no workers, and give up after minutes.

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
            self._progress.note(f"{self._pool.where} has no workers left; waiting for new ones")
        if now - self._absent_since > _NO_WORKERS_SECONDS:
            raise ClusterError(
                f"{self._pool.where} has had no workers for {_NO_WORKERS_SECONDS / 60:g} minutes; start some, "
                "then rerun with --resume instead of --overwrite"
            )
