"""Blocks in flight on a Dask cluster: sent in batches, reported through events.

    driver                     scheduler                  worker
      |  numbers of many blocks    |                         |
      |--------------------------->|   a task for some       |
      |                            |------------------------>|  compute one after the other
      |      their results, and that the task has ended      |
      |<---------------------------|<------------------------|

Fetching a result takes a round trip from driver to worker. So the worker reports it in an event, which precedes the
task's end on the same stream and cannot be lost without it. A result is fetched only if its event is missing.
"""

from __future__ import annotations

import contextlib
import math
import time
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from volseg.cluster.attempt import Attempt, Failure, unpack
from volseg.cluster.batch_task import TOPIC, attempt_on_worker, forget_messages
from volseg.cluster.batching import BatchSize, take_batch
from volseg.cluster.ended_task import result_of, unfinished
from volseg.cluster.lateness import DISPLACED, LateBlocks, Sent
from volseg.cluster.stragglers import Stragglers
from volseg.cluster.worker_watch import WorkerWatch
from volseg.pipeline import BlockReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from distributed import Client

    from volseg.cluster.job_queue import BlockQueue, BlockTask
    from volseg.cluster.policy import Deadline
    from volseg.cluster.progress import Progress
    from volseg.cluster.worker_pool import WorkerPool

SLOT = "slot"
"""The Dask resource that counts the blocks a worker may hold at once."""
TASKS_PER_SLOT = 2
"""Tasks in the window per slot: one runs and one waits, so that no worker waits for the driver."""
_GATHER_SECONDS = 0.002
"""After a completed block the driver waits so long for more, to send their successors in one message."""
_REPORT_SECONDS = 0.1
"""For which a worker gathers reports, at least."""
_SILENT_SECONDS = 0.2
"""Without events for so long, the driver looks for tasks that ended without one: their workers died."""
_FUTURES_SECONDS = 1.0
"""Interval of that look while events arrive."""
_STRANDED_SECONDS = 10.0
"""After which a task that prefers some workers is looked for on them."""
_FORGET_SECONDS = 30.0
"""Interval at which the scheduler drops the metadata it keeps of every message."""


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
        self._compute, self._size = compute, BatchSize()
        # A scheduler takes tasks of one key for one task, whoever sends them: two runs must never share a key.
        self._prefix = f"volseg-{uuid4().hex[:12]}-"
        self._sent: dict[str, Sent] = {}
        self._late, self._watch = LateBlocks(TASKS_PER_SLOT, pool.holders), WorkerWatch(pool)
        self._stragglers, self._is_drained = Stragglers(pool.holders, pool.free), False
        self._events: SimpleQueue[Sequence[Any]] = SimpleQueue()
        self._count = count()
        self._checked = self._forgot = time.monotonic()

    def __enter__(self) -> Self:
        self._client.subscribe_topic(TOPIC, self._on_event)
        return self

    def __exit__(self, *error: object) -> None:
        for key in list(self._sent):
            self._pop(key)
        from distributed.client import ClosedClientError  # noqa: PLC0415 - a serial run needs no Dask

        with contextlib.suppress(ClosedClientError):
            self._client.unsubscribe_topic(TOPIC)

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def has_room(self) -> bool:
        """Whether another task fits."""
        return len(self._sent) < TASKS_PER_SLOT * self._pool.slots

    def fill(self, queue: BlockQueue) -> None:
        """Send as many blocks as fit; new ones in one message."""
        self._pool.refresh()
        if time.monotonic() - self._forgot > _FORGET_SECONDS:
            self._forgot = time.monotonic()
            with contextlib.suppress(OSError):  # `wait` notices a scheduler that is gone
                self._client.run_on_scheduler(forget_messages())
        new: list[list[BlockTask]] = []
        slots = self._pool.slots
        while len(self._sent) + len(new) < TASKS_PER_SLOT * slots:
            batch = take_batch(queue, self._size.blocks(slots, queue.remaining))
            self._is_drained = not batch
            if not batch:
                break
            if batch[0].failed_on:
                self._send([batch], slots, self._pool.workers_except(batch[0].failed_on))
            else:
                new.append(batch)
        if new:
            self._send(new, slots, self._pool.preferred())

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
            if self._is_drained and len(self._sent) < self._pool.slots:
                self._double()
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
        workers = self._late.find(self._sent, deadline, self._size.limit(self._pool.slots))
        for worker in self._pool.to_replace():
            workers.setdefault(worker, {key: DISPLACED for key, at in self._pool.holders().items() if at == worker})
        completed: list[tuple[BlockTask, Attempt]] = []
        for worker, failures in workers.items():
            for key, failure in failures.items():
                if key in self._sent:
                    completed += self._fail(key, worker, failure)
            self._pool.restart(worker)
        return completed

    def _double(self) -> None:
        """Send late tasks a second time."""
        for key, worker in self._stragglers.find(self._sent):
            (twin,) = self._send([list(self._sent[key].tasks.values())], self._pool.slots, [worker])
            self._sent[key].twin, self._sent[twin].twin = twin, key

    def _send(self, batches: list[list[BlockTask]], slots: int, workers: list[str] | None = None) -> list[str]:
        # A block may be sent again as the same attempt: the count keeps keys apart.
        keys = [f"{self._prefix}{batch[0].number}-{next(self._count)}" for batch in batches]
        gather = max(_REPORT_SECONDS, self._size.seconds(slots) / 4)
        futures = self._client.map(
            partial(attempt_on_worker, compute=self._compute, limit=self._size.limit(slots), gather=gather),
            [[task.number for task in batch] for batch in batches],
            key=keys,
            pure=False,
            resources=self._pool.resources,
            # A preference: if the other workers are gone, the one on which it failed may try again.
            workers=workers or None,
            allow_other_workers=bool(workers),
        )
        for key, future, batch in zip(keys, futures, batches, strict=True):
            self._sent[key] = Sent(future, {task.number: task for task in batch}, prefers=bool(workers))
        return keys

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
                key, reports = self._events.get(timeout=timeout)
            except Empty:
                break
            attempts = [unpack(values) for values in reports]
            sent = self._sent.get(key)  # None for a task that Dask ran twice, or for the later of two copies
            for attempt in attempts:
                if sent is None or attempt.number not in sent.tasks:
                    self._pool.discard(attempt)
            if sent is not None:
                completed += self._take(key, attempts)
            until = until or time.monotonic() + _GATHER_SECONDS
            timeout = max(0.0, until - time.monotonic())
        return completed

    def _take(self, key: str, attempts: list[Attempt]) -> list[tuple[BlockTask, Attempt]]:
        """Remove the blocks of some attempts at a task from the window, and the task if they are its last."""
        completed: list[tuple[BlockTask, Attempt]] = []
        sent = self._sent[key]
        for attempt in attempts:
            task = sent.tasks.pop(attempt.number, None)
            if task is None:  # it was reported before
                continue
            if isinstance(attempt.result, BlockReport):
                self._late.warm(attempt.worker)
                self._size.add(attempt.result.seconds)
                self._stragglers.add(attempt)
                if twin := self._sent.get(sent.twin):
                    twin.tasks.pop(attempt.number, None)
            elif attempt.number in self._twin_tasks(sent):
                continue  # the other copy may succeed
            completed.append((task, attempt))
        sent.time = time.monotonic()
        for name in (key, sent.twin):
            if name in self._sent and not self._sent[name].tasks:
                self._pop(name)
        return completed

    def _twin_tasks(self, sent: Sent) -> Mapping[int, BlockTask]:
        """Attempts of the other copy of a task that are not reported."""
        return self._sent[sent.twin].tasks if sent.twin in self._sent else {}

    def _fail(self, key: str, worker: str, failure: Failure) -> list[tuple[BlockTask, Attempt]]:
        """Remove a task that ended without reports from the window; its blocks, but those of its other copy."""
        sent = self._pop(key)
        for number in self._twin_tasks(sent):
            sent.tasks.pop(number, None)
        return unfinished(sent, worker, failure)

    def _from_futures(self) -> list[tuple[BlockTask, Attempt]]:
        """Attempts that ended without an event, after all that were reported."""
        self._checked = time.monotonic()
        ended = [k for k, sent in self._sent.items() if sent.future.status in ("finished", "error", "cancelled")]
        completed = self._from_events(0.0)
        for key in ended:
            if key in self._sent:
                found = result_of(self._sent[key], self._pool.cause_of_death)
                if isinstance(found, Attempt):
                    assert isinstance(found.result, Failure)
                    completed += self._fail(key, found.worker, found.result)
                else:
                    completed += self._take(key, found)
        return completed or self._stranded()

    def _stranded(self) -> list[tuple[BlockTask, Attempt]]:
        """Blocks that wait for a worker that is gone: Dask, which was asked to prefer it, gives them to no new one."""
        now, completed = time.monotonic(), list[tuple[Any, Attempt]]()
        waiting = [k for k, sent in self._sent.items() if sent.prefers and now - sent.time > _STRANDED_SECONDS]
        holders = self._pool.holders() if waiting else {}
        for key in waiting:
            if key not in holders:
                completed += self._fail(key, "no worker", DISPLACED)
        return completed

    def _pop(self, key: str) -> Sent:
        sent = self._sent.pop(key)
        sent.future.release()
        return sent
