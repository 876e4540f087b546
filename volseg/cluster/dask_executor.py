"""The executor of a Dask cluster: its workers and their slots, looked up as they come and go."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

from volseg.cluster.ending import ENDS
from volseg.cluster.mapping import map_items
from volseg.cluster.submission import SLOT, SubmissionWindow
from volseg.errors import ClusterError
from volseg.system import out_of_memory_kills

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from distributed import Client

    from volseg.cluster.attempt import Attempt
    from volseg.cluster.job_queue import BlockQueue, BlockTask
    from volseg.cluster.policy import Deadline
    from volseg.cluster.progress import Progress
    from volseg.pipeline import BlockReport

_REFRESH_SECONDS = 5.0
_RESTART_SECONDS = 30.0
_NO_SLOTS_SECONDS = 0.5
_ANSWER_SECONDS = 300.0
"""A short call may take so long: it may import torch from a slow file system."""
_HEARTBEAT_SECONDS = 15.0
"""Workers report every second or so; one that is silent for longer does not answer either."""


class DaskExecutor:
    """Runs functions on the workers of a Dask cluster that have the resource `slot`; on all if none has it.

    Attributes:
        resources: of Dask, that a call takes on a worker.
        patient: whether a run waits without end for workers, which are queued jobs.
        wasted: seconds that each worker spent in blocks which others did first.
    """

    def __init__(
        self,
        client: Client,
        where: str,
        *,
        is_local: bool = False,
        restart_lost: Callable[[int], object] = lambda present: None,
        patient: bool = False,
    ) -> None:
        """Look up the workers.

        Args:
            client: the connection to the scheduler; closed by its owner.
            where: name for messages.
            is_local: whether the workers are processes of this one's control group.
            restart_lost: starts workers again that are lost; called with the number of connected ones.
            patient: whether to wait without end for workers.
        """
        self.client = client
        self.where = where
        self._kills = out_of_memory_kills() if is_local else None
        self._restart_lost = restart_lost
        self._slots: dict[str, int] = {}
        self._names: dict[str, str] = {}
        self._left_out: set[str] = set()
        self._ending: set[str] = set()
        self.patient = patient
        self.resources: dict[str, int] = {}
        self.wasted = defaultdict[str, float](float)
        self._to_replace: list[str] = []
        self._refreshed = 0.0
        self.refresh(force=True)

    @property
    def workers(self) -> tuple[str, ...]:
        return tuple(self._slots)

    @property
    def slots(self) -> int:
        return sum(self._slots.values())

    @property
    def slots_per_worker(self) -> int:
        return max(self._slots.values(), default=0)

    def refresh(self, *, force: bool = False) -> None:
        """Look up the workers again, at most every few seconds unless forced; the last ones stay if all are gone."""
        if force or not self._slots or time.monotonic() - self._refreshed >= _REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            last = {worker: count for worker, count in self._slots.items() if worker not in self._ending}
            self._slots = self._query() or last

    def has_workers(self) -> bool:
        """Whether any worker has slots now."""
        return bool(self._query())

    def workers_except(self, names: tuple[str, ...]) -> list[str]:
        """Workers that are there now, without those named."""
        self.refresh(force=True)
        return [worker for worker in self.workers if worker not in names]

    def _query(self) -> dict[str, int]:
        """Slots of each worker that does not end, without those that are left out as long as there are others."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        self._restart_lost(len(workers))
        self._names = {address: str(worker.get("name", address)) for address, worker in workers.items()}
        self._ending &= {*workers}
        stated = {address: int(worker["resources"].get(SLOT, 0)) for address, worker in workers.items()}
        if workers:
            self.resources = {SLOT: 1} if any(stated.values()) else {}
        if not self.resources:
            stated = {address: int(worker["nthreads"]) for address, worker in workers.items()}
        slots = {address: count for address, count in stated.items() if count and address not in self._ending}
        return {a: count for a, count in slots.items() if self._names[a] not in self._left_out} or slots

    def name_of(self, worker: str) -> str:
        return self._names.get(worker, worker)

    def preferred(self) -> list[str] | None:
        """Workers for new blocks, if some are left out or end."""
        return list(self.workers) if self._left_out or self._ending else None

    def leave_out(self, worker: str) -> bool:
        name = self.name_of(worker)
        if all(self.name_of(other) in (name, *self._left_out) for other in self.workers):
            return False
        self._left_out.add(name)
        self.refresh(force=True)
        return True

    def discard(self, attempt: Attempt) -> None:
        """Count a block that another worker did first."""
        self.wasted[attempt.worker] += attempt.result.seconds

    def replace(self, worker: str) -> None:
        self._to_replace.append(worker)

    def to_replace(self) -> list[str]:
        """Workers to replace now."""
        workers, self._to_replace = self._to_replace, []
        return workers

    def holders(self) -> dict[str, str]:
        """The worker of each task that one holds."""
        processing: dict[str, Iterable[str]] = self.client.processing()
        return {str(key): worker for worker, keys in processing.items() for key in keys}

    def free(self, holders: Mapping[str, str]) -> list[str]:
        """Workers with a slot that no task takes, once for each such slot."""
        held = Counter(holders.values())
        return [worker for worker, slots in self._slots.items() for _ in range(slots - held[worker])]

    def restart(self, worker: str) -> None:
        """Let a worker's nanny start it anew; without a nanny it is removed, for the batch system to replace."""
        # Dask raises errors of many kinds, and the worker may be gone; whether it comes back is seen later.
        with contextlib.suppress(Exception):
            try:
                self.client.restart_workers([worker], timeout=_RESTART_SECONDS, raise_for_error=False)
            except ValueError:  # it has no nanny
                self.client.retire_workers([worker], callback_timeout=_RESTART_SECONDS)
        self.refresh(force=True)

    def cause_of_death(self) -> str:
        """Why a worker died, as far as this process can tell."""
        kills = None if self._kills is None else out_of_memory_kills()
        if kills is None:
            return "see its log; a batch system may have killed it for its memory"
        killed, self._kills = kills > (self._kills or 0), kills
        if killed:
            return "the system killed it for its memory; give a smaller --tile or --block, or fewer --workers"
        return "it was killed, or what it computed ended it"

    def run_on_all(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        """As `Executor.run_on_all`; raises as `run_on_each`."""
        return list(self.run_on_each(call, *arguments).values())

    def run_on_each(self, call: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """As `Executor.run_on_each`; it blocks the worker's event loop, and Dask takes a silent worker for dead.

        Raises:
            ClusterError: a worker dies or does not answer, and replacing it does not help.
        """
        from distributed.comm.core import CommClosedError  # noqa: PLC0415 - a serial run needs no Dask

        for is_last in (False, True):
            self.refresh(force=True)
            try:
                results: dict[str, Any] = self.client.run(
                    call, *arguments, workers=list(self.workers), callback_timeout=_ANSWER_SECONDS
                )
            except CommClosedError:
                self.has_workers()  # raises if it is the scheduler that is gone
                if is_last:
                    raise ClusterError(f"a worker of {self.where} died: {self.cause_of_death()}") from None
                self.client.wait_for_workers(1, timeout=_RESTART_SECONDS)
            except TimeoutError:
                silent = self._silent()
                if is_last or not silent:
                    break
                for worker in silent:
                    self.restart(worker)
            else:
                return results
        raise ClusterError(
            f"a worker of {self.where} does not answer within {_ANSWER_SECONDS:g} s"
            f"{''.join(f', such as {worker}' for worker in self._silent()[:1])}; stop it, then rerun"
        )

    def _silent(self) -> list[str]:
        """Workers without a heartbeat for some time."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        return [name for name, worker in workers.items() if time.time() - worker["last_seen"] > _HEARTBEAT_SECONDS]

    def run_on_one(self, call: Callable[..., Any], *arguments: Any, among: Sequence[str] = ()) -> Any:
        """As `Executor.run_on_one`.

        Raises:
            VolsegError: raised by the function.
            ClusterError: the workers that tried died, or did not end.
        """
        (result,) = map_items(self, self.client, partial(_apply, call), [arguments], self.resources, 1, among)
        return result

    def map(self, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """As `Executor.map`.

        Raises:
            VolsegError: the first that the function raised.
            ClusterError: the workers that tried an item died, or did not end it.
        """
        return map_items(self, self.client, call, items, self.resources, len(self.workers))

    def attempts(
        self, queue: BlockQueue, compute: Callable[[int], BlockReport], progress: Progress, deadline: Deadline
    ) -> Generator[tuple[BlockTask, Attempt]]:
        with SubmissionWindow(self, self.client, compute) as window:
            window.fill(queue)
            while len(window) or queue.pause is not None:
                pause = queue.pause if window.has_room or not self.slots else None
                if pause is not None and not self.slots:  # all workers end: others are waited for
                    pause = max(pause, _NO_SLOTS_SECONDS)
                for task, attempt in window.wait(progress, deadline, pause):
                    if attempt.result == ENDS:
                        self._ending.add(attempt.worker)
                        self.refresh(force=True)
                    queue.completed(task)
                    yield task, attempt
                window.fill(queue)


def _apply(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return call(*arguments)
