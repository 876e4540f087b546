"""Counts what a run takes while it runs: how long it holds workers, and what they do meanwhile."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from volseg.storage import KindUsage, StartUsage, UsageLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from volseg.cluster import Attempt, BlockTask, Executor
    from volseg.pipeline import BlockReport
    from volseg.storage import TargetPath

_LOOK_SECONDS = 1.0
_WRITE_SECONDS = 30.0


class UsageMeter:
    """Counts from its start to its end.

    Args:
        executor: whose workers are held.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor, self._began = executor, time.monotonic()
        self._started = datetime.now(UTC)
        self._looked, self._kinds = self._began, dict[str, str]()
        self._held, self._seconds, self._lost = (defaultdict[str, float](float) for _ in range(3))
        self._blocks, self._failures, self._bytes = Counter[str](), Counter[str](), Counter[str]()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._log: UsageLog | None = None
        self._run = ""
        self._thread = threading.Thread(target=self._watch, name="volseg-usage", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    @contextmanager
    def logged(self, folder: TargetPath, run: str) -> Iterator[None]:
        """Write what was counted beside a journal, now and then and at the end; `run` is the digest of its record."""
        self._run = run
        self._log = UsageLog(folder, f"{self._started:%Y%m%d-%H%M%S}-{uuid4().hex[:8]}")
        try:
            yield
        finally:
            log, self._log = self._log, None
            log.write(self.usage())

    def counting(self, on_done: Callable[[BlockReport, int, str], None]) -> Callable[[BlockReport, int, str], None]:
        """`on_done` of `run_blocks`, which counts too."""

        def call(report: BlockReport, attempt: int, worker: str) -> None:
            on_done(report, attempt, worker)
            with self._lock:
                self._kinds[worker] = report.kind
                self._seconds[worker] += report.seconds
                self._blocks[worker] += 1
                self._bytes[worker] += report.bytes

        return call

    def counting_failures(
        self, on_failed: Callable[[BlockTask, Attempt, bool], None]
    ) -> Callable[[BlockTask, Attempt, bool], None]:
        """`on_failed` of `run_blocks`, which counts too."""

        def call(task: BlockTask, attempt: Attempt, given_up: bool) -> None:
            with self._lock:
                self._failures[attempt.worker] += 1
                self._lost[attempt.worker] += attempt.result.seconds
            on_failed(task, attempt, given_up)

        return call

    def usage(self) -> StartUsage:
        """What was counted so far."""
        slots = max(1, self._executor.slots_per_worker)
        kinds: dict[str, KindUsage] = {}
        with self._lock:
            for worker in {*self._held, *self._failures, *self._blocks}:
                lost = self._lost[worker] + self._executor.wasted.get(worker, 0.0)
                own = KindUsage(
                    self._held[worker], self._seconds[worker] / slots, lost / slots, self._blocks[worker],
                    self._failures[worker], self._bytes[worker],
                )  # fmt: skip
                kind = self._kinds.get(worker, "")
                kinds[kind] = kinds.get(kind, KindUsage()) + own
            until = self._looked
        return StartUsage(f"{self._started:%Y-%m-%dT%H:%M:%SZ}", until - self._began, kinds, self._run)

    def _watch(self) -> None:
        written = time.monotonic()
        while not self._stop.wait(_LOOK_SECONDS):
            self._look()
            log = self._log
            if log is not None and time.monotonic() - written > _WRITE_SECONDS:
                written = time.monotonic()
                log.write(self.usage())

    def _look(self) -> None:
        """Count the seconds since the last look for each worker that is there."""
        with self._lock:
            now, workers = time.monotonic(), self._executor.workers
            for worker in workers:
                self._held[worker] += now - self._looked
            self._looked = now
