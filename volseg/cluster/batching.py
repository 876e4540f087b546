"""How many blocks go to a worker as one task: a task costs driver and scheduler milliseconds, whatever it computes."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volseg.cluster.job_queue import BlockQueue, BlockTask

MAX_BATCH = 256
"""Blocks of a task, at most."""
TASK_SECONDS = 0.5
"""That a task is to take, at least, unless one block takes longer."""
SECONDS_PER_SLOT = 0.006
"""That a task is to take for each slot of the cluster: one task of 3 ms is sent in each 6 ms, by half a core."""
_OVERTIME = 2.0
"""A worker gives back what is left of a batch that takes so many times as long as it was to take."""
SPLIT = 8
"""A batch whose worker died is sent again in so many parts, until the block that ends workers is alone."""
_MEAN_OF = 200


@dataclass(slots=True)
class BatchSize:
    """Chooses sizes of batches from the time that blocks take.

    >>> size = BatchSize()
    >>> size.blocks(slots=4)
    1
    >>> for _ in range(1000):
    ...     size.add(0.01)
    >>> size.blocks(slots=4), size.blocks(slots=100), size.blocks(slots=4, remaining=80)
    (50, 5, 5)

    Attributes:
        mean: seconds of the last blocks.
        done: blocks so far.
        largest: blocks that a task had, at most.
    """

    mean: float = 0.0
    done: int = 0
    largest: int = 1

    def add(self, seconds: float) -> None:
        """Count a block."""
        self.done += 1
        self.mean += (seconds - self.mean) / min(self.done, _MEAN_OF)

    def seconds(self, slots: int) -> float:
        """Seconds that a task is to take."""
        return max(TASK_SECONDS, SECONDS_PER_SLOT * slots)

    def blocks(self, slots: int, remaining: int = 0) -> int:
        """Blocks of the next task.

        Args:
            slots: of the cluster.
            remaining: blocks that are not sent, so that the last ones are shared out; 0 if unknown.
        """
        most = min(MAX_BATCH, self.done // (2 * max(1, slots)))  # no leap from what a few blocks took
        if remaining:
            most = min(most, remaining // (4 * max(1, slots)))
        size = max(1, min(most, ceil(self.seconds(slots) / max(self.mean, 1e-6))))
        self.largest = max(self.largest, size)
        return size

    def limit(self, slots: int) -> float:
        """Seconds after which a worker gives back the rest of a batch; 0 as long as no task had several blocks."""
        return _OVERTIME * self.seconds(slots) if self.largest > 1 else 0.0


def take_batch(queue: BlockQueue, size: int) -> list[BlockTask]:
    """The next blocks of a queue that may be computed in one task; none if there are none for now."""
    first = queue.take()
    if first is None:
        return []
    batch, most = [first], min(size, first.most) if first.most else size
    if first.attempt > 1:
        return batch
    while len(batch) < most and (task := queue.take_like(first)) is not None:
        batch.append(task)
    return batch
