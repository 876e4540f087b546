"""Forward passes of a process run in one thread, one after another."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from volseg.inference.executor import ForwardExecutor, forward_executor


def test_all_functions_run_in_one_thread_and_never_two_at_once() -> None:
    executor, running, max_running = ForwardExecutor(), 0, 0

    def function() -> int:
        nonlocal running, max_running
        running += 1
        max_running = max(max_running, running)
        time.sleep(0.002)
        running -= 1
        return threading.get_ident()

    with ThreadPoolExecutor(4) as pool:
        threads = set(pool.map(lambda _: executor.submit(function).result(), range(40)))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}
    assert max_running == 1


def test_an_exception_reaches_the_caller_and_the_executor_continues() -> None:
    executor = ForwardExecutor()

    def fails() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        executor.submit(fails).result()
    assert executor.submit(lambda: 7).result() == 7


def _in_child(results: multiprocessing.SimpleQueue[int]) -> None:
    results.put(forward_executor.submit(lambda: 7).result())


def test_a_forked_process_starts_a_forward_thread_of_its_own() -> None:
    forward_executor.submit(lambda: None).result()
    fork = multiprocessing.get_context("fork")
    results = fork.SimpleQueue()
    child = fork.Process(target=_in_child, args=(results,))
    child.start()
    child.join(30)
    alive = child.is_alive()
    child.kill()
    assert not alive, "the child waits for a thread that it does not have"
    assert results.get() == 7
