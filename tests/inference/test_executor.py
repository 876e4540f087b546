"""Forward passes of a process go through one thread, one after another, and each caller is told its own seconds."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from volseg.inference.executor import FORWARD, ForwardExecutor


def test_all_work_is_done_in_one_thread_and_never_two_at_once() -> None:
    lane, inside, most = ForwardExecutor(), 0, 0

    def work() -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        inside -= 1
        return threading.get_ident()

    with ThreadPoolExecutor(4) as pool:
        threads = set(pool.map(lambda _: lane.submit(work).result(), range(40)))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    assert most == 1


def test_seconds_are_counted_for_each_thread_apart() -> None:
    lane = ForwardExecutor()
    lane.count(2)

    def elsewhere() -> float:
        lane.count(5)
        return lane.seconds

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(elsewhere).result() == 5
    assert lane.seconds == 2


def test_what_work_raises_reaches_who_asked_and_the_lane_goes_on() -> None:
    lane = ForwardExecutor()

    def fails() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        lane.submit(fails).result()
    assert lane.submit(lambda: 7).result() == 7


def _in_child(answer: multiprocessing.SimpleQueue[int]) -> None:
    answer.put(FORWARD.submit(lambda: 7).result())


def test_a_forked_process_has_a_lane_of_its_own() -> None:
    FORWARD.submit(lambda: None).result()
    fork = multiprocessing.get_context("fork")
    answer = fork.SimpleQueue()
    child = fork.Process(target=_in_child, args=(answer,))
    child.start()
    child.join(30)
    alive = child.is_alive()
    child.kill()
    assert not alive, "the child waits for a thread that it does not have"
    assert answer.get() == 7
