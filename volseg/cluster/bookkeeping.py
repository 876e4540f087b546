"""What a driver keeps of attempts: marks of the blocks that are done, and the reasons of those that are given up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from volseg.cluster.attempt import Failure
from volseg.storage import Confirmed, FailedBlock, Mark

if TYPE_CHECKING:
    from volseg.cluster.attempt import Attempt
    from volseg.cluster.job_queue import BlockTask
    from volseg.pipeline import BlockReport
    from volseg.storage import FailureLog, Readable


def mark_of(report: BlockReport, attempt: int, worker: str) -> Mark:
    """The mark of a block that is done."""
    return Mark(
        report.number,
        report.digest,
        attempt,
        f"{worker}, {report.kind}" if report.kind else worker,
        report.seconds,
        report.skipped,
        report.bytes,
        report.file_digest,
        report.absent,
    )


def take_failure(task: BlockTask, attempt: Attempt, given_up: bool, source: Readable, log: FailureLog) -> None:
    """Look after a failed attempt whether the source is still there; log a block that is given up.

    Raises:
        SourceLostError: the source is gone, or has changed.
        TargetError: the log cannot be written.
    """
    # A server that is down is for the attempts to wait for.
    if "://" not in source.location and isinstance(source, Confirmed):
        source.confirm()
    if given_up and isinstance(attempt.result, Failure):
        failure, now = attempt.result, datetime.now(UTC).isoformat(timespec="seconds")
        log.add(
            FailedBlock(
                task.number, failure.kind, failure.message, task.attempt, attempt.worker, now, failure.traceback
            )
        )
