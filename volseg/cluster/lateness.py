"""Blocks that exceed their deadline, and the workers that hold them.

The driver knows when it sent a task, not when a worker began it: of the tasks that a worker holds for each slot, one
runs and the others wait. So a block is late if its task was sent more than that many deadlines ago, and the time for
which a task of several blocks goes on; reports of its other blocks start the clock anew.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from volseg.cluster.attempt import Failure
from volseg.cluster.error_classes import LATE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from distributed import Future

    from volseg.cluster.attempt import Attempt
    from volseg.cluster.job_queue import BlockTask
    from volseg.cluster.policy import Deadline

DISPLACED = Failure("its worker was replaced", counts=False)
"""Result of a block that was on a worker which is replaced because of others."""
_MAX_INTERVAL = 5.0


@dataclass(slots=True)
class Sent:
    """A task in flight.

    Attributes:
        future: of the task.
        tasks: attempts at blocks that it has not reported, by the block's number, in their order.
        time: monotonic seconds at which it was sent, or last reported a block.
        prefers: whether it was sent to some workers rather than to others.
        twin: key of the other copy of a task that was sent twice.
    """

    future: Future[list[Attempt]]
    tasks: dict[int, BlockTask]
    time: float = field(default_factory=lambda: time.monotonic())
    prefers: bool = False
    twin: str = ""


class LateBlocks:
    """Finds late blocks.

    Args:
        per_slot: tasks that a worker holds for each slot.
        holders: the worker of each key; keys that wait for a worker are left out.
    """

    def __init__(self, per_slot: int, holders: Callable[[], Mapping[str, str]]) -> None:
        self._per_slot, self._holders = per_slot, holders
        self._warm: set[str] = set()
        self._next = 0.0

    def warm(self, worker: str) -> None:
        """A worker has done a block."""
        self._warm.add(worker)

    def find(self, sent: Mapping[str, Sent], deadline: Deadline, limit: float = 0.0) -> dict[str, dict[str, Failure]]:
        """Workers that hold late blocks, with the failure of each key that they hold.

        Args:
            sent: tasks in flight by key; those that wait for a worker count anew.
            deadline: of a block.
            limit: seconds for which a task of several blocks goes on, at most.
        """
        now = time.monotonic()
        if now < self._next or not sent:
            return {}
        allowed = self._per_slot * deadline.seconds(warm=True) + limit
        self._next = now + min(_MAX_INTERVAL, allowed / 4)
        if now - min(task.time for task in sent.values()) < allowed:
            return {}
        holders = self._holders()
        late: dict[str, dict[str, Failure]] = {}
        for key, block in sent.items():
            worker = holders.get(key)
            if worker is None:
                block.time = now
                continue
            seconds = deadline.seconds(warm=worker in self._warm)
            if now - block.time >= self._per_slot * seconds + limit:
                message = f"it did not end within {seconds:.3g} s ({deadline}); its worker is replaced"
                late.setdefault(worker, {})[key] = Failure.of(LATE, message)
        return {worker: self._all_of(worker, failures, sent, holders) for worker, failures in late.items()}

    @staticmethod
    def _all_of(
        worker: str, late: Mapping[str, Failure], sent: Mapping[str, Sent], holders: Mapping[str, str]
    ) -> dict[str, Failure]:
        return {key: late.get(key, DISPLACED) for key in sent if holders.get(key) == worker}
