"""The window, failed blocks, and what the driver holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from tests.doubles import breaks_at_three, copy_block, dies_at_three, fails_at_three, fails_once_a_worker, naps, report
from tests.makers import blobs, make_volume, stored
from volseg.cluster import Cluster, Quiet, connect, run_blocks
from volseg.cluster.connect import SLOTS
from volseg.errors import ClusterError, ConfigError
from volseg.pipeline import BlockReport
from volseg.storage.target import create_volume

if TYPE_CHECKING:
    from collections.abc import Iterator


class Marks:
    """Keeps what the journal would be told."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[int, str]] = {}

    def __call__(self, block: BlockReport, attempt: int, worker: str) -> None:
        assert block.number not in self.done
        self.done[block.number] = (attempt, worker)


class Notes(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Cluster]:
    with connect("local", 2) as cluster:
        yield cluster


@pytest.fixture(params=["serial", "local"])
def any_cluster(request: pytest.FixtureRequest, two_workers: Cluster) -> Cluster:
    return Cluster(None) if request.param == "serial" else two_workers


def test_every_block_is_done_once(any_cluster: Cluster) -> None:
    marks = Marks()
    outcome = run_blocks(any_cluster, iter(range(50)), report, marks, Quiet())
    assert sorted(marks.done) == list(range(50))
    assert (outcome.done, outcome.failed) == (50, {})


def test_a_failed_block_is_sent_again_to_another_worker(two_workers: Cluster, tmp_path: Path) -> None:
    marks, notes = Marks(), Notes()
    outcome = run_blocks(two_workers, range(8), partial(fails_once_a_worker, folder=str(tmp_path)), marks, notes)
    assert not outcome.failed
    assert {attempt for attempt, _ in marks.done.values()} == {2}
    assert len(notes.lines) == 8
    assert all("a disk hiccup" in line and "sent again" in line for line in notes.lines)


def test_what_no_worker_could_do_is_tried_once_and_the_run_goes_on(any_cluster: Cluster) -> None:
    marks, notes = Marks(), Notes()
    outcome = run_blocks(any_cluster, range(6), fails_at_three, marks, notes)
    assert outcome.failed == {3: "block 3: 7 voxels of the source are NaN"}
    assert sorted(marks.done) == [0, 1, 2, 4, 5]
    assert notes.lines == ["block 3 failed for good: block 3: 7 voxels of the source are NaN"]


def test_a_bug_is_tried_three_times_and_shows_where_it_is(any_cluster: Cluster) -> None:
    notes = Notes()
    outcome = run_blocks(any_cluster, range(6), breaks_at_three, Marks(), notes)
    assert outcome.failed == {3: "IndexError: list index out of range"}
    assert sum("sent again" in line for line in notes.lines) == 2
    assert any("breaks_at_three" in line for line in notes.lines)


@pytest.mark.timeout(120)
def test_a_block_that_takes_its_workers_down_fails_alone() -> None:
    marks = Marks()
    with connect("local", 2) as cluster:
        outcome = run_blocks(cluster, range(6), dies_at_three, marks, Quiet())
    assert list(outcome.failed) == [3]
    assert sorted(marks.done) == [0, 1, 2, 4, 5]


def test_one_task_a_block(two_workers: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law 5: what a peer's overlap makes a hundred tasks of is one here."""
    assert two_workers.client is not None
    before = two_workers.client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
    run_blocks(two_workers, range(40), report, Marks(), Quiet())
    after = two_workers.client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
    # A task passes released, waiting, (no-worker or queued,) processing, memory, released, forgotten.
    assert (after - before) / 40 <= 7


def test_ten_thousand_blocks_hold_a_bounded_number_of_futures(two_workers: Cluster, tmp_path: Path) -> None:
    shape, block = (100, 160, 160), (1, 16, 16)
    raw = make_volume(tmp_path / "raw.zarr", shape, chunk=(10, 80, 80))
    create_volume(
        tmp_path / "out.zarr", shape=shape, shard=block, chunk=block, dtype="uint8", voxel_nm=(30.0, 6.0, 6.0)
    )
    compute = partial(copy_block, source=str(raw), target=str(tmp_path / "out.zarr"), block=block)
    marks, driver = Marks(), psutil.Process()
    run_blocks(two_workers, range(200), compute, Marks(), Quiet())
    before, started = driver.memory_info().rss, time.perf_counter()
    outcome = run_blocks(two_workers, range(10_000), compute, marks, Quiet())
    took, grown = time.perf_counter() - started, driver.memory_info().rss - before
    figures = f"peak futures {outcome.peak_in_flight}, driver +{grown / 2**20:.1f} MiB, {took / 10:.2f} ms a block"
    assert outcome.done == 10_000, figures
    assert outcome.peak_in_flight <= 2 * 2 * SLOTS, figures
    assert grown < 60 << 20, figures
    np.testing.assert_array_equal(stored(tmp_path / "out.zarr"), blobs(shape))


def test_the_numbers_are_consumed_as_the_window_moves(two_workers: Cluster) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10**9):
            taken.append(number)
            yield number

    class EnoughError(Exception):
        pass

    def stop_early(block: BlockReport, attempt: int, worker: str) -> None:
        if block.number >= 20:
            raise EnoughError

    with pytest.raises(EnoughError):
        run_blocks(two_workers, numbers(), report, stop_early, Quiet())
    assert len(taken) < 20 + 4 * 2 * SLOTS


def mine(number: int, name: str) -> BlockReport:
    return BlockReport(number, 1, name, 0.0, 0.0)


def test_two_runs_on_one_scheduler_do_not_take_each_others_blocks(two_workers: Cluster) -> None:
    assert two_workers.client is not None
    import threading

    from distributed import Client

    digests: dict[str, list[str]] = {"a": [], "b": []}

    def drive(name: str, client: Client) -> None:
        cluster = Cluster(client, names=two_workers.names, slots=two_workers.slots)

        def keep(block: BlockReport, attempt: int, worker: str) -> None:
            digests[name].append(block.digest)

        run_blocks(cluster, range(60), partial(mine, name=name), keep, Quiet())

    with Client(two_workers.client.scheduler_info()["address"]) as other:
        threads = [threading.Thread(target=drive, args=pair) for pair in (("a", two_workers.client), ("b", other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert digests == {"a": ["a"] * 60, "b": ["b"] * 60}


def test_a_scheduler_that_dies_is_one_clear_error(free_scheduler: str) -> None:
    process = start_worker(free_scheduler, "--nthreads", "2", "--resources", "slot=2")
    try:
        with joined(free_scheduler) as cluster:
            assert cluster.client is not None
            pid = cluster.client.run_on_scheduler(os.getpid)

            def kill_early(block: BlockReport, attempt: int, worker: str) -> None:
                if block.number == 2:
                    os.kill(pid, 9)

            with pytest.raises(ClusterError, match="lost; start it again and give --resume"):
                run_blocks(cluster, range(10_000), naps, kill_early, Quiet())
    finally:
        process.kill()
        process.wait()


def test_a_cluster_without_workers_left_is_said_and_given_up(
    free_scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import volseg.cluster.run as running

    monkeypatch.setattr(running, "_LOOK_SECONDS", 0.5)
    monkeypatch.setattr(running, "_WITHOUT_WORKERS_SECONDS", 2.0)
    process, notes = start_worker(free_scheduler, "--nthreads", "2", "--resources", "slot=2"), Notes()

    def kill_early(block: BlockReport, attempt: int, worker: str) -> None:
        if block.number == 2:
            process.kill()
            process.wait()

    with pytest.raises(ClusterError, match="has had no workers for .* minutes"), joined(free_scheduler) as cluster:
        run_blocks(cluster, range(10_000), naps, kill_early, notes)
    assert any("no workers left; waiting" in line for line in notes.lines)


def test_work_is_shared_out(two_workers: Cluster) -> None:
    marks = Marks()
    run_blocks(two_workers, range(40), naps, marks, Quiet())
    counts = [sum(worker == name for _, worker in marks.done.values()) for name in two_workers.names]
    assert min(counts) >= 12


@pytest.fixture
def free_scheduler() -> Iterator[str]:
    """A scheduler without workers."""
    code = (
        "import asyncio; from distributed import Scheduler\n"
        "async def main():\n"
        "    async with Scheduler(host='127.0.0.1', port=0, dashboard_address='127.0.0.1:0') as s:\n"
        "        print(s.address, flush=True); await s.finished()\n"
        "asyncio.run(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()


def start_worker(address: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-dashboard", "--no-nanny", *options]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


@pytest.mark.parametrize("worker", [False, True])
def test_a_cluster_without_the_resource_is_refused(free_scheduler: str, worker: bool) -> None:
    process = start_worker(free_scheduler, "--nthreads", "1") if worker else None
    try:
        time.sleep(4 if worker else 0)
        with (
            pytest.raises(ClusterError, match=r"none with the resource 'slot'.*--resources slot=2"),
            connect(free_scheduler, None),
        ):
            pass
    finally:
        if process:
            process.kill()
            process.wait()


def test_a_joined_cluster_does_the_work_and_outlives_it(free_scheduler: str) -> None:
    process = start_worker(free_scheduler, "--nthreads", "2", "--resources", "slot=2")
    try:
        for _ in range(2):
            with joined(free_scheduler) as cluster:
                marks = Marks()
                run_blocks(cluster, range(10), report, marks, Quiet())
                assert sorted(marks.done) == list(range(10))
    finally:
        process.kill()
        process.wait()


def test_predict_runs_on_a_joined_cluster(free_scheduler: str, raw: Path, small_model: Path, tmp_path: Path) -> None:
    import volseg

    options: Any = {"model": str(small_model), "block": (2, 32, 32), "precision": "float32"}
    volseg.predict(str(raw), str(tmp_path / "serial.zarr"), **options, cluster="serial")
    process = start_worker(free_scheduler, "--nthreads", "2", "--resources", "slot=2")
    try:
        # The worker may still be on its way: a driver that starts beside it waits a little.
        summary = volseg.predict(str(raw), str(tmp_path / "joined.zarr"), **options, cluster=free_scheduler)
    finally:
        process.kill()
        process.wait()
    assert (summary.done, summary.failed) == (27, {})
    assert set(summary.workers) != {"this process"}
    assert np.abs(stored(tmp_path / "joined.zarr").astype(int) - stored(tmp_path / "serial.zarr")).max() <= 1


def joined(address: str):
    """Connect once the worker has come up."""
    for _ in range(60):
        try:
            connection = connect(address, None)
            cluster = connection.__enter__()
        except ClusterError:
            time.sleep(0.5)
        else:
            connection.__exit__(None, None, None)
            assert cluster.slots == SLOTS
            return connect(address, None)
    raise AssertionError("no worker came up")


def test_an_unreachable_scheduler_is_refused_within_seconds() -> None:
    started = time.monotonic()
    with (
        pytest.raises(ClusterError, match="no scheduler answers at tcp://127.0.0.1:9 within 5 s"),
        connect("tcp://127.0.0.1:9", None),
    ):
        pass
    assert time.monotonic() - started < 9


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="--cluster 'slurm' is not one of serial, local"), connect("slurm", None):
        pass
