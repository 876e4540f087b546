"""When a run ends because of its failures, and what is shown of them."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from volseg.cluster import NullProgress, SerialExecutor, run_blocks
from volseg.cluster.policy import Deadline, FailurePolicy
from volseg.errors import BlockError, RunAbortedError, SourceError, TargetError
from volseg.testing.doubles import MarkRecorder, NoteRecorder, report

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.pipeline import BlockReport

POLICY = FailurePolicy(first_backoff=0.0)


@dataclass
class Failing:
    """Fails for some blocks, and counts the attempts."""

    fails: Callable[[int, int], bool]
    error: Exception = field(default_factory=lambda: SourceError("cannot read chunk 7 of raw.zarr"))
    attempts: Counter[int] = field(default_factory=Counter)

    def __call__(self, number: int) -> BlockReport:
        self.attempts[number] += 1
        if self.fails(number, self.attempts[number]):
            raise self.error
        return report(number)


@dataclass
class Clock:
    """Time that passes only while a run sleeps."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    monkeypatch.setattr("time.sleep", clock.sleep)
    return clock


def run(
    compute: Failing, blocks: int, policy: FailurePolicy = POLICY
) -> tuple[MarkRecorder, NoteRecorder, dict[int, str]]:
    marks, notes = MarkRecorder(), NoteRecorder()
    outcome = run_blocks(SerialExecutor(), range(blocks), compute, marks, notes, policy=policy)
    return marks, notes, outcome.failed


def test_a_run_of_which_the_first_blocks_all_fail_ends_at_once() -> None:
    compute, notes = Failing(lambda *_: True), NoteRecorder()
    with pytest.raises(RunAbortedError, match="each of the first 8 blocks failed.*cannot read.*--resume"):
        run_blocks(SerialExecutor(), range(300), compute, MarkRecorder(), notes, policy=POLICY)
    assert compute.attempts.total() <= 8 * 4
    assert len(notes.lines) <= 4


def test_an_error_of_the_run_ends_it_after_one_attempt() -> None:
    error = TargetError("cannot write")
    error.__cause__ = OSError(28, "No space left on device")
    compute = Failing(lambda number, _: number >= 5, error)
    with pytest.raises(RunAbortedError, match=r"write \(disk full\): the run ends with 5 blocks done; .*--resume"):
        run(compute, 300)
    assert compute.attempts == Counter(range(6))


def test_while_all_fail_blocks_begin_one_at_a_time() -> None:
    compute = Failing(lambda number, _: number >= 20)
    with pytest.raises(RunAbortedError, match="17 blocks failed, more than the 16 of .*-failed.* 20 blocks done"):
        run(compute, 300)
    assert len(compute.attempts) == 20 + 17
    assert sorted(compute.attempts.values())[-17:] == [4] * 17


def test_more_failures_than_the_budget_end_a_run() -> None:
    compute = Failing(lambda number, _: number % 3 == 0)
    with pytest.raises(RunAbortedError, match="5 blocks failed, more than the 4 of --max-failed"):
        run(compute, 300, FailurePolicy(first_backoff=0.0, max_failed=4))
    marks, notes, failed = run(Failing(lambda number, _: number % 30 == 7), 300)
    assert sorted(failed) == list(range(7, 300, 30))
    assert len(marks.done) == 290
    assert len(notes.lines) <= 4


def test_a_store_that_is_down_for_minutes_costs_no_block(clock: Clock) -> None:
    """Failures in succession hold new blocks, and those in flight wait longer from attempt to attempt."""
    compute = Failing(lambda number, _: number >= 10 and clock.now < 150)
    marks, _, failed = run(compute, 60, FailurePolicy(first_backoff=1.0))
    assert not failed
    assert sorted(marks.done) == list(range(60))
    assert max(compute.attempts.values()) <= 4
    assert sum(attempts > 1 for attempts in compute.attempts.values()) <= 9


def test_what_no_attempt_can_do_is_attempted_once() -> None:
    compute = Failing(lambda number, _: number == 3, BlockError("block 3 is not finite"))
    _, _, failed = run(compute, 20)
    assert compute.attempts[3] == 1
    assert list(failed) == [3]


def test_the_caller_learns_of_each_failed_attempt_and_may_end_the_run() -> None:
    seen: list[tuple[int, int, bool]] = []
    compute = Failing(lambda number, _: number == 3)
    run_blocks(
        SerialExecutor(), range(6), compute, MarkRecorder(), NullProgress(), policy=POLICY,
        on_failed=lambda task, attempt, given_up: seen.append((task.number, task.attempt, given_up)),
    )  # fmt: skip
    assert seen == [(3, 1, False), (3, 2, False), (3, 3, False), (3, 4, True)]

    def stop(*_: object) -> None:
        raise TargetError("the target is gone")

    with pytest.raises(TargetError, match="is gone"):
        run_blocks(SerialExecutor(), range(6), compute, MarkRecorder(), NullProgress(), on_failed=stop)


def test_pauses_grow_from_attempt_to_attempt(clock: Clock) -> None:
    run(Failing(lambda number, _: number == 3), 6, FailurePolicy(first_backoff=1.0))
    assert clock.slept == [1.0, 5.0, 25.0]


def die(number: int) -> BlockReport:
    os._exit(11)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_run_whose_every_block_ends_its_worker_ends() -> None:
    from volseg.cluster import connect

    with connect("local", 2) as cluster, pytest.raises(RunAbortedError, match="the worker died.*--resume"):
        run_blocks(cluster, range(300), die, MarkRecorder(), NullProgress(), policy=FailurePolicy(0.0, early=3))


def fail_on(number: int, worker: str) -> BlockReport:
    """Fail as a worker that has lost its source."""
    from distributed import get_worker

    from volseg.errors import SourceLostError

    if str(get_worker().name) == worker:
        raise SourceLostError("source raw.zarr is gone")
    return report(number)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_worker_on_which_block_after_block_fails_is_replaced_then_left_out(tmp_path: object) -> None:
    from functools import partial

    from volseg.cluster import connect

    marks, notes = MarkRecorder(), NoteRecorder()
    with connect("local", 2) as cluster:
        outcome = run_blocks(cluster, range(300), partial(fail_on, worker="0"), marks, notes, policy=POLICY)
    assert not outcome.failed
    assert sorted(marks.done) == list(range(300))
    text = "\n".join(notes.lines)
    assert "3 blocks in succession failed on" in text
    assert "gets no more blocks" in text


def test_the_deadline_follows_the_blocks() -> None:
    deadline = Deadline()
    assert deadline.seconds(warm=True) == deadline.seconds(warm=False) == 600
    for seconds in [1.0] * 50:
        deadline.add(seconds)
    assert deadline.seconds(warm=True) == 120
    for seconds in [60.0] * 1000:
        deadline.add(seconds)
    assert 590 < deadline.seconds(warm=True) <= 600
    assert Deadline(3.0).seconds(warm=True) == 3
