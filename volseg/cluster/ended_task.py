"""Tasks that ended without a report of each of their blocks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from volseg.cluster.attempt import Attempt, Failure
from volseg.cluster.batching import SPLIT
from volseg.cluster.error_classes import DIED, LATE, classify
from volseg.cluster.lateness import DISPLACED
from volseg.errors import ClusterError, redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.cluster.job_queue import BlockTask
    from volseg.cluster.lateness import Sent


def unfinished(sent: Sent, worker: str, failure: Failure) -> list[tuple[BlockTask, Attempt]]:
    """The blocks that a task did not report: the first was running, unless the worker's last reports are lost."""
    blocks = list(sent.tasks.values())
    if len(blocks) <= 1:
        return [(task, Attempt(task.number, worker, failure)) for task in blocks]
    most = max(1, len(blocks) // SPLIT) if failure != DISPLACED else blocks[0].most
    # Of a worker that died any of them may be the cause: they are sent again in smaller tasks, until one is alone.
    uncounted = replace(failure, counts=False) if failure.kind == DIED.name else DISPLACED
    failures = [failure if failure.kind == LATE.name else uncounted, *[uncounted] * (len(blocks) - 1)]
    return [
        (replace(task, most=most), Attempt(task.number, worker, result))
        for task, result in zip(blocks, failures, strict=True)
    ]


def result_of(sent: Sent, cause_of_death: Callable[[], str]) -> list[Attempt] | Attempt:
    """The attempts of a task, or the failure that Dask reports; ClusterError if the scheduler is gone."""
    from distributed import KilledWorker  # noqa: PLC0415 - a serial run needs no Dask

    if sent.future.cancelled():
        raise ClusterError("the scheduler was lost; start it again, then rerun with --resume instead of --overwrite")
    error, first = sent.future.exception(), next(iter(sent.tasks))
    if error is None:
        return sent.future.result()
    if isinstance(error, KilledWorker):
        address = getattr(error.last_worker, "address", "a worker")
        return Attempt(first, address, Failure.of(DIED, f"the worker died: {cause_of_death()}"))
    message = redact(f"{type(error).__name__}: {error}".splitlines()[0])
    return Attempt(first, "a worker", Failure.of(classify(error), message))
