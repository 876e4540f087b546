"""Blocks of one task are reported, given back and repeated each on its own."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from volseg.cluster import Failure
from volseg.cluster.attempt import unpack
from volseg.cluster.batch_task import GIVEN_BACK, attempt_on_worker
from volseg.cluster.batching import BatchSize, take_batch
from volseg.cluster.driver_load import DriverLoad
from volseg.cluster.job_queue import BlockQueue
from volseg.errors import BlockError
from volseg.pipeline import BlockReport
from volseg.testing.doubles import NoteRecorder, report

if TYPE_CHECKING:
    from collections.abc import Callable


class FakeWorker:
    """Records events; its event loop acts when a test says so."""

    address = "tcp://node:1"

    def __init__(self) -> None:
        self.events: list[list[int]] = []
        self.timers: list[Callable[[], None]] = []
        self.loop = SimpleNamespace(
            add_callback=lambda call, *arguments: call(*arguments),
            call_later=lambda seconds, call: self.timers.append(call),
        )

    def get_current_task(self) -> str:
        return "key"

    def log_event(self, topic: str, message: list[Any]) -> None:
        self.events.append([unpack(values).number for values in message[1]])


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> FakeWorker:
    fake = FakeWorker()
    monkeypatch.setattr("distributed.get_worker", lambda: fake)
    return fake


def fails_at(*bad: int) -> Callable[[int], BlockReport]:
    def compute(number: int) -> BlockReport:
        if number in bad:
            raise BlockError(f"block {number} fails")
        return report(number)

    return compute


def test_a_block_that_fails_leaves_the_others_of_its_task_done(worker: FakeWorker) -> None:
    attempts = attempt_on_worker([4, 5, 6, 7], fails_at(5), limit=10.0, gather=0.1)
    assert [isinstance(attempt.result, BlockReport) for attempt in attempts] == [True, False, True, True]
    assert [number for event in worker.events for number in event] == [4, 5, 6, 7]


def test_blocks_are_given_back_after_failures_in_succession_and_after_the_limit(
    worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = attempt_on_worker([4, 5, 6, 7], fails_at(4, 5), limit=10.0, gather=0.1)
    assert [attempt.result == GIVEN_BACK for attempt in attempts] == [False, False, True, True]
    assert isinstance(attempts[1].result, Failure)
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    attempts = attempt_on_worker([1, 2, 3, 4], report, limit=1.5, gather=0.1)
    assert [attempt.result == GIVEN_BACK for attempt in attempts] == [False, False, True, True]
    assert [number for event in worker.events for number in event] == [4, 5, 6, 7, 1, 2, 3, 4]


def test_what_is_done_is_reported_while_the_next_block_hangs(worker: FakeWorker) -> None:
    seen: list[list[int]] = []

    def compute(number: int) -> BlockReport:
        if number == 3:  # the event loop goes on meanwhile
            worker.timers.pop()()
            seen.extend(worker.events)
        return report(number)

    attempt_on_worker([1, 2, 3], compute, limit=10.0, gather=0.1)
    assert seen == [[1, 2]]
    assert worker.events == [[1, 2], [3]]


@pytest.mark.parametrize(("seconds", "blocks"), [(5.0, 1), (0.5, 1), (0.3, 2), (0.05, 10), (0.001, 256)])
def test_a_task_takes_half_a_second_unless_a_block_takes_longer(seconds: float, blocks: int) -> None:
    size = BatchSize()
    for _ in range(10_000):
        size.add(seconds)
    assert size.blocks(slots=8) == blocks
    assert size.blocks(slots=8, remaining=64) == min(blocks, 2)


def test_only_first_attempts_share_a_task() -> None:
    queue = BlockQueue(range(100))
    tasks = take_batch(queue, 10)
    assert [task.number for task in tasks] == list(range(10))
    queue.retry(tasks[0], "a worker")
    for task in tasks[1:5]:
        queue.put_back(replace(task, most=2))
    queue.put_back(tasks[5])
    batches = [[task.number for task in take_batch(queue, 10)] for _ in range(5)]
    assert batches == [[0], [1, 2], [3, 4], [5, *range(10, 19)], list(range(19, 29))]


def test_a_driver_that_workers_wait_for_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, used = [0.0], [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: used[0])
    notes = NoteRecorder()
    load = DriverLoad(notes)
    for cpu, said in ((0.0001, 0), (0.0009, 1), (0.0009, 1)):
        for _ in range(70_000):
            now[0], used[0] = now[0] + 0.001, used[0] + cpu
            load.add()
        assert len(notes.lines) == said
    assert "1000 blocks a second end, at 0.9 ms of the driver each; a --block twice as long" in notes.lines[0]
