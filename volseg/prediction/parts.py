"""Several drivers that write one map, each its own part of the blocks.

the first one creates the target -> the others adopt it -> each computes its blocks, and the coarser ones that are made
of nothing else -> the last one makes those that are made of several parts' blocks
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from volseg.errors import ConfigError
from volseg.prediction.prepare import planned_blocks, prepare
from volseg.storage import NO_SHARDS, ObjectPath, creation_turn, local_output, target_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from volseg.blocks import BlockSet, Part
    from volseg.config import PredictConfig
    from volseg.prediction.prepare import RunSpec
    from volseg.prediction.resume import DoneBlocks
    from volseg.storage import RunRecord

WAITING_FOR_TARGET = "waiting for the part that creates the target"


@dataclass(frozen=True)
class Share:
    """The blocks that a driver computes.

    Attributes:
        part: of the run; None for all.
        planned: blocks of all levels, without those outside the mask; None for all of the run.
        blocks: number of those of level 0.
        coarser: number of those of coarser levels.
        outside: number of blocks of level 0 that are outside the mask.
    """

    part: Part | None
    planned: BlockSet | None
    blocks: int
    coarser: int
    outside: int

    def numbers(self, count: int) -> range:
        """Numbers of its blocks of level 0, those outside the mask too.

        Args:
            count: blocks of the run.
        """
        return range(count) if self.part is None else self.part.numbers(count)

    def undone(self, done: BlockSet, count: int) -> Iterator[int]:
        """Its blocks of level 0 that are not done, in their order.

        Args:
            done: blocks of the run.
            count: blocks of the run.
        """
        if self.part is None:
            undone = done.missing(count)
            return undone if self.planned is None else (number for number in undone if number in self)
        return (number for number in self.numbers(count) if number not in done and number in self)

    def count_done(self, done: BlockSet) -> int:
        """How many blocks of a set are its own."""
        return len(done) if self.planned is None or self.part is None else done.overlap(self.planned)

    def __contains__(self, number: int) -> bool:
        return self.planned is None or number in self.planned

    def restrict(self, done: DoneBlocks) -> None:
        """Forget what shards the blocks of others have: their drivers look after them."""
        if self.part is None or self.planned is None:
            return
        done.sizes[~self.planned.to_flags(0, len(done.sizes))] = NO_SHARDS


def share_of(spec: RunSpec, record: RunRecord, part: Part | None) -> Share:
    """What a driver computes of a run."""
    planned, count = planned_blocks(spec), record.grid.count
    if part is None:
        return Share(None, planned, record.planned, record.planned_coarser, count - record.planned)
    own = part.planned(record.pyramid, planned)
    blocks = int(np.count_nonzero(own.to_flags(0, count)))
    return Share(part, own, blocks, len(own) - blocks, len(part.numbers(count)) - blocks)


@contextmanager
def prepared(
    config: PredictConfig, waiting: Callable[[], None] = lambda: None
) -> Iterator[tuple[RunSpec, RunRecord | None, Callable[[], None]]]:
    """Prepare a run, or a part of one: the first driver creates the target, those of other parts wait and adopt it.

    Args:
        config: the options.
        waiting: called once if another driver is about to create the target.

    Yields:
        The run, the record of the one that it resumes, and what to call when the target is there.

    Raises:
        VolsegError: as `prepare`.
    """
    with ExitStack() as turn:
        if config.part is not None:
            if isinstance(target_path(config.target), ObjectPath):
                raise ConfigError(
                    f"--part {config.part}: {config.target} is in an object store, where one driver owns a target; "
                    "leave --part out and give --cluster, or write to a file system that all drivers share"
                )
            turn.enter_context(creation_turn(local_output(config.target), waiting))
        spec, recorded = prepare(config)
        if recorded is not None:
            turn.close()
        yield spec, recorded, turn.close
