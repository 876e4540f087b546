"""The thread that runs all forward passes of a process.

    thread of block 7   read, normalise --> wait ............. --> average, write
                                             \\                /
    forward thread              [ pass of 6 ] [ pass of block 7 ] [ pass of 8 ]

A device runs one pass at a time in any case. With one thread, all passes allocate from one heap and reuse each other's
memory, OpenMP starts one team of threads, and torch's settings per thread, such as its thread count, are set once.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


class ForwardExecutor:
    """Runs functions one after another in a single thread."""

    def __init__(self) -> None:
        self._start()
        os.register_at_fork(after_in_child=self._start)  # a forked child inherits this object, but not its thread

    def _start(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="forward")

    def submit(self, function: Callable[[], Result]) -> Future[Result]:
        """Schedule a function after all that were submitted before."""
        return self._pool.submit(function)


forward_executor = ForwardExecutor()
