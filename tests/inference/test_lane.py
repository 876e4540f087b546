"""Forward passes of a process go through one thread, one after another, and each caller is told its own seconds."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from volseg.inference.lane import FORWARD, Lane


def test_all_work_is_done_in_one_thread_and_never_two_at_once() -> None:
    lane, inside, most = Lane(), 0, 0

    def work() -> int:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.002)
        inside -= 1
        return threading.get_ident()

    with ThreadPoolExecutor(4) as pool:
        threads = set(pool.map(lambda _: lane.run(work), range(40)))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    assert most == 1


def test_a_thread_counts_its_own_seconds_without_waiting() -> None:
    lane, begun = Lane(), threading.Event()

    def long() -> None:
        begun.set()
        time.sleep(0.5)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lane.run, long)
        begun.wait()
        lane.run(lambda: time.sleep(0.01))
        other.result()
    assert 0.01 <= lane.seconds < 0.4


def test_what_work_raises_reaches_who_asked_and_the_lane_goes_on() -> None:
    lane = Lane()

    def fails() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        lane.run(fails)
    assert lane.run(lambda: 7) == 7


def _in_child(answer: multiprocessing.SimpleQueue[int]) -> None:
    answer.put(FORWARD.run(lambda: 7))


def test_a_forked_process_has_a_lane_of_its_own() -> None:
    FORWARD.run(lambda: None)
    fork = multiprocessing.get_context("fork")
    answer = fork.SimpleQueue()
    child = fork.Process(target=_in_child, args=(answer,))
    child.start()
    child.join(30)
    alive = child.is_alive()
    child.kill()
    assert not alive, "the child waits for a thread that it does not have"
    assert answer.get() == 7
