"""Send block numbers to workers, in a window that is refilled as blocks complete."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from volseg.cluster.job_queue import BlockQueue, BlockTask
from volseg.cluster.utilization import Utilization
from volseg.pipeline import BlockReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from volseg.cluster.attempt import Failure
    from volseg.cluster.executor import Executor
    from volseg.cluster.progress import Progress

ATTEMPTS = 3
"""Attempts at a block before the run continues without it."""


@dataclass
class Outcome:
    """Result of a run.

    Attributes:
        done: number of blocks that succeeded.
        failed: block numbers with the last reason.
        peak_in_flight: maximum number of blocks sent and not completed.
        utilization: of the workers.
    """

    done: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    peak_in_flight: int = 0
    utilization: Utilization = field(default_factory=Utilization)


def run_blocks(
    executor: Executor,
    numbers: Iterable[int],
    compute: Callable[[int], BlockReport],
    on_done: Callable[[BlockReport, int, str], None],
    progress: Progress,
) -> Outcome:
    """Compute blocks; a failed one is sent again, to a worker on which it has not failed.

    Args:
        executor: runs them.
        numbers: of the blocks, in the order of their start; consumed as the window moves on.
        compute: processes one block; it is sent to workers, with the number and nothing else.
        on_done: receives the report of each finished block, the attempt that succeeded and its worker.
        progress: receives the progress.
    """
    outcome, queue = Outcome(), BlockQueue(numbers)
    with closing(executor.attempts(queue, compute, progress)) as attempts:
        for task, attempt in attempts:
            if isinstance(attempt.result, BlockReport):
                on_done(attempt.result, task.attempt, attempt.worker)
                outcome.done += 1
                outcome.utilization.add(attempt.worker, attempt.result.predict_seconds, time.monotonic())
                progress.advance(attempt.result.voxels, outcome.utilization.mean)
            else:
                reason = _retry_or_give_up(task, attempt.worker, attempt.result, queue, progress)
                outcome.failed |= {task.number: reason} if reason is not None else {}
    outcome.peak_in_flight = queue.peak_in_flight
    return outcome


def _retry_or_give_up(
    task: BlockTask, worker: str, failure: Failure, queue: BlockQueue, progress: Progress
) -> str | None:
    """Queue a failed block again; return the reason if it is given up."""
    if failure.retry and task.attempt < ATTEMPTS:
        progress.note(f"block {task.number}: attempt {task.attempt} failed on {worker}: {failure.message}; retrying")
        if failure.worker_died:
            queue.quarantine(task)
        else:
            queue.retry(task, worker)
        return None
    progress.note(f"block {task.number} failed: {failure.message}; the run continues without it")
    if failure.traceback:
        progress.note(failure.traceback.rstrip())
    return failure.message
