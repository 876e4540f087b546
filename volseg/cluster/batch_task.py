"""A Dask task: some blocks one after the other, each reported on its own.

Reports are gathered for a moment, so that blocks that take milliseconds do not cost a message each. A task that takes
longer than planned, or whose blocks fail one after the other, gives its other blocks back.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from volseg.cluster.attempt import Attempt, Failure, pack
from volseg.cluster.ending import attempt_before_end
from volseg.pipeline import BlockReport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOPIC = "volseg-blocks"
"""Of the workers' events. One for all runs, because a scheduler keeps the last events of every topic."""
GIVEN_BACK = Failure("its task was ended before it", counts=False)
"""Result of a block that was not begun."""
_FAILED = 2
"""Failures in succession after which a task gives the other blocks back."""


def attempt_on_worker(
    numbers: Sequence[int], compute: Callable[[int], BlockReport], limit: float, gather: float
) -> list[Attempt]:
    """Attempt blocks in a Dask task, and report them in events.

    Args:
        numbers: of the blocks.
        compute: processes one block.
        limit: seconds after which no block is begun but the first.
        gather: seconds for which a report may wait for others.
    """
    from distributed import get_worker  # noqa: PLC0415 - this runs on a worker

    worker, attempts, failed, started = get_worker(), list[Attempt](), 0, time.monotonic()
    events = Events(worker, str(worker.get_current_task()), gather)
    for at, number in enumerate(numbers):
        if at and (failed >= _FAILED or time.monotonic() - started > limit):
            given_back = [Attempt(other, str(worker.address), GIVEN_BACK) for other in numbers[at:]]
            attempts += given_back
            events.add(given_back)
            break
        attempt = attempt_before_end(number, compute, str(worker.address))
        failed = 0 if isinstance(attempt.result, BlockReport) else failed + 1
        attempts.append(attempt)
        events.add([attempt], waits=at + 1 < len(numbers))
    events.flush()
    return attempts


class Events:
    """Sends reports of a task to the driver.

    Args:
        worker: of Dask.
        key: of the task.
        gather: seconds for which a report may wait for others.
    """

    def __init__(self, worker: Any, key: str, gather: float) -> None:
        self._worker, self._key, self._gather = worker, key, gather
        self._lock, self._waiting = threading.Lock(), list[list[Any]]()

    def add(self, attempts: Sequence[Attempt], *, waits: bool = False) -> None:
        """Report attempts with the next flush; by the event loop if another block follows, which may hang."""
        with self._lock:
            is_first = not self._waiting
            self._waiting += map(pack, attempts)
        if waits and is_first:
            loop = self._worker.loop
            loop.add_callback(loop.call_later, self._gather, self.flush)

    def flush(self) -> None:
        """Send what waits."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if waiting:
            with contextlib.suppress(TypeError):  # the driver fetches a result that no message can carry
                self._worker.log_event(TOPIC, [self._key, waiting])


def forget_messages() -> Callable[[Any], None]:
    """A function that makes a scheduler drop its metadata of messages, 300 bytes each, kept for diagnostics."""

    def forget(dask_scheduler: Any) -> None:  # pickled by value: a scheduler need not have volseg
        spans = getattr(dask_scheduler.extensions.get("spans"), "spans", {})
        for span in spans.values():
            collections = (span.metadata or {}).get("collections", [])
            collections[:] = [entry for entry in collections if entry != {"type": "Future"}]

    return forget
