"""Send block numbers to workers, in a window that is refilled as blocks complete."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from volseg.cluster.budget import FailureBudget
from volseg.cluster.driver_load import DriverLoad
from volseg.cluster.error_classes import DIED, LATE, Scope
from volseg.cluster.failure_notes import FailureNotes
from volseg.cluster.job_queue import BlockQueue, BlockTask
from volseg.cluster.policy import Deadline, FailurePolicy
from volseg.cluster.utilization import Utilization
from volseg.cluster.worker_health import WorkerHealth
from volseg.pipeline import BlockReport
from volseg.system import last_blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from volseg.cluster.attempt import Attempt, Failure
    from volseg.cluster.executor import Executor
    from volseg.cluster.progress import Progress


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


def run_blocks(  # noqa: PLR0913 - what a run consists of
    executor: Executor,
    numbers: Iterable[int],
    compute: Callable[[int], BlockReport],
    on_done: Callable[[BlockReport, int, str], None],
    progress: Progress,
    *,
    on_failed: Callable[[BlockTask, Attempt, bool], None] = lambda task, attempt, given_up: None,
    policy: FailurePolicy | None = None,
    deadline: Deadline | None = None,
) -> Outcome:
    """Compute blocks; a failed one is sent again, after a pause, to a worker on which it has not failed.

    Args:
        executor: runs them.
        numbers: of the blocks, in the order of their start; consumed as the window moves on.
        compute: processes one block; it is sent to workers, with the number and nothing else.
        on_done: receives the report of each finished block, the attempt that succeeded and its worker.
        progress: receives the progress.
        on_failed: receives each failed attempt, and whether its block is given up; what it raises ends the run.
        policy: what the run bears.
        deadline: seconds that a block may take.

    Raises:
        RunAbortedError: an error that concerns the whole run, or more failures than the policy allows.
        ClusterError: the workers are gone.
        KeyboardInterrupt: the last blocks were asked for, and are done.
    """
    queue, deadline = BlockQueue(numbers), deadline or Deadline()
    run = _Run(executor, queue, on_done, on_failed, progress, policy or FailurePolicy(), deadline)
    try:
        with last_blocks.accepted(), closing(executor.attempts(queue, compute, progress, deadline)) as attempts:
            for task, attempt in attempts:
                run.take(task, attempt)
    finally:
        run.notes.sum_up()
    run.outcome.peak_in_flight = queue.peak_in_flight
    return run.outcome


class _Run:
    """What becomes of each attempt."""

    def __init__(
        self,
        executor: Executor,
        queue: BlockQueue,
        on_done: Callable[[BlockReport, int, str], None],
        on_failed: Callable[[BlockTask, Attempt, bool], None],
        progress: Progress,
        policy: FailurePolicy,
        deadline: Deadline,
    ) -> None:
        self.outcome, self.notes = Outcome(), FailureNotes(progress)
        self._executor, self._queue, self._progress = executor, queue, progress
        self._on_done, self._on_failed = on_done, on_failed
        self._policy, self._deadline = policy, deadline
        self._budget = FailureBudget(policy, hold=max(policy.early, 2 * executor.slots))
        self._health = WorkerHealth(policy.strikes)
        # A process that computes, too, is always busy.
        self._load = DriverLoad(progress) if executor.slots > 1 else None

    def take(self, task: BlockTask, attempt: Attempt) -> None:
        """Pass on the result of an attempt, or queue its block again."""
        if isinstance(attempt.result, BlockReport):
            self._succeed(task, attempt, attempt.result)
        elif attempt.result.counts:
            self._fail(task, attempt, attempt.result)
        else:
            if attempt.result.kind == DIED.name:
                self.notes.add(f"block {task.number}: {attempt.result.message}; it is sent again", attempt.result)
            self._queue.put_back(task)
        self._queue.holds_new = self._budget.holds_new

    def _succeed(self, task: BlockTask, attempt: Attempt, report: BlockReport) -> None:
        self._on_done(report, task.attempt, attempt.worker)
        self._budget.succeeded()
        self._health.succeeded(self._executor.name_of(attempt.worker))
        self.outcome.done += 1
        if self._load is not None:
            self._load.add()
        self.outcome.utilization.add(attempt.worker, report.predict_seconds, time.monotonic())
        if not report.skipped:
            self._deadline.add(report.seconds)
        self._progress.advance(report.voxels, self.outcome.utilization.mean)

    def _fail(self, task: BlockTask, attempt: Attempt, failure: Failure) -> None:
        gives_up = task.attempt >= failure.attempts
        self._on_failed(task, attempt, gives_up)
        self._note(task, attempt.worker, failure, gives_up=gives_up)
        if gives_up:
            self.outcome.failed[task.number] = failure.message
        self._budget.failed(task.number, failure, gives_up=gives_up)
        if failure.scope is Scope.WORKER and failure.kind not in (DIED.name, LATE.name):
            self._treat_worker(attempt.worker, failure)
        if gives_up:
            return
        if failure.kind == DIED.name and task.attempt > 1:
            self._queue.isolate(task)
        elif failure.kind == DIED.name:
            self._queue.put_back(replace(task, attempt=task.attempt + 1))
        else:
            pause = self._policy.backoff(task.attempt, all_fail=self._budget.holds_new)
            self._queue.retry(task, attempt.worker, pause)

    def _note(self, task: BlockTask, worker: str, failure: Failure, *, gives_up: bool) -> None:
        if gives_up:
            line = f"block {task.number} failed: {failure.message}; the run continues without it"
        else:
            line = f"block {task.number}: attempt {task.attempt} failed on {worker}: {failure.message}; retrying"
        self.notes.add(line, failure)

    def _treat_worker(self, worker: str, failure: Failure) -> None:
        """Replace a worker on which block after block fails; leave it out if that does not help."""
        remedy = self._health.failed(self._executor.name_of(worker))
        if remedy == "replace":
            strikes = self._policy.strikes
            self._progress.note(f"{strikes} blocks in succession failed on {worker}: {failure.message}; it is replaced")
            self._executor.replace(worker)
        elif remedy == "leave out" and self._executor.leave_out(worker):
            self._progress.note(f"{worker} gets no more blocks: they fail on it, and replacing it did not help")
