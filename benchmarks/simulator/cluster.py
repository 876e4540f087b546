"""A Dask cluster that is simulated: its clock is fake, the driver under test is the real one.

Workers take tasks in their order, one at a time; a block takes the seconds that a function says. Time passes only when
the driver waits, so that hours of a fleet take a moment.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from queue import Empty
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

from volseg.cluster.attempt import Attempt, pack
from volseg.cluster.dask_executor import DaskExecutor
from volseg.cluster.submission import SubmissionWindow
from volseg.pipeline import BlockReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass
class SimulatedFuture:
    """A future of a simulated task."""

    status: str = "pending"
    is_released: bool = False
    last_worker: str = ""

    def release(self) -> None:
        self.is_released = True

    def cancelled(self) -> bool:
        return False

    def exception(self) -> Exception:
        from distributed import KilledWorker  # noqa: PLC0415 - a serial run needs no Dask

        return KilledWorker("key", cast("Any", mock.Mock(address=self.last_worker)), 0)


@dataclass
class _Task:
    key: str
    numbers: list[int]
    future: SimulatedFuture
    allowed: list[str] | None


@dataclass
class _Worker:
    name: str
    kind: str
    tasks: deque[_Task] = field(default_factory=deque)
    life: int = 0
    is_running: bool = False


class SimulatedCluster:
    """A client, its scheduler and its workers.

    Args:
        kinds: of the workers, one each.
        seconds: that a block takes on a worker, by its number and the worker's index.
        lifetime: mean seconds until a worker dies, with all it holds; another takes its place at once. None for ever.
        seed: of the deaths.

    Attributes:
        now: seconds of the clock.
        tasks, deaths: so far.
        busy: seconds of blocks that were reported.
    """

    def __init__(
        self, kinds: Sequence[str], seconds: Callable[[int, int], float], lifetime: float | None = None, seed: int = 0
    ) -> None:
        self.now, self.tasks, self.deaths, self.busy = 1000.0, 0, 0, 0.0
        self._seconds, self._lifetime, self._random = seconds, lifetime, random.Random(seed)
        self._workers = {f"sim://{at}": _Worker(f"sim://{at}", kind) for at, kind in enumerate(kinds)}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._handlers: dict[str, Callable[[Any], None]] = {}
        self._received: deque[Any] = deque()
        for name in self._workers if lifetime else ():
            self._plan_death(name)

    @contextmanager
    def executor(self) -> Iterator[DaskExecutor]:
        """The driver's executor of this cluster, while this clock is the process's."""

        def init(window: Any, *arguments: Any) -> None:
            original(window, *arguments)
            window._events = self

        original = SubmissionWindow.__init__
        with (
            mock.patch.object(time, "monotonic", self._time),
            mock.patch.object(SubmissionWindow, "__init__", init),
        ):
            yield DaskExecutor(cast("Any", self), "a simulated cluster")

    def _time(self) -> float:
        return self.now

    # What a client offers.
    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {name: {"resources": {"slot": 1}} for name in self._workers}}

    def subscribe_topic(self, topic: str, handler: Callable[[Any], None]) -> None:
        self._handlers[topic] = handler

    def unsubscribe_topic(self, topic: str) -> None:
        del self._handlers[topic]

    def run_on_scheduler(self, call: Any) -> None:
        """Do nothing."""

    def processing(self) -> dict[str, list[str]]:
        return {w.name: [task.key for task in w.tasks if not task.future.is_released] for w in self._workers.values()}

    def map(self, call: Any, batches: list[list[int]], *, key: list[str], workers: Any, **_: Any) -> list[Any]:
        futures = []
        for name, numbers in zip(key, batches, strict=True):
            futures.append(SimulatedFuture())
            least = min((self._workers[w] for w in workers or self._workers), key=lambda w: len(w.tasks))
            least.tasks.append(_Task(name, list(numbers), futures[-1], workers))
            self.tasks += 1
            self._start(least)
        return futures

    # What the driver's queue of events offers; time passes here.
    def put(self, event: Any) -> None:
        self._received.append(event)

    def get(self, timeout: float) -> Any:
        until = self.now + max(0.0, timeout)
        while not self._received:
            if not self._agenda or self._agenda[0][0] > until:
                self.now = until
                raise Empty
            self.now, _, act = heapq.heappop(self._agenda)
            act()
        return self._received.popleft()

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._order), act))

    def _start(self, worker: _Worker) -> None:
        while worker.tasks and not worker.is_running:
            if worker.tasks[0].future.is_released:
                worker.tasks.popleft()
                continue
            worker.is_running = True
            self._begin(worker, worker.tasks[0], 0, worker.life)

    def _begin(self, worker: _Worker, task: _Task, at: int, life: int) -> None:
        number = task.numbers[at]
        seconds = self._seconds(number, int(worker.name.rpartition("/")[2]))

        def end() -> None:
            if worker.life != life:
                return
            report = BlockReport(number, 1, f"{number:032x}", seconds, seconds, kind=worker.kind)
            self.busy += seconds
            for handler in list(self._handlers.values()):
                handler((self.now, (task.key, [pack(Attempt(number, worker.name, report))])))
            if at + 1 < len(task.numbers):
                self._begin(worker, task, at + 1, life)
                return
            task.future.status, worker.is_running = "finished", False
            worker.tasks.popleft()
            self._start(worker)

        self._after(seconds, end)

    def _plan_death(self, name: str) -> None:
        assert self._lifetime is not None
        self._after(self._random.expovariate(1 / self._lifetime), lambda: self._die(name))

    def _die(self, name: str) -> None:
        worker = self._workers[name]
        self.deaths += 1
        for task in worker.tasks:
            task.future.status, task.future.last_worker = "error", name
        worker.tasks.clear()
        worker.life, worker.is_running = worker.life + 1, False
        self._plan_death(name)
