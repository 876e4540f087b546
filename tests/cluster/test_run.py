"""The window, failed blocks, and what the driver holds."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from volseg.cluster import Executor, NullProgress, SerialExecutor, connect, run_blocks, submission
from volseg.cluster.batching import MAX_BATCH
from volseg.cluster.dask_executor import DaskExecutor
from volseg.cluster.executor import SLOTS
from volseg.errors import ClusterError
from volseg.pipeline import BlockReport
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.testing.doubles import (
    MarkRecorder,
    NoteRecorder,
    bug_at_three,
    copy_block,
    exit_at_three,
    exit_process,
    fail_at_three,
    fail_on_first_worker,
    report,
    sleep_and_report,
)
from volseg.testing.factories import blobs, make_volume, read_volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["serial", "local"])
def any_executor(request: pytest.FixtureRequest, two_workers: DaskExecutor) -> Executor:
    return SerialExecutor() if request.param == "serial" else two_workers


def test_every_block_is_done_once(any_executor: Executor) -> None:
    marks = MarkRecorder()
    outcome = run_blocks(any_executor, iter(range(50)), report, marks, NullProgress())
    assert sorted(marks.done) == list(range(50))
    assert (outcome.done, outcome.failed) == (50, {})


def test_a_failed_block_is_sent_again_to_another_worker(two_workers: DaskExecutor, tmp_path: Path) -> None:
    marks, notes = MarkRecorder(), NoteRecorder()
    outcome = run_blocks(two_workers, range(6), partial(fail_on_first_worker, folder=str(tmp_path)), marks, notes)
    assert not outcome.failed
    assert {attempt for attempt, _ in marks.done.values()} == {2}
    assert len(notes.lines) == 4
    assert all("a disk error" in line and "retrying" in line for line in notes.lines[:3])
    assert notes.lines[3] == "3 more attempts failed like these: 3 read or write failed"


def test_what_no_worker_could_do_is_tried_once_and_the_run_goes_on(any_executor: Executor) -> None:
    marks, notes = MarkRecorder(), NoteRecorder()
    outcome = run_blocks(any_executor, range(6), fail_at_three, marks, notes)
    assert outcome.failed == {3: "block 3: 7 voxels of the source are NaN"}
    assert sorted(marks.done) == [0, 1, 2, 4, 5]
    assert len(notes.lines) == 1
    assert "block 3 failed: block 3: 7 voxels of the source are NaN" in notes.lines[0]


def test_a_bug_is_tried_three_times_and_shows_where_it_is(any_executor: Executor) -> None:
    notes = NoteRecorder()
    outcome = run_blocks(any_executor, range(6), bug_at_three, MarkRecorder(), notes)
    assert outcome.failed == {3: "IndexError: list index out of range"}
    assert sum("retrying" in line for line in notes.lines) == 2
    assert any("bug_at_three" in line for line in notes.lines)


@pytest.mark.timeout(120)
def test_a_block_that_takes_its_workers_down_fails_alone() -> None:
    marks = MarkRecorder()
    with connect("local", 2) as cluster:
        outcome = run_blocks(cluster, range(6), exit_at_three, marks, NullProgress())
    assert list(outcome.failed) == [3]
    assert sorted(marks.done) == [0, 1, 2, 4, 5]


def test_one_task_a_block(two_workers: DaskExecutor) -> None:
    """Law 5: what a peer's overlap makes a hundred tasks of is one here."""
    before = two_workers.client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
    run_blocks(two_workers, range(40), report, MarkRecorder(), NullProgress())
    after = two_workers.client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter)
    # A task passes released, waiting, (no-worker or queued,) processing, memory, released, forgotten.
    assert (after - before) / 40 <= 7


def of_numpy(number: int) -> BlockReport:
    return BlockReport(number, np.int64(7), "", 0.0, 0.0)


def test_a_report_that_no_message_can_carry_is_fetched(any_executor: Executor) -> None:
    marks = MarkRecorder()
    outcome = run_blocks(any_executor, range(10), of_numpy, marks, NullProgress())
    assert sorted(marks.done) == list(range(10))
    assert not outcome.failed


def test_nothing_is_fetched_from_a_worker(two_workers: DaskExecutor) -> None:
    """Bytes of results that left a worker, for another one or for the driver."""
    two_workers.client.submit(bytes, 1000).result()
    before = two_workers.client.run(lambda dask_worker: dask_worker.transfer_outgoing_bytes_total)
    assert sum(before.values()) >= 1000
    run_blocks(two_workers, range(40), sleep_and_report, MarkRecorder(), NullProgress())
    assert before == two_workers.client.run(lambda dask_worker: dask_worker.transfer_outgoing_bytes_total)


@pytest.mark.parametrize("blocks", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_blocks_hold_a_bounded_number_of_futures(
    two_workers: DaskExecutor, tmp_path: Path, blocks: int
) -> None:
    shape, block = (blocks // 100, 160, 160), (1, 16, 16)
    raw = make_volume(tmp_path / "raw.zarr", shape, chunk=(10, 80, 80))
    create_volume(
        tmp_path / "out.zarr", shape=shape, shard=block, chunk=block, dtype="uint8", place=Place.of_nm((30.0, 6.0, 6.0))
    )
    compute = partial(copy_block, source=str(raw), target=str(tmp_path / "out.zarr"), block=block)
    marks, driver = MarkRecorder(), psutil.Process()
    run_blocks(two_workers, range(200), compute, MarkRecorder(), NullProgress())
    before, started, futures = driver.memory_info().rss, time.perf_counter(), [0]

    def on_done(block: BlockReport, attempt: int, worker: str) -> None:
        marks(block, attempt, worker)
        futures.append(len(two_workers.client.futures))

    outcome = run_blocks(two_workers, range(blocks), compute, on_done, NullProgress())
    took, grown = time.perf_counter() - started, driver.memory_info().rss - before
    figures = f"peak futures {max(futures)}, driver +{grown / 2**20:.1f} MiB, {1000 * took / blocks:.2f} ms a block"
    assert outcome.done == blocks, figures
    assert max(futures) <= 2 * 2 * SLOTS, figures
    assert outcome.peak_in_flight <= 2 * 2 * SLOTS * MAX_BATCH, figures
    assert grown < 60 << 20, figures
    np.testing.assert_array_equal(read_volume(tmp_path / "out.zarr"), blobs(shape))


def test_the_numbers_are_consumed_as_the_window_moves(two_workers: DaskExecutor) -> None:
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
        run_blocks(two_workers, numbers(), report, stop_early, NullProgress())
    assert len(taken) < 20 + 4 * 2 * SLOTS * len(two_workers.workers)


def mine(number: int, name: str) -> BlockReport:
    return BlockReport(number, 1, name, 0.0, 0.0)


def test_two_runs_on_one_scheduler_do_not_take_each_others_blocks(two_workers: DaskExecutor) -> None:
    import threading

    from distributed import Client

    digests: dict[str, list[str]] = {"a": [], "b": []}

    def drive(name: str, client: Client) -> None:
        cluster = DaskExecutor(client, "the same cluster")

        def keep(block: BlockReport, attempt: int, worker: str) -> None:
            digests[name].append(block.digest)

        run_blocks(cluster, range(60), partial(mine, name=name), keep, NullProgress())

    with Client(two_workers.client.scheduler_info()["address"]) as other:
        threads = [threading.Thread(target=drive, args=pair) for pair in (("a", two_workers.client), ("b", other))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert digests == {"a": ["a"] * 60, "b": ["b"] * 60}


def test_work_is_shared_out(two_workers: DaskExecutor) -> None:
    marks = MarkRecorder()
    run_blocks(two_workers, range(40), sleep_and_report, marks, NullProgress())
    counts = [sum(worker == name for _, worker in marks.done.values()) for name in two_workers.workers]
    assert min(counts) >= 12


def test_a_scheduler_keeps_nothing_of_what_it_was_sent(
    two_workers: DaskExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kept(dask_scheduler: Any) -> int:
        spans = dask_scheduler.extensions["spans"].spans.values()
        return sum(len((span.metadata or {}).get("collections", [])) for span in spans)

    run_blocks(two_workers, range(100), report, lambda *_: None, NullProgress())
    before = two_workers.client.run_on_scheduler(kept)
    monkeypatch.setattr(submission, "_FORGET_SECONDS", 0.0)
    run_blocks(two_workers, range(100), report, lambda *_: None, NullProgress())
    assert two_workers.client.run_on_scheduler(kept) < min(before, 5)


def test_map_calls_a_function_on_every_item_and_passes_its_error_on(any_executor: Executor) -> None:
    assert sorted(any_executor.map(abs, [-1, 2, -3])) == [1, 2, 3]
    with pytest.raises(TypeError):
        list(any_executor.map(abs, [1, "two"]))


def test_map_takes_no_more_items_than_workers_are_free_for(any_executor: Executor) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(10):
            taken.append(item)
            yield item

    results = any_executor.map(abs, items())
    first = next(results)
    assert len(taken) == len(any_executor.workers)
    back = [first]
    for result in results:
        back.append(result)
        assert len(taken) <= len(any_executor.workers) + len(back) - 1
    assert sorted(back) == list(range(10))


def test_each_says_that_workers_died_at_a_task() -> None:
    with (
        connect("local", 1) as cluster,
        pytest.raises(ClusterError, match="one after the other, died at the same task"),
    ):
        list(cluster.map(exit_process, [1]))
