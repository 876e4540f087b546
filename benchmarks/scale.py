"""Measures the bookkeeping of 10^8 blocks: a journal that this script writes, and a driver without a cluster.

python -m benchmarks.scale [--marks 100000000] [--blocks 10000000] [--tasks 1000000]

The journal of 10^8 marks takes 7.2 GB in the folder for temporary files; no shard is written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from benchmarks.record import record
from benchmarks.scheduler import WORKERS, measure
from volseg.blocks import BlockGrid, BlockSet, PyramidGrid, pyramid_levels
from volseg.cluster import Attempt, BlockOrder, NullProgress, SerialExecutor, connect, mark_of, run_blocks
from volseg.pipeline import EMPTY, BlockReport
from volseg.prediction.resume import done_blocks
from volseg.storage import MARKED, Journal, JournalReader, Mark
from volseg.storage.mark_records import MARK_RECORD, checksums
from volseg.storage.marks import MarkEncoder
from volseg.testing.doubles import report

if TYPE_CHECKING:
    from collections.abc import Generator

    from volseg.cluster import BlockTask

_CHUNK = 1 << 20
_LEFT = 10
"""Blocks without a mark."""


def pyramid_of(blocks: int) -> PyramidGrid:
    """A pyramid with about so many blocks of level 0, of one shard each; level 2 has a sixteenth."""
    side = max(4, round((blocks / 4) ** 0.5) // 4 * 4)
    shape = (4 * 16, side * 64, side * 64)
    return PyramidGrid(
        BlockGrid.over(shape, (16, 64, 64), (16, 64, 64)),
        pyramid_levels(shape, (16, 64, 64), (16, 64, 64), [(1, 2, 2)] * 2),
    )


def write_journal(folder: Path, blocks: int) -> None:
    """Write marks of blocks 0 to `blocks`, nearly in order, as a fleet ends them."""
    rng, encoder = np.random.default_rng(0), MarkEncoder()
    first = encoder.encode([Mark(blocks - 1, "1" * 32, 1, "tcp://10.0.0.1:4321, GPU", 1.0, "", 1, "2" * 32)])
    with (folder / "journal-0001.marks").open("wb") as file:
        file.write(encoder.header() + first)
        template = np.frombuffer(first, MARK_RECORD)[-1]
        for start in range(0, blocks - 1, _CHUNK):
            marks = np.full(min(_CHUNK, blocks - 1 - start), template, MARK_RECORD)
            marks["block"] = start + np.argsort(np.arange(len(marks)) + rng.integers(0, 1000, len(marks)))
            marks["bytes"] = rng.integers(1, 1 << 20, len(marks))
            marks["checksum"] = checksums(marks)
            file.write(marks.tobytes())


def measure_journal(marks: int) -> dict[str, float]:
    """Seconds until the first block of a resumed run can be sent, and those of a status."""
    process, pyramid = psutil.Process(), pyramid_of(marks)
    count = pyramid.base.count - _LEFT
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name), time.perf_counter()
        write_journal(folder, count)
        written, before = time.perf_counter(), process.memory_info().rss
        done = done_blocks(folder, pyramid)
        order = BlockOrder(done.blocks.missing(pyramid.base.count), pyramid, done.blocks, done.coarser, count=_LEFT)
        first = next(order)
        resumed, after = time.perf_counter(), process.memory_info().rss
        assert (first, len(done.blocks)) == (count, count)
        del done, order
        begun = time.perf_counter()
        reader = JournalReader(folder, pyramid, EMPTY)
        assert reader.read().count(MARKED) == count
        without = time.perf_counter() - begun
        reader.write()
        begun = time.perf_counter()
        reader = JournalReader(folder, pyramid, EMPTY)
        reader.restore()
        assert reader.read().count(MARKED) == count
        status = time.perf_counter() - begun
        size = sum(segment.stat().st_size for segment in folder.glob("*.marks"))
    return {
        "marks": count,
        "write_seconds": round(written - start, 2),
        "resume_seconds": round(resumed - written, 2),
        "resume_grew_mib": round((after - before) / 2**20, 1),
        "process_mib": round(after / 2**20, 1),
        "status_seconds": round(status, 2),
        "status_seconds_without_summary": round(without, 2),
        "bytes_a_mark": round(size / count, 1),
    }


class InProcess(SerialExecutor):
    """Reports blocks without work, as many at a time as a window holds."""

    def attempts(self, queue: Any, compute: Any, progress: Any, deadline: Any) -> Generator[tuple[BlockTask, Attempt]]:
        while taken := [task for _ in range(1024) if (task := queue.take()) is not None]:
            for task in taken:
                queue.completed(task)
                yield task, Attempt(task.number, "tcp://10.0.0.1:4321", compute(task.number))


def measure_driver(blocks: int) -> dict[str, float]:
    """Milliseconds of a driver a block, without Dask: queue, order of three levels, marks in a journal."""
    process, pyramid = psutil.Process(), pyramid_of(blocks)
    with tempfile.TemporaryDirectory() as name, Journal(_made(Path(name, "0", ".volseg"))) as journal:
        order = BlockOrder(iter(range(pyramid.base.count)), pyramid, BlockSet(), BlockSet(), count=pyramid.base.count)

        def on_done(block: BlockReport, attempt: int, worker: str) -> None:
            journal.mark(mark_of(block, attempt, worker))

        used = sum(process.cpu_times()[:2])
        outcome = run_blocks(InProcess(), order, report, order.tracking(on_done), NullProgress())
        used = sum(process.cpu_times()[:2]) - used
        assert (outcome.done, order.left) == (pyramid.count, 0)
    return {
        "blocks": outcome.done,
        "driver_cpu_ms_a_block": round(used / outcome.done * 1e3, 4),
        "process_mib": round(process.memory_info().rss / 2**20, 1),
    }


def _made(folder: Path) -> Path:
    folder.parent.mkdir()
    return folder


def main() -> None:
    """Measure everything and record it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--marks", type=int, default=10_000_000, help="marks in the journal")
    parser.add_argument("--blocks", type=int, default=1_000_000, help="blocks of the driver without a cluster")
    parser.add_argument("--tasks", type=int, default=100_000, help="blocks without work through Dask")
    parser.add_argument("--dry-run", action="store_true", help="print the figures without recording them")
    options = parser.parse_args()
    figures: dict[str, Any] = {"driver": measure_driver(options.blocks), "journal": measure_journal(options.marks)}
    if options.tasks:
        with connect("local", WORKERS) as cluster:
            measure(cluster, report, 2_000)
            figures["dask"] = measure(cluster, report, options.tasks)
    sys.stdout.write(f"{figures}\n")
    if not options.dry_run:
        sys.stdout.write(f"{record('scale', figures)}\n")


if __name__ == "__main__":
    main()
