"""Blocks in flight on a Dask cluster: sent in batches, reported through events.

    driver                     scheduler                  worker
      |  numbers of many blocks    |                         |
      |--------------------------->|   a task for each       |
      |                            |------------------------>|  compute
      |        its result, and that the task has ended       |
      |<---------------------------|<------------------------|

Fetching a result takes a round trip from driver to worker. So the worker reports it in an event, which precedes the
task's end on the same stream and cannot be lost without it. A result is fetched only if its event is missing.
"""

from __future__ import annotations

import contextlib
import math
import time
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, Self
from uuid import uuid4

from volseg.cluster.attempt import Attempt, Failure, pack, unpack
from volseg.cluster.ending import attempt_before_end
from volseg.cluster.error_classes import DIED, classify
from volseg.cluster.lateness import DISPLACED, LateBlocks, Sent
from volseg.cluster.worker_watch import WorkerWatch
from volseg.errors import ClusterError, redact
from volseg.pipeline import BlockReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from distributed import Client

    from volseg.cluster.job_queue import BlockQueue, BlockTask
    from volseg.cluster.policy import Deadline
    from volseg.cluster.progress import Progress

SLOT = "slot"
"""The Dask resource that counts the blocks a worker may hold at once."""
BLOCKS_PER_SLOT = 2
"""Blocks in the window per slot: one runs and one waits, so that no worker waits for the driver."""
TOPIC = "volseg-blocks"
"""Of the workers' events. One for all runs, because a scheduler keeps the last events of every topic."""
_GATHER_SECONDS = 0.002
"""After a completed block the driver waits so long for more, to send their successors in one message."""
_SILENT_SECONDS = 0.2
"""Without events for so long, the driver looks for tasks that ended without one: their workers died."""
_FUTURES_SECONDS = 1.0
"""Interval of that look while events arrive."""
_FORGET_SECONDS = 30.0
"""Interval at which the scheduler drops the metadata it keeps of every message."""


class WorkerPool(Protocol):
    """Workers that come and go."""

    @property
    def where(self) -> str: ...

    @property
    def slots(self) -> int: ...

    @property
    def resources(self) -> dict[str, int]: ...

    @property
    def patient(self) -> bool: ...

    def refresh(self) -> None: ...

    def has_workers(self) -> bool: ...

    def workers_except(self, names: tuple[str, ...]) -> list[str]: ...

    def preferred(self) -> list[str] | None: ...

    def holders(self) -> dict[str, str]: ...

    def to_replace(self) -> list[str]: ...

    def restart(self, worker: str) -> None: ...

    def cause_of_death(self) -> str: ...


class SubmissionWindow:
    """Blocks that were sent and have not completed.

    A client serves one window at a time.

    Args:
        pool: the workers; their slots limit the size of the window.
        client: the connection to them.
        compute: processes one block; it is sent to workers, with the number and nothing else.
    """

    def __init__(self, pool: WorkerPool, client: Client, compute: Callable[[int], BlockReport]) -> None:
        self._pool = pool
        self._client = client
        self._task = partial(attempt_on_worker, compute=compute)
        # A scheduler takes tasks of one key for one task, whoever sends them: two runs must never share a key.
        self._prefix = f"volseg-{uuid4().hex[:12]}-"
        self._sent: dict[str, Sent] = {}
        self._late, self._watch = LateBlocks(BLOCKS_PER_SLOT, pool.holders), WorkerWatch(pool)
        self._events: SimpleQueue[Sequence[Any]] = SimpleQueue()
        self._checked = self._forgot = time.monotonic()

    def __enter__(self) -> Self:
        self._client.subscribe_topic(TOPIC, self._on_event)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for key in list(self._sent):
            self._pop(key)
        from distributed.client import ClosedClientError  # noqa: PLC0415 - a serial run needs no Dask

        with contextlib.suppress(ClosedClientError):
            self._client.unsubscribe_topic(TOPIC)

    def __len__(self) -> int:
        return len(self._sent)

    def fill(self, queue: BlockQueue) -> None:
        """Send as many blocks as fit; new ones in one message."""
        self._pool.refresh()
        if time.monotonic() - self._forgot > _FORGET_SECONDS:
            self._forgot = time.monotonic()
            with contextlib.suppress(OSError):  # `wait` notices a scheduler that is gone
                self._client.run_on_scheduler(_forget_messages())
        new: list[BlockTask] = []
        while len(self._sent) + len(new) < BLOCKS_PER_SLOT * self._pool.slots and (task := queue.take()) is not None:
            if task.failed_on:
                self._send([task], self._pool.workers_except(task.failed_on))
            else:
                new.append(task)
        if new:
            self._send(new, self._pool.preferred())

    def wait(
        self, progress: Progress, deadline: Deadline, pause: float | None = None
    ) -> list[tuple[BlockTask, Attempt]]:
        """Wait until blocks complete or are late, and remove them from the window.

        Args:
            progress: receives what is noticed.
            deadline: of a block.
            pause: seconds after which a block may be sent, so that nothing is waited for any longer.

        Raises:
            ClusterError: the scheduler is gone, or there were no workers for minutes.
        """
        until = time.monotonic() + (math.inf if pause is None else pause)
        while True:
            completed = self._replaced(deadline)
            completed += self._from_events(min(_SILENT_SECONDS, max(0.0, until - time.monotonic())))
            if not completed or time.monotonic() - self._checked > _FUTURES_SECONDS:
                completed += self._from_futures()
            if completed:
                self._watch.reset()
                return completed
            self._watch.check(progress)
            if time.monotonic() >= until:
                return []
            if not self._sent:
                time.sleep(max(0.0, min(_SILENT_SECONDS, until - time.monotonic())))

    def _replaced(self, deadline: Deadline) -> list[tuple[BlockTask, Attempt]]:
        """Replace the workers that hold late blocks or are to be replaced; returns the blocks that they held."""
        workers = self._late.find(self._sent, deadline)
        for worker in self._pool.to_replace():
            workers.setdefault(worker, {key: DISPLACED for key, at in self._pool.holders().items() if at == worker})
        completed = []
        for worker, failures in workers.items():
            held = [(self._pop(key), failure) for key, failure in failures.items() if key in self._sent]
            completed += [(task, Attempt(task.number, worker, failure)) for task, failure in held]
            self._pool.restart(worker)
        return completed

    def _send(self, tasks: list[BlockTask], workers: list[str] | None = None) -> None:
        keys = [f"{self._prefix}{task.number}-{task.attempt}" for task in tasks]
        futures = self._client.map(
            self._task,
            [task.number for task in tasks],
            key=keys,
            pure=False,
            resources=self._pool.resources,
            # A preference: if the other workers are gone, the one on which it failed may try again.
            workers=workers or None,
            allow_other_workers=bool(workers),
        )
        self._sent.update(zip(keys, map(Sent, futures, tasks), strict=True))

    def _on_event(self, event: tuple[float, Sequence[Any]]) -> None:
        """Queue an event of this run, in Dask's thread; other runs of the scheduler share the topic."""
        if event[1][0].startswith(self._prefix):
            self._events.put(event[1])

    def _from_events(self, timeout: float) -> list[tuple[BlockTask, Attempt]]:
        """Attempts that workers reported, gathered for a moment after the first."""
        completed: list[tuple[BlockTask, Attempt]] = []
        until = 0.0
        while self._sent:
            try:
                key, *values = self._events.get(timeout=timeout)
            except Empty:
                break
            if key in self._sent:  # else a task that Dask ran twice, or a late one
                attempt = unpack(values)
                completed.append((self._pop(key), attempt))
                if isinstance(attempt.result, BlockReport):
                    self._late.warm(attempt.worker)
            until = until or time.monotonic() + _GATHER_SECONDS
            timeout = max(0.0, until - time.monotonic())
        return completed

    def _from_futures(self) -> list[tuple[BlockTask, Attempt]]:
        """Attempts that ended without an event, after all that were reported."""
        self._checked = time.monotonic()
        ended = [k for k, sent in self._sent.items() if sent.future.status in ("finished", "error", "cancelled")]
        completed = self._from_events(0.0)
        for key in ended:
            if key in self._sent:
                attempt = _result(self._sent[key], self._pool)
                completed.append((self._pop(key), attempt))
        return completed

    def _pop(self, key: str) -> BlockTask:
        sent = self._sent.pop(key)
        sent.future.release()
        return sent.task


def attempt_on_worker(number: int, compute: Callable[[int], BlockReport]) -> Attempt:
    """Attempt a block in a Dask task, and report it in an event."""
    from distributed import get_worker  # noqa: PLC0415 - this runs on a worker

    worker = get_worker()
    attempt = attempt_before_end(number, compute, str(worker.address))
    with contextlib.suppress(TypeError):  # the driver fetches a result that no message can carry
        worker.log_event(TOPIC, [worker.get_current_task(), *pack(attempt)])
    return attempt


def _forget_messages() -> Callable[[Any], None]:
    """A function that makes a scheduler drop its metadata of messages, 300 bytes each, kept for diagnostics."""

    def forget(dask_scheduler: Any) -> None:  # pickled by value: a scheduler need not have volseg
        spans = getattr(dask_scheduler.extensions.get("spans"), "spans", {})
        for span in spans.values():
            collections = (span.metadata or {}).get("collections", [])
            collections[:] = [entry for entry in collections if entry != {"type": "Future"}]

    return forget


def _result(sent: Sent, pool: WorkerPool) -> Attempt:
    """The attempt of a future, or the failure that Dask reports; ClusterError if the scheduler is gone."""
    from distributed import KilledWorker  # noqa: PLC0415 - a serial run needs no Dask

    if sent.future.cancelled():
        raise ClusterError("the scheduler was lost; start it again, then rerun with --resume instead of --overwrite")
    error = sent.future.exception()
    if error is None:
        return sent.future.result()
    if isinstance(error, KilledWorker):
        address = getattr(error.last_worker, "address", "a worker")
        return Attempt(sent.task.number, address, Failure.of(DIED, f"the worker died: {pool.cause_of_death()}"))
    message = redact(f"{type(error).__name__}: {error}".splitlines()[0])
    return Attempt(sent.task.number, "a worker", Failure.of(classify(error), message))
