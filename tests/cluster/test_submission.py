"""What a window sends and receives, with a fake scheduler."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from volseg.cluster import Attempt, Failure, SerialExecutor, dask_executor, run_blocks
from volseg.cluster.attempt import pack, unpack
from volseg.cluster.batch_task import forget_messages
from volseg.cluster.dask_executor import DaskExecutor
from volseg.cluster.error_classes import Scope, classify
from volseg.cluster.job_queue import BlockQueue, BlockTask
from volseg.cluster.lateness import DISPLACED
from volseg.cluster.policy import Deadline
from volseg.cluster.submission import TASKS_PER_SLOT, SubmissionWindow
from volseg.errors import ClusterError
from volseg.testing.doubles import MarkRecorder, NoteRecorder, report

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from volseg.cluster import Progress
    from volseg.pipeline import BlockReport

SLOTS = 4
WORKER = "tcp://node:1"


class FakeFuture:
    """A future that ends when a test says so."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers, self.status, self.released, self.fetched = numbers, "pending", False, False

    def release(self) -> None:
        self.released = True

    def cancelled(self) -> bool:
        return self.status == "cancelled"

    def exception(self) -> Exception | None:
        return RuntimeError("the worker died") if self.status == "error" else None

    def result(self) -> list[Attempt]:
        self.fetched = True
        return [done(number) for number in self.numbers]


class FakeClient:
    """Records what a scheduler would receive, and sends the events of workers."""

    def __init__(self) -> None:
        self.groups: list[tuple[list[int], list[str] | None]] = []
        self.batches: list[list[int]] = []
        self.futures: dict[str, FakeFuture] = {}
        self.handlers: dict[str, Callable[[Any], None]] = {}
        self.held: dict[str, list[str]] = {}
        self.restarted: list[str] = []
        self.forgotten = 0

    def processing(self) -> dict[str, list[str]]:
        return self.held

    def restart_workers(self, workers: list[str], **_: Any) -> None:
        self.restarted += workers

    def run_on_scheduler(self, call: Any) -> None:
        self.forgotten += 1
        if self.forgotten > 2:
            raise OSError("the scheduler is gone")

    def map(self, call: Any, batches: list[list[int]], *, key: list[str], workers: Any, **_: Any) -> list[FakeFuture]:
        self.groups.append(([number for batch in batches for number in batch], workers))
        self.batches += batches
        futures = [FakeFuture(batch) for batch in batches]
        self.futures.update(zip(key, futures, strict=True))
        return futures

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        return {"workers": {name: {"resources": {"slot": SLOTS // 2}} for name in (WORKER, "tcp://node:2")}}

    def subscribe_topic(self, topic: str, handler: Callable[[Any], None]) -> None:
        self.handlers[topic] = handler

    def unsubscribe_topic(self, topic: str) -> None:
        del self.handlers[topic]

    def send_event(self, key: str, *attempts: Attempt) -> None:
        for handler in self.handlers.values():
            handler((0.0, (key, [pack(attempt) for attempt in attempts])))

    def key(self, number: int) -> str:
        return next(key for key in reversed(self.futures) if number in self.futures[key].numbers)


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def window(client: FakeClient) -> Iterator[SubmissionWindow]:
    with SubmissionWindow(DaskExecutor(client, "a fake"), client, report) as window:
        yield window


def done(number: int, seconds: float = 0.0) -> Attempt:
    return Attempt(number, WORKER, replace(report(number), seconds=seconds))


def test_new_blocks_go_as_one_message(window: SubmissionWindow, client: FakeClient) -> None:
    queue = BlockQueue(range(100))
    window.fill(queue)
    assert client.groups == [(list(range(TASKS_PER_SLOT * SLOTS)), None)]
    for number in (3, 0, 5):
        client.send_event(client.key(number), done(number))
    assert [task.number for task, _ in window.wait(NoteRecorder(), Deadline())] == [3, 0, 5]
    window.fill(queue)
    assert client.groups[1:] == [([8, 9, 10], None)]
    assert len(window) == TASKS_PER_SLOT * SLOTS


def test_reported_results_are_not_fetched(window: SubmissionWindow, client: FakeClient) -> None:
    window.fill(BlockQueue(range(3)))
    for number in range(3):
        client.futures[client.key(number)].status = "finished"
        client.send_event(client.key(number), done(number))
    assert [attempt for _, attempt in window.wait(NoteRecorder(), Deadline())] == [done(number) for number in range(3)]
    assert not any(future.fetched for future in client.futures.values())
    assert all(future.released for future in client.futures.values())


def test_a_result_without_an_event_is_fetched(window: SubmissionWindow, client: FakeClient) -> None:
    window.fill(BlockQueue(range(3)))
    client.futures[client.key(1)].status = "finished"
    [(task, attempt)] = window.wait(NoteRecorder(), Deadline())
    assert (task.number, attempt) == (1, done(1))
    assert client.futures[client.key(1)].fetched


def test_a_block_reported_twice_counts_once(client: FakeClient) -> None:
    executor = DaskExecutor(client, "a fake")
    with SubmissionWindow(executor, client, report) as window:
        window.fill(BlockQueue(range(2)))
        client.send_event(client.key(0), done(0, 2.0))
        client.send_event(client.key(0), done(0, 3.0))
        assert [task.number for task, _ in window.wait(NoteRecorder(), Deadline())] == [0]
        assert len(window) == 1
    assert executor.wasted == {WORKER: 3.0}


def test_the_scheduler_forgets_messages_every_half_minute_while_it_is_there(
    window: SubmissionWindow, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, seen = time.monotonic(), []
    for seconds in (0, 31, 32, 62, 93):
        monkeypatch.setattr(time, "monotonic", lambda at=now + seconds: at)
        window.fill(BlockQueue(()))
        seen.append(client.forgotten)
    assert seen == [0, 1, 1, 2, 3]


def test_forgetting_messages_leaves_other_metadata() -> None:
    future, array = {"type": "Future"}, {"type": "Array"}
    spans = {
        "a": SimpleNamespace(metadata={"collections": [future, array, future]}),
        "b": SimpleNamespace(metadata=None),
    }
    forget_messages()(SimpleNamespace(extensions={"spans": SimpleNamespace(spans=spans)}))
    assert spans["a"].metadata == {"collections": [array]}
    forget_messages()(SimpleNamespace(extensions={}))


def test_events_of_other_runs_are_ignored(window: SubmissionWindow, client: FakeClient) -> None:
    window.fill(BlockQueue(range(2)))
    client.send_event("volseg-another-run-0-1", done(0))
    client.send_event(client.key(1), done(1))
    assert [task.number for task, _ in window.wait(NoteRecorder(), Deadline())] == [1]


def test_a_dead_worker_is_a_failure_and_a_dead_scheduler_an_error(window: SubmissionWindow, client: FakeClient) -> None:
    window.fill(BlockQueue(range(2)))
    client.futures[client.key(0)].status = "error"
    [(task, attempt)] = window.wait(NoteRecorder(), Deadline())
    assert task.number == 0
    assert attempt.result == Failure.of(classify(RuntimeError()), "RuntimeError: the worker died")
    client.futures[client.key(1)].status = "cancelled"
    with pytest.raises(ClusterError, match="lost; .*--resume"):
        window.wait(NoteRecorder(), Deadline())


def test_a_failed_block_goes_to_a_worker_on_which_it_has_not_failed(
    window: SubmissionWindow, client: FakeClient
) -> None:
    queue = BlockQueue(range(2))
    queue.retry(BlockTask(7), WORKER)
    window.fill(queue)
    assert client.groups == [([7], ["tcp://node:2"]), ([0, 1], None)]


def test_futures_are_released_when_a_run_stops(client: FakeClient) -> None:
    with SubmissionWindow(DaskExecutor(client, "a fake"), client, report) as window:
        window.fill(BlockQueue(range(100)))
    assert all(future.released for future in client.futures.values())
    assert not client.handlers


@pytest.mark.parametrize("result", [report(5), Failure("a disk error", "full", Scope.RUN, 1, "in line 3")])
def test_an_attempt_survives_packing(result: Any) -> None:
    attempt = Attempt(5, WORKER, result)
    assert unpack(tuple(pack(attempt))) == attempt


def test_a_worker_that_is_replaced_gives_its_blocks_back(client: FakeClient) -> None:
    executor = DaskExecutor(client, "a fake")
    with SubmissionWindow(executor, client, report) as window:
        window.fill(BlockQueue(range(4)))
        client.held = {WORKER: [client.key(1), client.key(3)]}
        executor.replace(WORKER)
        completed = window.wait(NoteRecorder(), Deadline())
    assert [(task.number, attempt.result) for task, attempt in completed] == [(1, DISPLACED), (3, DISPLACED)]
    assert client.restarted == [WORKER]


def test_a_block_put_back_is_sent_again_as_the_same_attempt() -> None:
    queue = BlockQueue(range(1))
    task = queue.take()
    assert task is not None
    queue.completed(task)
    queue.put_back(task)
    assert queue.take() == task


def test_a_worker_that_is_left_out_gets_no_new_blocks(client: FakeClient) -> None:
    executor = DaskExecutor(client, "a fake")
    assert executor.leave_out(WORKER)
    assert not executor.leave_out("tcp://node:2")
    with SubmissionWindow(executor, client, report) as window:
        window.fill(BlockQueue(range(100)))
    assert client.groups == [(list(range(TASKS_PER_SLOT * SLOTS // 2)), ["tcp://node:2"])]


def test_a_pause_ends_the_wait(window: SubmissionWindow) -> None:
    """A failed block that has waited is sent, though no other ends."""
    assert window.wait(NoteRecorder(), Deadline(), pause=0.01) == []
    window.fill(BlockQueue(range(2)))
    assert window.wait(NoteRecorder(), Deadline(), pause=0.01) == []


def test_a_worker_that_died_for_its_memory_is_told_apart(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = iter([3, 4, 4])
    monkeypatch.setattr(dask_executor, "out_of_memory_kills", lambda: next(kills))
    executor = DaskExecutor(client, "a fake", is_local=True)
    assert "killed it for its memory; give a smaller --tile" in executor.cause_of_death()
    assert "memory" not in executor.cause_of_death()
    assert "a batch system may have" in DaskExecutor(client, "a fake").cause_of_death()


class DisplacingExecutor(SerialExecutor):
    """Replaces its worker under the first block."""

    def attempts(
        self, queue: BlockQueue, compute: Callable[[int], BlockReport], progress: Progress, deadline: Deadline
    ) -> Generator[tuple[BlockTask, Attempt]]:
        task = queue.take()
        assert task is not None
        queue.completed(task)
        yield task, Attempt(task.number, WORKER, DISPLACED)
        yield from super().attempts(queue, compute, progress, deadline)


def test_a_block_whose_worker_is_replaced_is_done_and_that_was_no_attempt() -> None:
    marks, notes = MarkRecorder(), NoteRecorder()
    outcome = run_blocks(DisplacingExecutor(), range(3), report, marks, notes)
    assert (outcome.done, outcome.failed) == (3, {})
    assert {number: attempt for number, (attempt, _) in marks.done.items()} == {0: 1, 1: 1, 2: 1}
