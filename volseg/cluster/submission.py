"""The blocks that a Dask cluster holds: sent in groups, told of by the workers that did them.

    driver                     scheduler                  worker
      |  numbers of many blocks    |                         |
      |--------------------------->|   a task for each       |
      |                            |------------------------>|  compute
      |       what came of it, and that the task ended       |
      |<---------------------------|<------------------------|

To fetch a result takes a round trip from driver to worker; so the worker tells of it in an event, which goes ahead of
the task's end on the same stream and cannot be lost without it. The result itself is fetched only where none came.
"""

from __future__ import annotations

import contextlib
import time
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from volseg.cluster.attempt import Attempt, Failure, attempted, packed, unpacked
from volseg.cluster.executor import SLOT, Cluster
from volseg.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from distributed import Client, Future

    from volseg.cluster.job_queue import BlockQueue, BlockTask
    from volseg.cluster.progress import Progress
    from volseg.pipeline import BlockReport

AHEAD = 2
"""Blocks in the window for each slot: one that runs and one that waits, so that no worker waits for the driver."""
TOPIC = "volseg-blocks"
"""Where workers tell of blocks. One for all runs, because a scheduler keeps the last events of every topic for ever."""
_GATHER_SECONDS = 0.002
"""How long the driver listens for more blocks once one came back, to send as many new ones in one message."""
_SILENT_SECONDS = 0.2
"""How long nothing may be told of before the driver looks for blocks that ended untold: their workers died."""
_BETWEEN_LOOKS_SECONDS = 1.0
"""How often it looks for them while others are told of."""
_TIDY_SECONDS = 30.0
"""How often the scheduler is asked to drop what it would keep of every message with blocks."""
_LOOK_SECONDS = 5.0
"""How long no block may come back before the driver looks whether there are workers at all."""
_WITHOUT_WORKERS_SECONDS = 300.0


class SubmissionWindow:
    """Blocks that were sent and are not yet back.

    A client serves one window at a time.

    Args:
        cluster: who computes; its slots say how many blocks are held.
        client: the connection to it.
        compute: does one block; it is sent to workers, with the number and nothing else.
    """

    def __init__(self, cluster: Cluster, client: Client, compute: Callable[[int], BlockReport]) -> None:
        self._cluster = cluster
        self._client = client
        self._task = partial(on_worker, compute=compute)
        # A scheduler takes tasks of one key for one task, whoever sends them: two runs must never share a key.
        self._prefix = f"volseg-{uuid4().hex[:12]}-"
        self._sent: dict[str, tuple[Future[Attempt], BlockTask]] = {}
        self._heard: SimpleQueue[Sequence[Any]] = SimpleQueue()
        self._looked = self._tidied = time.monotonic()

    def __enter__(self) -> Self:
        self._client.subscribe_topic(TOPIC, self._hear)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in list(self._sent):
            self._take(key)
        from distributed.client import ClosedClientError  # noqa: PLC0415 - a serial run needs no Dask

        with contextlib.suppress(ClosedClientError):
            self._client.unsubscribe_topic(TOPIC)

    def __len__(self) -> int:
        return len(self._sent)

    def fill(self, jobs: BlockQueue) -> None:
        """Send as many blocks as there is room for; those that nobody tried go as one message."""
        self._cluster.refresh()
        if time.monotonic() - self._tidied > _TIDY_SECONDS:
            self._tidied = time.monotonic()
            with contextlib.suppress(OSError):  # a scheduler that is gone is noticed in `wait`
                self._client.run_on_scheduler(_tidying())
        new: list[BlockTask] = []
        while len(self._sent) + len(new) < AHEAD * self._cluster.slots and (job := jobs.take()) is not None:
            if job.failed_on:
                self._send([job], self._cluster.others(job.failed_on))
            else:
                new.append(job)
        if new:
            self._send(new)

    def wait(self, progress: Progress) -> list[tuple[BlockTask, Attempt]]:
        """Wait until blocks are back, and take them out of the window.

        Raises:
            ClusterError: the scheduler is gone, or there has been no worker for minutes.
        """
        absence = _Absence(self._cluster, progress)
        while True:
            completed = self._from_events(_SILENT_SECONDS)
            if not completed or time.monotonic() - self._looked > _BETWEEN_LOOKS_SECONDS:
                completed += self._from_futures()
            if completed:
                return completed
            absence.look()

    def _send(self, jobs: list[BlockTask], wished: list[str] | None = None) -> None:
        keys = [f"{self._prefix}{job.number}-{job.attempt}" for job in jobs]
        futures = self._client.map(
            self._task,
            [job.number for job in jobs],
            key=keys,
            pure=False,
            resources={SLOT: 1},
            # Only a wish: were the other workers gone, the one that failed may try again.
            workers=wished or None,
            allow_other_workers=bool(wished),
        )
        self._sent.update(zip(keys, zip(futures, jobs, strict=True), strict=True))

    def _hear(self, event: tuple[float, Sequence[Any]]) -> None:
        """Take an event of the topic, in Dask's thread; other runs of this scheduler are told of there too."""
        if event[1][0].startswith(self._prefix):
            self._heard.put(event[1])

    def _from_events(self, timeout: float) -> list[tuple[BlockTask, Attempt]]:
        """What workers told of: all that was sent, or what comes within moments of the first."""
        completed: list[tuple[BlockTask, Attempt]] = []
        until = 0.0
        while self._sent:
            try:
                key, *values = self._heard.get(timeout=timeout)
            except Empty:
                break
            if key in self._sent:  # else a task that Dask did twice
                completed.append((self._take(key)[1], unpacked(values)))
            until = until or time.monotonic() + _GATHER_SECONDS
            timeout = max(0.0, until - time.monotonic())
        return completed

    def _from_futures(self) -> list[tuple[BlockTask, Attempt]]:
        """What ended although no worker told of it, after all that was told."""
        self._looked = time.monotonic()
        ended = [k for k, (future, _) in self._sent.items() if future.status in ("finished", "error", "cancelled")]
        completed = self._from_events(0.0)
        for key in ended:
            if key in self._sent:
                future, job = self._sent[key]
                completed.append((job, _result(future, job)))
                self._take(key)
        return completed

    def _take(self, key: str) -> tuple[Future[Attempt], BlockTask]:
        future, job = self._sent.pop(key)
        future.release()
        return future, job


def on_worker(number: int, compute: Callable[[int], BlockReport]) -> Attempt:
    """What a Dask task does."""
    from distributed import get_worker  # noqa: PLC0415 - this runs on a worker

    worker = get_worker()
    attempt = attempted(number, compute, str(worker.address))
    with contextlib.suppress(TypeError):  # what a message cannot carry is fetched
        worker.log_event(TOPIC, [worker.get_current_task(), *packed(attempt)])
    return attempt


def _tidying() -> Callable[[Any], None]:
    """What makes a scheduler forget that it got messages: 300 bytes for each, kept for diagnostics and for ever."""

    def tidy(dask_scheduler: Any) -> None:  # sent as it stands, for a scheduler need not have volseg
        spans = getattr(dask_scheduler.extensions.get("spans"), "spans", {})
        for span in spans.values():
            told = (span.metadata or {}).get("collections", [])
            told[:] = [each for each in told if each != {"type": "Future"}]

    return tidy


def _result(future: Future[Attempt], job: BlockTask) -> Attempt:
    """The attempt a future holds, or the failure that Dask itself met: a worker that died.

    Raises:
        ClusterError: the scheduler is gone, and its tasks with it.
    """
    if future.cancelled():
        raise ClusterError("the scheduler was lost; start it again and give --resume instead of --overwrite")
    error = future.exception()
    if error is None:
        return future.result()
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Attempt(
        job.number, "a worker that was lost", Failure(f"{type(error).__name__}: {message}", again=True, lost=True)
    )


class _Absence:
    """Whether there are workers at all, asked now and then while nothing comes back."""

    def __init__(self, cluster: Cluster, progress: Progress) -> None:
        self._cluster = cluster
        self._progress = progress
        self._looked = time.monotonic()
        self._since: float | None = None

    def look(self) -> None:
        """Say once that there are none, and give up after minutes.

        Raises:
            ClusterError: there has been no worker for minutes.
        """
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        if self._cluster.alive():
            self._since = None
            return
        if self._since is None:
            self._since = now
            self._progress.note(f"{self._cluster.where} has no workers left; waiting for some to come")
        if now - self._since > _WITHOUT_WORKERS_SECONDS:
            raise ClusterError(
                f"{self._cluster.where} has had no workers for {_WITHOUT_WORKERS_SECONDS / 60:g} minutes; start some, "
                "then give --resume instead of --overwrite"
            )
