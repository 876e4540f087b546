"""The executor of a Dask cluster: the workers that have slots, looked up as they come and go."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from volseg.cluster.submission import SLOT, SubmissionWindow
from volseg.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from distributed import Client

    from volseg.cluster.attempt import Attempt
    from volseg.cluster.job_queue import BlockQueue, BlockTask
    from volseg.cluster.progress import Progress
    from volseg.pipeline import BlockReport

_REFRESH_SECONDS = 5.0


class DaskExecutor:
    """Runs functions on the workers of a Dask cluster that have the resource `slot`."""

    def __init__(self, client: Client, where: str) -> None:
        """Look up the workers.

        Args:
            client: the connection to the scheduler; closed by its owner.
            where: name for messages.
        """
        self.client = client
        self.where = where
        self._slots: dict[str, int] = {}
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
        if force or time.monotonic() - self._refreshed >= _REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            self._slots = self._query() or self._slots

    def has_workers(self) -> bool:
        """Whether any worker has slots now."""
        return bool(self._query())

    def workers_except(self, names: tuple[str, ...]) -> list[str]:
        """Workers that are there now, without those named."""
        self.refresh(force=True)
        return [worker for worker in self.workers if worker not in names]

    def _query(self) -> dict[str, int]:
        """Slots of each worker that has some."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        slots = {name: int(worker["resources"].get(SLOT, 0)) for name, worker in workers.items()}
        return {name: count for name, count in slots.items() if count}

    def run_on_all(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        """As `Executor.run_on_all`; it blocks the worker's event loop, and Dask takes a silent worker for dead."""
        self.refresh(force=True)
        results: dict[str, Any] = self.client.run(call, *arguments, workers=list(self.workers))
        return list(results.values())

    def run_on_one(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """As `Executor.run_on_one`.

        Raises:
            VolsegError: raised by the function.
            ClusterError: the workers that tried died.
        """
        (result,) = self.map(partial(_apply, call), [arguments])
        return result

    def map(self, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """As `Executor.map`.

        Raises:
            VolsegError: the first that the function raised.
            ClusterError: the workers that tried an item died.
        """
        from distributed import KilledWorker, as_completed  # noqa: PLC0415 - a serial run needs no Dask

        remaining, submit = iter(items), partial(self.client.submit, call, pure=False, resources={SLOT: 1})
        running = as_completed([submit(item) for item in islice(remaining, len(self.workers))])
        try:
            for future in running:
                yield future.result()
                running.update([submit(item) for item in islice(remaining, 1)])
        except (KilledWorker, CancelledError) as error:
            raise ClusterError(
                f"workers of {self.where} died, one after the other, at the same task; see their logs (a batch system "
                "may have stopped them for exceeding their memory)"
            ) from error

    def attempts(
        self, queue: BlockQueue, compute: Callable[[int], BlockReport], progress: Progress
    ) -> Generator[tuple[BlockTask, Attempt]]:
        with SubmissionWindow(self, self.client, compute) as window:
            window.fill(queue)
            while len(window):
                for task, attempt in window.wait(progress):
                    queue.completed(task)
                    yield task, attempt
                window.fill(queue)


def _apply(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return call(*arguments)
