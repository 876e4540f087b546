"""Send block numbers to workers, in a window that is refilled as each one completes."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from volseg.cluster.attempt import Attempt, Failure, attempted
from volseg.cluster.connect import SLOT, Cluster
from volseg.errors import ClusterError
from volseg.pipeline import BlockReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distributed import Client

    from volseg.cluster.progress import Progress

ATTEMPTS = 3
"""How often a block is tried before the run goes on without it."""
_LOOK_SECONDS = 5.0
"""How long no block may come back before the driver looks whether there are workers at all."""
_WITHOUT_WORKERS_SECONDS = 300.0
_AHEAD = 2
"""Blocks in the window for each slot: one that runs and one that waits, so that no worker waits for the driver."""


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        done: blocks that succeeded.
        failed: blocks that did not, with the last reason.
        peak_in_flight: the most futures that were held at once.
    """

    done: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    peak_in_flight: int = 0


@dataclass(slots=True)
class _Job:
    number: int
    attempt: int = 1
    tried: tuple[str, ...] = ()


def run_blocks(
    cluster: Cluster,
    numbers: Iterable[int],
    compute: Callable[[int], BlockReport],
    on_done: Callable[[BlockReport, int, str], None],
    progress: Progress,
) -> Outcome:
    """Compute blocks; a failed one is sent again, to a worker that has not tried it.

    Args:
        cluster: who computes.
        numbers: the blocks, in the order to start them; consumed as the window moves on.
        compute: does one block; it is sent to workers, with the number and nothing else.
        on_done: told of each block that is done, with the attempt that succeeded and who made it.
        progress: shows how far the run is.
    """
    outcome = Outcome()
    jobs = _Jobs(numbers)
    for job, attempt in _attempts(cluster, jobs, compute, outcome, progress):
        if isinstance(attempt.result, BlockReport):
            on_done(attempt.result, job.attempt, attempt.worker)
            outcome.done += 1
            progress.advance(attempt.result.voxels)
        else:
            _handle_failure(job, attempt.worker, attempt.result, jobs, outcome, progress)
    return outcome


class _Jobs:
    """Blocks to start: those that failed and wait for another worker first, then new ones.

    Suspects go one at a time, so that a block that takes workers down is found out, and not what ran beside it.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._new = iter(numbers)
        self.again: deque[_Job] = deque()
        self.suspects: deque[_Job] = deque()
        self._questioned: _Job | None = None

    def take(self) -> _Job | None:
        if self.again:
            return self.again.popleft()
        if self.suspects and self._questioned is None:
            self._questioned = self.suspects.popleft()
            return self._questioned
        number = next(self._new, None)
        return None if number is None else _Job(number)

    def came_back(self, job: _Job) -> None:
        if job is self._questioned:
            self._questioned = None


def _handle_failure(
    job: _Job, worker: str, failure: Failure, jobs: _Jobs, outcome: Outcome, progress: Progress
) -> None:
    if failure.again and job.attempt < ATTEMPTS:
        progress.note(f"block {job.number}: attempt {job.attempt} failed on {worker}: {failure.message}; sent again")
        if failure.lost:
            jobs.suspects.append(_Job(job.number, job.attempt + 1, job.tried))
        else:
            jobs.again.append(_Job(job.number, job.attempt + 1, (*job.tried, worker)))
        return
    outcome.failed[job.number] = failure.message
    progress.note(f"block {job.number} failed for good: {failure.message}")
    if failure.trace:
        progress.note(failure.trace.rstrip())


def _attempts(
    cluster: Cluster, jobs: _Jobs, compute: Callable[[int], BlockReport], outcome: Outcome, progress: Progress
) -> Iterator[tuple[_Job, Attempt]]:
    if cluster.client is None:
        outcome.peak_in_flight = 1
        while (job := jobs.take()) is not None:
            yield job, attempted(job.number, compute, cluster.names[0])
    else:
        yield from _dask_attempts(cluster, cluster.client, jobs, compute, outcome, progress)


def _dask_attempts(
    cluster: Cluster,
    client: Client,
    jobs: _Jobs,
    compute: Callable[[int], BlockReport],
    outcome: Outcome,
    progress: Progress,
) -> Iterator[tuple[_Job, Attempt]]:
    in_flight: dict[Any, _Job] = {}  # by the future's key
    completed: Queue[Any] = Queue()
    # A scheduler takes tasks of one key for one task, whoever sends them: two runs must never share a key.
    run = uuid4().hex[:12]
    task = partial(on_worker, compute=compute)

    def refill() -> None:
        cluster.refresh()
        while len(in_flight) < _AHEAD * cluster.slots and (job := jobs.take()) is not None:
            others = cluster.others(job.tried)
            future = client.submit(
                task,
                job.number,
                key=f"volseg-{run}-{job.number}-{job.attempt}",
                pure=False,
                resources={SLOT: 1},
                # Only a wish: were the other workers gone, the one that failed may try again.
                workers=others or None,
                allow_other_workers=bool(others),
            )
            in_flight[future.key] = job
            future.add_done_callback(completed.put)
        outcome.peak_in_flight = max(outcome.peak_in_flight, len(in_flight))

    refill()
    while in_flight:
        future = _next(completed, cluster, progress)
        job = in_flight.pop(future.key)
        attempt = _result(future, job)
        future.release()
        jobs.came_back(job)
        yield job, attempt
        refill()


def _next(completed: Queue[Any], cluster: Cluster, progress: Progress) -> Any:
    """The next future that is done.

    Raises:
        ClusterError: there has been no worker for minutes.
    """
    without_since: float | None = None
    while True:
        try:
            return completed.get(timeout=_LOOK_SECONDS)
        except Empty:
            if cluster.alive():
                without_since = None
                continue
        if without_since is None:
            without_since = time.monotonic()
            progress.note(f"{cluster.where} has no workers left; waiting for some to come")
        if time.monotonic() - without_since > _WITHOUT_WORKERS_SECONDS:
            raise ClusterError(
                f"{cluster.where} has had no workers for {_WITHOUT_WORKERS_SECONDS / 60:g} minutes; start some, "
                "then give --resume instead of --overwrite"
            )


def on_worker(number: int, compute: Callable[[int], BlockReport]) -> Attempt:
    """What a Dask task does."""
    from distributed import get_worker  # noqa: PLC0415 - this runs on a worker

    return attempted(number, compute, str(get_worker().address))


def _result(future: Any, job: _Job) -> Attempt:
    """The attempt a future holds, or the failure that Dask itself met: a worker that died.

    Raises:
        ClusterError: the scheduler is gone, and its tasks with it.
    """
    if future.cancelled():
        raise ClusterError("the scheduler was lost; start it again and give --resume instead of --overwrite")
    error = future.exception()
    if error is None:
        result: Attempt = future.result()
        return result
    message = str(error).splitlines()[0] if str(error) else type(error).__name__
    return Attempt(
        job.number, "a worker that was lost", Failure(f"{type(error).__name__}: {message}", again=True, lost=True)
    )
