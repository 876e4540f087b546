"""An identity network: it tests grids, halos, crops and the run itself without weights."""

from __future__ import annotations

import os
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.blocks import BlockGrid, Box, Footprint, Tiling, Zyx
from volseg.cluster import NullProgress
from volseg.errors import BlockError, SourceError
from volseg.pipeline import BlockPipeline, BlockReport, EnsembleMember, Estimate, process_block
from volseg.prediction.sink import VolumeSink
from volseg.storage import open_target, open_volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.cluster.dask_executor import DaskExecutor
    from volseg.ops import Grey

FOOTPRINT = Footprint((0, 1, 1), (0, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), (0, 1, 1))


def address_of(executor: DaskExecutor) -> str:
    """Address at which a run can join the cluster."""
    return str(executor.client.scheduler_info()["address"])


class Identity:
    """Predicts the grey values themselves: raw / 255 if the constants are (0, 255)."""

    def __init__(self, tiling: Tiling) -> None:
        self._tiling = tiling

    def __call__(self, grey: Grey, write_box: Box) -> Iterator[Estimate]:
        inside = write_box.relative_to(self._tiling.read_box(write_box).start)
        yield Estimate(grey[inside.slices].normalized()[None], 0.0)


@lru_cache(maxsize=2)
def identity_pipeline(source: str, target: str, block: Zyx, halo: Zyx) -> BlockPipeline:
    """A pipeline that copies a uint8 volume, by way of probability."""
    volume, sink = open_volume(source), open_target(Path(target))
    tiling = Tiling(FOOTPRINT, block, halo)
    grid = BlockGrid.over(volume.shape, block, sink.shard)
    member = EnsembleMember(tiling, ((0.0, 255.0),), Identity(tiling))
    return BlockPipeline(grid, (member,), volume, VolumeSink((sink,)))


def copy_block(number: int, source: str, target: str, block: Zyx, halo: Zyx = (0, 1, 1)) -> BlockReport:
    """One block of the identity network, as a worker does it."""
    return process_block(number, identity_pipeline(source, target, block, halo))


def report(number: int) -> BlockReport:
    """A block that takes no work."""
    return BlockReport(number, 1, "", 0.0, 0.0)


def fails_once_a_worker(number: int, folder: str) -> BlockReport:
    """Fails on the first worker that tries a block, succeeds on any other."""
    first = Path(folder) / f"first-{number}"
    me = str(os.getpid())
    try:
        first.touch(exist_ok=False)
        first.write_text(me)
    except FileExistsError:
        if first.read_text() != me:
            return report(number)
    raise SourceError(f"a disk error at block {number}")


def fails_at_three(number: int) -> BlockReport:
    """Fails for good at block 3, with an error that no worker could avoid."""
    if number == 3:
        raise BlockError("block 3: 7 voxels of the source are NaN")
    return report(number)


def breaks_at_three(number: int) -> BlockReport:
    """Meets a bug at block 3."""
    return report(number) if number != 3 else report([0][number])


def dies_at_three(number: int) -> BlockReport:
    """Takes its worker down at block 3."""
    if number == 3:
        os._exit(11)
    return report(number)


def naps(number: int, seconds: float = 0.05) -> Any:
    """Takes a while."""
    time.sleep(seconds)
    return report(number)


class Marks:
    """Keeps what the journal would be told."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[int, str]] = {}

    def __call__(self, block: BlockReport, attempt: int, worker: str) -> None:
        assert block.number not in self.done
        self.done[block.number] = (attempt, worker)


class Notes(NullProgress):
    """Keeps what the user would be told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


def kills_its_worker(item: int) -> None:
    """Ends its process, as a batch system does."""
    os._exit(item)


def faults_of_large_maps(size: int) -> int:
    """Pages that the system hands out while the lane makes and drops maps of so many bytes."""
    import resource

    from volseg.inference.executor import forward_executor
    from volseg.inference.memory.malloc import retain_heap

    def count() -> int:
        retain_heap()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            bytearray(size)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    return forward_executor.submit(count).result()
