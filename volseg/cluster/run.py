"""Send block numbers to workers, in a window that is refilled as each one completes."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from volseg.cluster.attempt import Attempt, Failure, attempted
from volseg.cluster.job_queue import BlockQueue, BlockTask
from volseg.cluster.submission import SubmissionWindow
from volseg.cluster.utilization import Utilization
from volseg.pipeline import BlockReport

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from volseg.cluster.executor import Cluster
    from volseg.cluster.progress import Progress

ATTEMPTS = 3
"""How often a block is tried before the run goes on without it."""


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        done: blocks that succeeded.
        failed: blocks that did not, with the last reason.
        peak_in_flight: the most futures that were held at once.
        busy: how much of its time each worker was in the network.
    """

    done: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    peak_in_flight: int = 0
    busy: Utilization = field(default_factory=Utilization)


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
    jobs = BlockQueue(numbers)
    with contextlib.closing(_attempts(cluster, jobs, compute, outcome, progress)) as attempts:
        for job, attempt in attempts:
            if isinstance(attempt.result, BlockReport):
                on_done(attempt.result, job.attempt, attempt.worker)
                outcome.done += 1
                outcome.busy.add(attempt.worker, attempt.result.predict_seconds, time.monotonic())
                progress.advance(attempt.result.voxels, outcome.busy.share)
            else:
                _handle_failure(job, attempt.worker, attempt.result, jobs, outcome, progress)
    return outcome


def _handle_failure(
    job: BlockTask, worker: str, failure: Failure, jobs: BlockQueue, outcome: Outcome, progress: Progress
) -> None:
    if failure.again and job.attempt < ATTEMPTS:
        progress.note(f"block {job.number}: attempt {job.attempt} failed on {worker}: {failure.message}; sent again")
        if failure.lost:
            jobs.quarantine.append(BlockTask(job.number, job.attempt + 1, job.failed_on))
        else:
            jobs.again.append(BlockTask(job.number, job.attempt + 1, (*job.failed_on, worker)))
        return
    outcome.failed[job.number] = failure.message
    progress.note(f"block {job.number} failed for good: {failure.message}")
    if failure.trace:
        progress.note(failure.trace.rstrip())


def _attempts(
    cluster: Cluster, jobs: BlockQueue, compute: Callable[[int], BlockReport], outcome: Outcome, progress: Progress
) -> Generator[tuple[BlockTask, Attempt]]:
    if cluster.client is None:
        outcome.peak_in_flight = 1
        while (job := jobs.take()) is not None:
            yield job, attempted(job.number, compute, cluster.names[0])
        return
    with SubmissionWindow(cluster, cluster.client, compute) as window:
        window.fill(jobs)
        while len(window):
            outcome.peak_in_flight = max(outcome.peak_in_flight, len(window))
            for job, attempt in window.wait(progress):
                jobs.came_back(job)
                yield job, attempt
            window.fill(jobs)
