"""Tasks that end without reports, with the fake scheduler of `test_submission`."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from distributed import KilledWorker

from tests.cluster.test_submission import WORKER, FakeClient, FakeFuture, done
from volseg.cluster import Attempt, Failure
from volseg.cluster.batching import BatchSize
from volseg.cluster.dask_executor import DaskExecutor
from volseg.cluster.job_queue import BlockQueue, BlockTask
from volseg.cluster.lateness import DISPLACED
from volseg.cluster.policy import Deadline
from volseg.cluster.submission import SubmissionWindow
from volseg.testing.doubles import NoteRecorder, report


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


def test_of_a_task_whose_worker_died_only_unreported_blocks_are_sent_again(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BatchSize, "blocks", lambda self, slots, remaining=0: 20)
    with SubmissionWindow(DaskExecutor(client, "a fake"), client, report) as window:
        queue = BlockQueue(range(20))
        window.fill(queue)
        assert client.batches == [list(range(20))]
        key = client.key(0)
        client.send_event(key, done(0), done(1))
        client.send_event(key, Attempt(2, WORKER, Failure("a disk error")))
        completed = window.wait(NoteRecorder(), Deadline())
        assert [task.number for task, _ in completed] == [0, 1, 2]
        killed = KilledWorker(key, SimpleNamespace(address=WORKER), 0)
        monkeypatch.setattr(FakeFuture, "exception", lambda self: killed)
        client.futures[key].status = "error"
        lost = window.wait(NoteRecorder(), Deadline())
        assert [task.number for task, _ in lost] == list(range(3, 20))
        assert {attempt.result.counts for _, attempt in lost if isinstance(attempt.result, Failure)} == {False}
        for task, _ in lost:
            queue.put_back(task)
        window.fill(queue)
    assert client.batches[1:] == [[at, at + 1] for at in range(3, 17, 2)] + [[17, 18]]


def test_a_preferred_worker_that_is_gone_gives_its_block_to_others(
    client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    with SubmissionWindow(DaskExecutor(client, "a fake"), client, report) as window:
        queue = BlockQueue(())
        queue.retry(BlockTask(7), WORKER)
        window.fill(queue)
        monkeypatch.setattr(time, "monotonic", lambda: now + 11)
        assert [(task.number, a.result) for task, a in window.wait(NoteRecorder(), Deadline())] == [(7, DISPLACED)]
