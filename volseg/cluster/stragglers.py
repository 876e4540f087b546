"""Blocks that take far longer than others: near the end of a run they are sent a second time, to a worker without work.

Blocks are whole shards, and workers of one kind write equal bytes: the first copy that is reported counts.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING

import numpy as np

from volseg.pipeline import BlockReport

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from volseg.cluster.attempt import Attempt
    from volseg.cluster.lateness import Sent

_FACTOR = 3.0
"""A task is late after so many times the 95th percentile; it may wait for another one before it runs."""
_PERCENTILE = 95
_LEAST_DONE, _LAST = 20, 200
"""Blocks of a kind of worker that the percentile is taken of."""
_LOOK_SECONDS = 0.5


class Stragglers:
    """Knows how long blocks take on each kind of worker.

    Args:
        holders: the worker of each key; keys that wait for a worker are left out.
        free: workers that may hold more tasks, given what each key's worker is.
    """

    def __init__(
        self, holders: Callable[[], Mapping[str, str]], free: Callable[[Mapping[str, str]], list[str]]
    ) -> None:
        self._holders, self._free = holders, free
        self._kinds: dict[str, str] = {}
        self._seconds: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_LAST))
        self._looked = 0.0

    def add(self, attempt: Attempt) -> None:
        """Count a block that is done."""
        if isinstance(attempt.result, BlockReport) and not attempt.result.skipped:
            self._kinds[attempt.worker] = attempt.result.kind
            self._seconds[attempt.result.kind].append(attempt.result.seconds)

    def find(self, sent: Mapping[str, Sent]) -> list[tuple[str, str]]:
        """Late tasks with a worker of the same kind for each, which is free; at most every half a second."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return []
        self._looked = now
        allowed = {kind: _FACTOR * float(np.percentile(times, _PERCENTILE)) for kind, times in self._seconds.items()
                   if len(times) >= _LEAST_DONE}  # fmt: skip
        least = min(allowed.values(), default=np.inf)
        old = [key for key, task in sent.items() if self._may_double(task) and now - task.time > least]
        if not old:
            return []
        holders = self._holders()
        free, found = self._free(holders), []
        for key in old:
            # A worker that has done no block may be of any kind: its task is given to none.
            kind = self._kinds.get(holders.get(key, ""))
            worker = next((name for name in free if kind is not None and self._kinds.get(name) == kind), None)
            if worker is not None and now - sent[key].time > allowed.get(str(kind), np.inf) * len(sent[key].tasks):
                free.remove(worker)
                found.append((key, worker))
        return found

    @staticmethod
    def _may_double(task: Sent) -> bool:
        """Whether there is one copy, of blocks that have not failed: a block that ends workers ends one at a time."""
        return not task.twin and all(block.attempt == 1 and not block.most for block in task.tasks.values())
