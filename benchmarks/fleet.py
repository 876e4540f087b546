"""Measures how busy one driver keeps many workers, whose blocks only sleep, and the traffic.

Each process holds sixteen Dask workers with one slot and connections of their own, so that 64 fit a laptop. Scheduler,
driver and workers share this machine and its loopback network.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil

from volseg.cluster import Executor, NullProgress, connect, run_blocks
from volseg.cluster.dask_executor import DaskExecutor
from volseg.pipeline import BlockReport
from volseg.testing.doubles import sleep_and_report

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS, BLOCKS_EACH, WARM_UP, PER_PROCESS = 1.0, 15, 2, 16
_SCHEDULER = """
import asyncio
from distributed import Scheduler
async def main():
    async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0") as scheduler:
        print(scheduler.address, flush=True)
        await scheduler.finished()
asyncio.run(main())
"""
_WORKERS = """
import asyncio, contextlib, sys
from distributed import Worker
async def main(address, first, count):
    async with contextlib.AsyncExitStack() as stack:
        for number in range(first, first + count):
            worker = Worker(address, name=number, nthreads=1, resources={"slot": 1}, memory_limit=0, dashboard=False)
            await stack.enter_async_context(worker)
        await worker.finished()
asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


@contextlib.contextmanager
def fleet(workers: int) -> Iterator[tuple[Executor, psutil.Process]]:
    """Start workers and a scheduler, and join them; yields the executor and the scheduler's process."""
    scheduler = subprocess.Popen(
        [sys.executable, "-c", _SCHEDULER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    processes = [scheduler]
    try:
        assert scheduler.stdout is not None
        address = scheduler.stdout.readline().strip()
        for first in range(0, workers, PER_PROCESS):
            command = [sys.executable, "-c", _WORKERS, address, str(first), str(min(PER_PROCESS, workers - first))]
            processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, text=True))
        with connect(address, None) as cluster:
            assert isinstance(cluster, DaskExecutor)
            cluster.client.wait_for_workers(workers, timeout=120)
            cluster.refresh(force=True)
            yield cluster, psutil.Process(scheduler.pid)
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def measure_fleet(workers: int) -> dict[str, Any]:
    """Measure busy fraction, CPU time and traffic of a run of sleeping blocks."""
    spans: list[tuple[float, float]] = []
    with fleet(workers) as (cluster, scheduler):
        run_blocks(cluster, range(2 * workers), partial(timed_sleep, seconds=0.05), lambda *_: None, NullProgress())
        before, processes = _traffic(cluster), (psutil.Process(), scheduler)
        used = sum(sum(process.cpu_times()[:2]) for process in processes)

        def record_span(block: BlockReport, attempt: int, worker: str) -> None:
            now = time.perf_counter()
            spans.append((now - block.seconds, now))

        blocks = BLOCKS_EACH * workers
        outcome = run_blocks(cluster, range(blocks), partial(timed_sleep, seconds=SECONDS), record_span, NullProgress())
        used = sum(sum(process.cpu_times()[:2]) for process in processes) - used
        traffic = {name: after - before[name] for name, after in _traffic(cluster).items()}
    assert outcome.done == blocks
    return {
        "workers": workers,
        "workers_a_process": PER_PROCESS,
        "seconds_a_block": SECONDS,
        "blocks": blocks,
        "busy_share": round(busy_fraction(spans, workers), 4),
        "driver_and_scheduler_cpu_ms_a_block": round(used / blocks * 1e3, 3),
        "peak_futures": outcome.peak_in_flight,
        "bytes_fetched_from_workers": traffic.pop("fetched"),
        "bytes_a_block": {name: round(value / blocks) for name, value in traffic.items()},
    }


def timed_sleep(number: int, seconds: float) -> BlockReport:
    """Sleep, and report the time."""
    start = time.perf_counter()
    sleep_and_report(number, seconds)
    return BlockReport(number, 1, f"{number:032x}", time.perf_counter() - start, 0.0)


def busy_fraction(spans: list[tuple[float, float]], workers: int) -> float:
    """Fraction of the workers' time spent in blocks, between the second and the last block of each.

    Args:
        spans: start and end of each block, in seconds.
        workers: number of workers, of one block at a time each.

    >>> busy_fraction([(at, at + 1) for at in range(5) for _ in "ab"], 2)
    1.0
    >>> busy_fraction([(at, at + 1) for at in range(0, 10, 2) for _ in "ab"], 2)
    0.5
    """
    starts = sorted(start for start, _ in spans)
    begin, end = starts[WARM_UP * workers], starts[-workers]
    busy = sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in spans)
    return busy / (workers * (end - begin))


def _traffic(cluster: Executor) -> dict[str, int]:
    """Bytes sent so far: results fetched from workers, and messages."""
    assert isinstance(cluster, DaskExecutor)
    sent = cluster.client.run(lambda dask_worker: (dask_worker.transfer_outgoing_bytes_total, _sent(dask_worker)))
    down, up = cluster.client.run_on_scheduler(
        lambda dask_scheduler: (
            sum(stream.byte_count for stream in dask_scheduler.stream_comms.values()),
            sum(stream.byte_count for stream in dask_scheduler.client_comms.values()),
        )
    )
    return {
        "fetched": sum(fetched for fetched, _ in sent.values()),
        "driver to scheduler": cluster.client.scheduler_comm.byte_count,
        "scheduler to workers": down,
        "workers to scheduler": sum(messages for _, messages in sent.values()),
        "scheduler to driver": up,
    }


def _sent(worker: Any) -> int:
    return worker.batched_stream.byte_count
