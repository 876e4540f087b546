"""No block begins that cannot end before its worker does."""

from __future__ import annotations

import logging
from types import SimpleNamespace

from volseg.cluster.ending import ENDS, Ending, QuietEnd
from volseg.pipeline import BlockReport
from volseg.testing.doubles import report


class Clock:
    """Seconds that pass when a block is computed."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def compute(self, number: int) -> BlockReport:
        self.now += 10.0
        return report(number)


def test_blocks_begin_until_one_would_not_end_in_time_and_then_the_worker_closes() -> None:
    clock, closed = Clock(), list[float]()
    ending = Ending(lambda: closed.append(clock.now), clock)
    ending.ends_at(160.0)
    results = [ending.attempt(number, clock.compute, "w").result for number in range(6)]
    # Blocks of 10 s, allowed half as much again: the last one begins at 140, with 20 s left.
    assert [isinstance(result, BlockReport) for result in results] == [True] * 5 + [False]
    assert results[-1] == ENDS
    assert closed == [150.0]


def test_a_notice_lets_known_blocks_begin_as_long_as_they_fit() -> None:
    clock, closed = Clock(), list[float]()
    ending = Ending(lambda: closed.append(clock.now), clock)
    ending.attempt(0, clock.compute, "w")
    ending.notice(30.0)
    assert [ending.attempt(n, clock.compute, "w").result == ENDS for n in range(1, 5)] == [False, False, True, True]
    assert closed == [130.0]


def test_a_worker_that_knows_no_block_begins_none_after_a_notice() -> None:
    clock, closed = Clock(), list[float]()
    ending = Ending(lambda: closed.append(clock.now), clock)
    ending.notice(3600.0)
    assert closed == [100.0]
    assert ending.attempt(0, clock.compute, "w").result == ENDS
    assert closed == [100.0]


def test_a_block_that_runs_is_waited_for() -> None:
    clock, closed = Clock(), list[float]()
    ending = Ending(lambda: closed.append(clock.now), clock)

    def noticed(number: int) -> BlockReport:
        ending.notice(1.0)
        assert not closed
        return clock.compute(number)

    assert isinstance(ending.attempt(0, noticed, "w").result, BlockReport)
    assert closed == [110.0]


def test_a_server_that_closes_logs_no_tracebacks_and_one_that_works_does() -> None:
    server = SimpleNamespace(status=SimpleNamespace(name="running"))
    ending, lost = QuietEnd(server), (OSError, OSError("stream is closed"), None)
    plain, traceback = (logging.LogRecord("distributed", 40, "", 1, "lost", (), info) for info in (None, lost))
    assert (ending.filter(plain), ending.filter(traceback)) == (True, True)
    server.status.name = "closing"
    assert (ending.filter(plain), ending.filter(traceback)) == (True, False)
