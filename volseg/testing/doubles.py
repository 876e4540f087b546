"""Test doubles: an identity network, tasks that fail in known ways, and recorders of what a run reports."""

from __future__ import annotations

import os
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.blocks import BlockGrid, Box, Footprint, Tiling, Zyx
from volseg.cluster import NullProgress
from volseg.cluster.dask_executor import DaskExecutor
from volseg.errors import BlockError, SourceError
from volseg.inference.executor import forward_executor
from volseg.malloc import retain_heap
from volseg.pipeline import BlockPipeline, BlockReport, EnsembleMember, Estimate, process_block
from volseg.prediction.sink import VolumeSink
from volseg.storage import open_target, open_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from volseg.cluster import Executor
    from volseg.ops import Grey

FOOTPRINT = Footprint((0, 1, 1), (0, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), (0, 1, 1))


def address_of(executor: Executor) -> str:
    """Address at which a run can join a Dask cluster."""
    if not isinstance(executor, DaskExecutor):
        raise TypeError(f"{type(executor).__name__} has no address; start a local cluster")
    return str(executor.client.scheduler_info(n_workers=0)["address"])


class IdentityPredictor:
    """Returns the grey values of the write box as probability: raw / 255 if the constants are (0, 255)."""

    def __init__(self, tiling: Tiling) -> None:
        self._tiling = tiling

    def __call__(self, grey: Grey, write_box: Box) -> Iterator[Estimate]:
        start = self._tiling.read_box(write_box).start
        yield Estimate(grey[write_box.relative_to(start).slices].normalized()[None], 0.0)


@lru_cache(maxsize=2)
def identity_pipeline(source: str, target: str, block: Zyx, halo: Zyx) -> BlockPipeline:
    """A pipeline that copies a uint8 volume, by way of probability."""
    volume, sink = open_volume(source), open_target(Path(target))
    tiling = Tiling(FOOTPRINT, block, halo)
    grid = BlockGrid.over(volume.shape, block, sink.shard)
    member = EnsembleMember(tiling, ((0.0, 255.0),), IdentityPredictor(tiling))
    return BlockPipeline(grid, (member,), volume, VolumeSink((sink,)))


def copy_block(number: int, source: str, target: str, block: Zyx, halo: Zyx = (0, 1, 1)) -> BlockReport:
    """Process one block with the identity network."""
    return process_block(number, identity_pipeline(source, target, block, halo))


def report(number: int) -> BlockReport:
    """Report a block at once, as if it were processed."""
    return BlockReport(number, 1, "", 0.0, 0.0)


def fail_on_first_worker(number: int, folder: str) -> BlockReport:
    """Fail on the first worker that tries a block, succeed on any other."""
    first = Path(folder) / f"first-{number}"
    pid = str(os.getpid())
    try:
        first.touch(exist_ok=False)
        first.write_text(pid)
    except FileExistsError:
        if first.read_text() != pid:
            return report(number)
    raise SourceError(f"a disk error at block {number}")


def fail_at_three(number: int) -> BlockReport:
    """Raise an error at block 3 that no other worker could avoid."""
    if number == 3:
        raise BlockError("block 3: 7 voxels of the source are NaN")
    return report(number)


def bug_at_three(number: int) -> BlockReport:
    """Raise IndexError at block 3, as a bug would."""
    return report(number) if number != 3 else report([0][number])


def exit_at_three(number: int) -> BlockReport:
    """End the worker's process at block 3."""
    if number == 3:
        os._exit(11)
    return report(number)


def sleep_and_report(number: int, seconds: float = 0.05) -> BlockReport:
    """Report a block after some seconds."""
    time.sleep(seconds)
    return report(number)


class MarkRecorder:
    """Records what a run marks as done; a block marked twice is an error."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[int, str]] = {}

    def __call__(self, block: BlockReport, attempt: int, worker: str) -> None:
        if block.number in self.done:
            raise AssertionError(f"block {block.number} is marked twice")
        self.done[block.number] = (attempt, worker)


class NoteRecorder(NullProgress):
    """Records the notes that a user would see, the number of blocks that was planned last, and that of those done."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.planned = self.done = 0

    def begin(self, total: int) -> None:
        self.planned = total

    def advance(self, voxels: int, busy: float | None = None) -> None:
        self.done += 1

    def note(self, line: str) -> None:
        self.lines.append(line)


class ActAfter(NoteRecorder):
    """Acts once, when so many blocks are done."""

    def __init__(self, blocks: int, action: Callable[[], object]) -> None:
        super().__init__()
        self.left, self.action = blocks, action

    def advance(self, voxels: int, busy: float | None = None) -> None:
        super().advance(voxels, busy)
        self.left -= 1
        if self.left == 0:
            self.action()


def exit_process(code: int) -> None:
    """End the process without clean-up, as a batch system does."""
    os._exit(code)


def page_faults(size: int) -> int:
    """Count the page faults of four allocations of so many bytes, in the forward thread with a retained heap."""
    import resource  # noqa: PLC0415 - not on Windows

    def count() -> int:
        retain_heap()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            bytearray(size)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    return forward_executor.submit(count).result()
