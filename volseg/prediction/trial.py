"""A trial of a run: some of its blocks, computed by its own workers as the run would, and deleted afterwards.

They are written beside the target, so that the time of its file system or store is part of what is measured.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from volseg.errors import BlockError
from volseg.prediction.absence import ChunkRule
from volseg.prediction.parts import share_of
from volseg.prediction.prepare import planned_blocks
from volseg.prediction.run import Begun, BlockChoice, run_recorded
from volseg.prediction.usage import UsageMeter
from volseg.storage import ObjectPath, delete_objects, journal_folder, new_target, read_marks
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from volseg.cluster import Executor, Progress
    from volseg.prediction.constants import RunConstants
    from volseg.prediction.prepare import RunSpec
    from volseg.storage import Mark, RunRecord, TargetPath

_ENOUGH_SECONDS = 45.0
"""No block is begun later, if there are enough."""
_LEAST, _MOST, _FRACTION = 6, 400, 0.1
"""Blocks that are measured: at least, at most, and of those of the run."""
_TOGETHER = 2 / 3
"""Of them may be neighbours."""
_SEED = 1


@dataclass(frozen=True)
class Trial:
    """What some blocks took.

    Attributes:
        seconds: of each block of level 0 in its slot, but for the first ones of each worker.
        first_seconds: of these first ones, during which a worker loads and compiles.
        coarser_seconds: of each block of a coarser level.
        bytes: as stored, of each block of level 0.
        voxels: of the largest block.
        kind: of the workers; one of them, if they differ.
    """

    seconds: tuple[float, ...]
    first_seconds: tuple[float, ...]
    coarser_seconds: tuple[float, ...]
    bytes: tuple[int, ...]
    voxels: int
    kind: str


def try_blocks(
    spec: RunSpec, record: RunRecord, constants: RunConstants, executor: Executor, progress: Progress
) -> Trial:
    """Compute a random sample of the blocks of a run.

    Args:
        spec: the run.
        record: its record.
        constants: of each network's input.
        executor: of the run.
        progress: receives the progress.

    Raises:
        BlockError: a block failed, or all of the sample are empty.
        TargetError: nothing can be written beside the target.
    """
    least = executor.slots + max(_LEAST, 2 * executor.slots)
    most = min(_MOST, round(_FRACTION * record.planned))
    numbers = sample_blocks(spec, record, max(least, most))
    with _beside(spec.target) as path, ExitStack() as owned:
        owned.enter_context(new_target(path, record, spec.map_place))
        shown = _SampleProgress(progress, numbers)
        beside = replace(spec, target=path, overwrite=False)
        begun = Begun(beside, record, constants, ChunkRule(None, "fill"), executor, shown, UsageMeter(executor))
        chosen = BlockChoice(_for_a_while(numbers, least), None)
        summary = run_recorded(begun, share_of(beside, record, None), chosen)
        for number, reason in summary.failed.items():
            raise BlockError(f"block {number}: {reason}")
        marks = list(read_marks(journal_folder(path)))
    if all(mark.skipped for mark in marks):
        raise BlockError(
            f"of {counted(len(marks), 'block')} tried, each holds a single grey value; give --roi or --mask to select "
            "an image"
        )
    return _trial_of(marks, record, executor.slots_per_worker)


def sample_blocks(spec: RunSpec, record: RunRecord, most: int) -> list[int]:
    """Blocks to try: first those of which one block of a coarser level is made, if they are not too many, then any.

    Args:
        spec: the run.
        record: its record.
        most: in all.
    """
    planned, choose = planned_blocks(spec), random.Random(_SEED)
    blocks = range(record.grid.count) if planned is None else [n for n in planned if n < record.grid.count]
    first = blocks[choose.randrange(len(blocks))]
    parent = record.pyramid.parent(first)
    together = [first] if parent is None else [n for n in record.pyramid.children(parent) if n in blocks]
    others = choose.sample(blocks, min(len(blocks), most))
    return list(dict.fromkeys((together if len(together) <= _TOGETHER * most else []) + others))[:most]


def _for_a_while(numbers: Sequence[int], least: int) -> Iterator[int]:
    """The first numbers, and more as long as there is time."""
    started = time.monotonic()
    for at, number in enumerate(numbers):
        if at >= least and time.monotonic() - started > _ENOUGH_SECONDS:
            return
        yield number


def _trial_of(marks: Sequence[Mark], record: RunRecord, slots: int) -> Trial:
    """What the marks say."""
    seen, seconds, first = Counter[str](), list[float](), list[float]()
    finest = [mark for mark in marks if mark.block < record.grid.count]
    for mark in finest:
        seen[mark.worker] += 1
        (seconds if seen[mark.worker] > slots else first).append(mark.seconds)
    return Trial(
        seconds=tuple(seconds or first),
        first_seconds=tuple(first),
        coarser_seconds=tuple(mark.seconds for mark in marks if mark.block >= record.grid.count),
        bytes=tuple(mark.bytes for mark in finest),
        voxels=max(record.grid.box(mark.block).voxels for mark in finest),
        kind=finest[-1].worker.partition(", ")[2],
    )


@contextmanager
def _beside(target: TargetPath) -> Iterator[TargetPath]:
    """A place beside a target, deleted at the end."""
    name = f".{target.name}.calibration-{uuid4().hex[:8]}"
    path = target.with_name(name) if isinstance(target, Path) else target.parent / name
    try:
        yield path
    finally:
        if isinstance(path, ObjectPath):
            delete_objects(path)
        else:
            shutil.rmtree(path, ignore_errors=True)


class _SampleProgress:
    """Shows the sample in place of the run."""

    def __init__(self, progress: Progress, numbers: Sequence[int]) -> None:
        self._progress, self._total = progress, len(numbers)
        self.advance, self.note, self.stage = progress.advance, progress.note, progress.stage

    def begin(self, total: int) -> None:
        self._progress.begin(min(total, self._total))
