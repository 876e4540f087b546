"""Blocks that hang and workers that stop: done elsewhere, and the worker replaced."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from volseg.cluster import SerialExecutor, connect, mapping, run_blocks
from volseg.cluster.dask_executor import DaskExecutor
from volseg.cluster.error_classes import LATE
from volseg.cluster.job_queue import BlockTask
from volseg.cluster.lateness import DISPLACED, LateBlocks, Sent
from volseg.cluster.policy import Deadline, FailurePolicy
from volseg.errors import ClusterError
from volseg.testing.doubles import MarkRecorder, NoteRecorder, report

if TYPE_CHECKING:
    from volseg.pipeline import BlockReport


def sent(*times: float) -> dict[str, Any]:
    return {f"k{i}": Sent(SimpleNamespace(), {i: BlockTask(i)}, at) for i, at in enumerate(times)}


def test_only_a_worker_that_holds_a_late_block_gives_its_blocks_back() -> None:
    now, holders = time.monotonic(), {"k0": "a", "k1": "b", "k2": "b", "k3": "a"}
    late = LateBlocks(2, lambda: holders)
    blocks = sent(now - 30, now - 30, now - 1, now)
    late.warm("b")
    deadline = Deadline(least=10, first=100)
    deadline.add(0.1)
    found = late.find(blocks, deadline)
    # "a" has done no block yet, and may still be loading its network.
    assert list(found) == ["b"]
    assert found["b"]["k1"].kind == LATE.name
    assert "10 s" in found["b"]["k1"].message
    assert found["b"]["k2"] is DISPLACED


def test_a_block_that_waits_for_a_worker_is_not_late() -> None:
    blocks = sent(time.monotonic() - 1000)
    assert LateBlocks(2, dict).find(blocks, Deadline(1.0)) == {}
    assert time.monotonic() - blocks["k0"].time < 100


def test_workers_are_asked_for_only_if_a_block_is_old_enough() -> None:
    def ask() -> dict[str, str]:
        raise AssertionError

    late = LateBlocks(2, ask)
    assert late.find(sent(time.monotonic() - 3), Deadline(2.0)) == {}
    assert late.find({}, Deadline(2.0)) == {}


HANGS = 23
"""After each worker has done a block."""


def hang_first(number: int, folder: str, how: str) -> BlockReport:
    """Hang, or stop the process, at the first attempt at a block."""
    if number == HANGS:
        try:
            (Path(folder) / "first").touch(exist_ok=False)
        except FileExistsError:
            return report(number)
        if how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(1000)
    time.sleep(0.02)
    return report(number)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", ["stop", pytest.param("hang", marks=pytest.mark.slow)])
def test_a_block_that_hangs_is_done_elsewhere_and_its_worker_is_replaced(tmp_path: Path, how: str) -> None:
    marks, notes = MarkRecorder(), NoteRecorder()
    compute = partial(hang_first, folder=str(tmp_path), how=how)
    with connect("local", 2) as cluster:
        assert isinstance(cluster, DaskExecutor)
        before = cluster.client.run(os.getpid)
        outcome = run_blocks(
            cluster, range(60), compute, marks, notes, policy=FailurePolicy(0.0), deadline=Deadline(1.0)
        )
        after = cluster.client.run(os.getpid)
    assert not outcome.failed
    assert sorted(marks.done) == list(range(60))
    late = [number for number, (attempt, _) in marks.done.items() if attempt == 2]
    # A process that stops takes the reports of a tenth of a second with it: any block of its tasks may be the cause.
    assert HANGS in late if how == "hang" else late
    assert max(attempt for attempt, _ in marks.done.values()) == 2
    text = "\n".join(notes.lines)
    assert any(f"block {number}: attempt 1 failed on tcp://" in text for number in late)
    assert "did not end within 1 s" in text
    assert len(set(before.values()) & set(after.values())) == 1


def test_a_block_that_hangs_in_this_process_is_interrupted(tmp_path: Path) -> None:
    marks = MarkRecorder()
    compute = partial(hang_first, folder=str(tmp_path), how="hang")
    before = signal.getsignal(signal.SIGALRM)
    outcome = run_blocks(
        SerialExecutor(), range(30), compute, marks, NoteRecorder(), policy=FailurePolicy(0.0), deadline=Deadline(0.3)
    )
    assert not outcome.failed
    assert marks.done[HANGS][0] == 2
    assert signal.getsignal(signal.SIGALRM) == before


def stop_once(item: int, folder: str) -> int:
    if item == 2 and not (Path(folder) / "stopped").exists():
        (Path(folder) / "stopped").touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    return item


def stop_always(item: int) -> int:
    os.kill(os.getpid(), signal.SIGSTOP)
    return item


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_measurements_survive_a_worker_that_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "MIN_SECONDS", 15.0)
    with connect("local", 2) as cluster:
        assert sorted(cluster.map(partial(stop_once, folder=str(tmp_path)), range(6))) == list(range(6))
        assert (tmp_path / "stopped").exists()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_measurement_that_stops_every_worker_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "MIN_SECONDS", 1.0)
    with connect("local", 1) as cluster, pytest.raises(ClusterError, match="did not end it within 1 s at the same"):
        cluster.run_on_one(stop_always, 1)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_stopped_worker_is_replaced_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from volseg.cluster import dask_executor

    monkeypatch.setattr(dask_executor, "_ANSWER_SECONDS", 4.0)
    monkeypatch.setattr(dask_executor, "_HEARTBEAT_SECONDS", 2.0)
    with connect("local", 2) as cluster:
        assert isinstance(cluster, DaskExecutor)
        pids = cluster.run_on_all(os.getpid)
        os.kill(pids[0], signal.SIGSTOP)
        again = cluster.run_on_all(os.getpid)
    assert len(again) == 2
    assert pids[0] not in again
    assert pids[1] in again
