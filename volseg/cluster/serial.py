"""The executor of a serial run: this process."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volseg.cluster.attempt import Attempt, attempted

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from volseg.cluster.executor import Executor
    from volseg.cluster.job_queue import BlockQueue, BlockTask
    from volseg.cluster.progress import Progress
    from volseg.pipeline import BlockReport


@dataclass(frozen=True)
class SerialExecutor:
    """Runs functions in this process, one at a time."""

    where: str = "this process"
    workers: tuple[str, ...] = ("this process",)
    slots: int = 1
    slots_per_worker: int = 1

    def run_on_all(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        return [call(*arguments)]

    def run_on_one(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return call(*arguments)

    def map(self, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        yield from map(call, items)

    def attempts(
        self, queue: BlockQueue, compute: Callable[[int], BlockReport], progress: Progress
    ) -> Generator[tuple[BlockTask, Attempt]]:
        while (task := queue.take()) is not None:
            attempt = attempted(task.number, compute, self.where)
            queue.completed(task)
            yield task, attempt


@contextmanager
def serial(workers: int | None = None, gpus: tuple[str, ...] = ()) -> Iterator[Executor]:
    """Use this process; takes the arguments of every cluster and needs none."""
    yield SerialExecutor()
