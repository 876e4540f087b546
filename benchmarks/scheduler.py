"""Measures the overhead of a block without its network, for up to a million blocks.

python -m benchmarks.scheduler [--max-blocks 1000000]

Blocks without work; the identity network; a journal of a million marks; many workers whose blocks sleep.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.fleet import measure_fleet
from benchmarks.record import record
from volseg.blocks import BlockSet
from volseg.cluster import Executor, NullProgress, connect, run_blocks
from volseg.storage import Journal, Mark, read_marks
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.testing.doubles import copy_block, report
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.pipeline import BlockReport

MAX_BLOCKS = 100_000
WORKERS = 4
"""A worker waits a round trip for a block without work; several keep the scheduler busy."""
MARKS = 1_000_000
IDENTITY_BLOCKS = 2_000
SHAPE, BLOCK = (20, 160, 160), (1, 16, 16)


def measure(cluster: Executor, compute: Callable[[int], BlockReport], blocks: int) -> dict[str, float]:
    """Wall and CPU milliseconds per block, and memory, of this process, which holds driver and scheduler."""
    process = psutil.Process()
    before, used, start = process.memory_info().rss, sum(process.cpu_times()[:2]), time.perf_counter()
    outcome = run_blocks(cluster, range(blocks), compute, lambda *_: None, NullProgress())
    seconds = time.perf_counter() - start
    after = process.memory_info().rss
    assert outcome.done == blocks
    return {
        "blocks": blocks,
        "ms_a_block": round(seconds / blocks * 1e3, 3),
        "driver_and_scheduler_cpu_ms_a_block": round((sum(process.cpu_times()[:2]) - used) / blocks * 1e3, 3),
        "peak_futures": outcome.peak_in_flight,
        "driver_and_scheduler_mib": round(after / 2**20, 1),
        "driver_and_scheduler_grew_mib": round((after - before) / 2**20, 1),
    }


def measure_no_work(max_blocks: int) -> list[dict[str, float]]:
    """Measure runs of ten times as many blocks each, on one cluster, after 200 blocks of warm-up."""
    with connect("local", WORKERS) as cluster:
        measure(cluster, report, 200)
        sizes, rows = [1_000], []
        while sizes[-1] * 10 <= max_blocks:
            sizes.append(sizes[-1] * 10)
        for blocks in sizes:
            rows.append(measure(cluster, report, blocks))
            sys.stdout.write(f"{rows[-1]}\n")
            sys.stdout.flush()
        return rows


def measure_identity() -> dict[str, float]:
    """Measure blocks of the identity network, which read and write a shard each."""
    with tempfile.TemporaryDirectory() as folder, connect("local", 2) as cluster:
        raw, out = Path(folder, "raw.zarr"), Path(folder, "out.zarr")
        make_volume(raw, SHAPE, chunk=(10, 80, 80))
        create_volume(out, shape=SHAPE, shard=BLOCK, chunk=BLOCK, dtype="uint8", place=Place.of_nm((30.0, 6.0, 6.0)))
        compute = partial(copy_block, source=str(raw), target=str(out), block=BLOCK)
        measure(cluster, compute, 200)
        return measure(cluster, compute, IDENTITY_BLOCKS)


def measure_journal(marks: int) -> dict[str, float]:
    """Write marks for all blocks but ten, then find those ten as a resumed run does."""
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name, "0", ".volseg"), time.perf_counter()
        folder.parent.mkdir()
        with Journal(folder) as journal:
            for block in range(marks - 10):
                journal.mark(Mark(block, f"{block * 7919:032x}", 1, "tcp://127.0.0.1:43211", 0.123))
        write_seconds, before, resume_start = (
            time.perf_counter() - start,
            process.memory_info().rss,
            time.perf_counter(),
        )
        done = BlockSet(mark.block for mark in read_marks(folder))
        remaining = [block for block in range(marks) if block not in done]
        resume_seconds, after = time.perf_counter() - resume_start, process.memory_info().rss
        assert remaining == list(range(marks - 10, marks))
        size = sum(segment.stat().st_size for segment in folder.glob("*.marks"))
    return {
        "marks": marks,
        "write_seconds": round(write_seconds, 2),
        "resume_seconds": round(resume_seconds, 2),
        "resume_grew_mib": round((after - before) / 2**20, 1),
        "file_mib": round(size / 2**20, 1),
    }


def main() -> None:
    """Measure everything and record it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-blocks", type=int, default=MAX_BLOCKS, help="blocks without work in the largest run")
    parser.add_argument("--marks", type=int, default=MARKS, help="marks in the journal")
    parser.add_argument("--fleet", type=int, default=64, help="workers whose blocks sleep")
    parser.add_argument("--dry-run", action="store_true", help="print the figures without recording them")
    options = parser.parse_args()
    figures: dict[str, Any] = {
        "journal": measure_journal(options.marks),
        "fleet": measure_fleet(options.fleet),
        "no work": measure_no_work(options.max_blocks),
        "identity network": measure_identity(),
    }
    sys.stdout.write(f"{figures}\n")
    if not options.dry_run:
        sys.stdout.write(f"{record('scheduler', figures)}\n")


if __name__ == "__main__":
    main()
