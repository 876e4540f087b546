"""The executor of a serial run: this process."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from volseg.cluster.attempt import Attempt, Failure, attempted
from volseg.cluster.error_classes import LATE

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

    from volseg.cluster.executor import Executor
    from volseg.cluster.job_queue import BlockQueue, BlockTask
    from volseg.cluster.policy import Deadline
    from volseg.cluster.progress import Progress
    from volseg.pipeline import BlockReport


class _LateError(BaseException):
    """The block exceeded its deadline; no handler of the block's own errors takes it."""


@dataclass(frozen=True)
class SerialExecutor:
    """Runs functions in this process, one at a time."""

    where: str = "this process"
    workers: tuple[str, ...] = ("this process",)
    slots: int = 1
    slots_per_worker: int = 1
    wasted: Mapping[str, float] = field(default_factory=dict)

    def run_on_all(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        return [call(*arguments)]

    def run_on_each(self, call: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        return {self.where: call(*arguments)}

    def run_on_one(self, call: Callable[..., Any], *arguments: Any, among: Sequence[str] = ()) -> Any:
        return call(*arguments)

    def map(self, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        yield from map(call, items)

    def attempts(
        self, queue: BlockQueue, compute: Callable[[int], BlockReport], progress: Progress, deadline: Deadline
    ) -> Generator[tuple[BlockTask, Attempt]]:
        warm = False
        while True:
            task = queue.take()
            if task is None:
                if queue.pause is None:
                    return
                time.sleep(queue.pause)
                continue
            seconds = deadline.seconds(warm=warm)
            try:
                with _alarm(seconds):
                    attempt = attempted(task.number, compute, self.where)
                warm = True
            except _LateError:
                message = f"it did not end within {seconds:.3g} s ({deadline})"
                attempt = Attempt(task.number, self.where, Failure.of(LATE, message))
            queue.completed(task)
            yield task, attempt

    def name_of(self, worker: str) -> str:
        return worker

    def replace(self, worker: str) -> None:
        """Do nothing: a process cannot replace itself."""

    def leave_out(self, worker: str) -> bool:
        return False


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise _LateError after some seconds; only in the main thread, where the system interrupts what waits."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    is_running = True

    def late(number: int, frame: object) -> None:
        if is_running:
            raise _LateError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        is_running = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def serial(workers: int | None = None, gpus: tuple[str, ...] = ()) -> Iterator[Executor]:
    """Use this process; takes the arguments of every cluster and needs none."""
    yield SerialExecutor()
