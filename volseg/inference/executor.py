"""The one thread of a process that makes forward passes, whichever block they are for.

    thread of block 7   read, normalise --> wait ............. --> average, write
                                             \\                /
    the lane                    [ pass of 6 ] [ pass of block 7 ] [ pass of 8 ]

A device does one pass at a time anyhow. In one thread, all maps are made in one heap, where those of the pass before
were; OpenMP has one team of threads; and what torch keeps for each thread, such as how many those are, is set once.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Made = TypeVar("Made")


class _Clock(threading.local):
    seconds = 0.0


class ForwardExecutor:
    """Does one thing after another, in a thread of its own."""

    def __init__(self) -> None:
        self._clock = _Clock()
        self._open()
        os.register_at_fork(after_in_child=self._open)  # a fork's child has the lane, but not its thread

    def _open(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forward")

    def submit(self, work: Callable[[], Made]) -> Future[Made]:
        """Have something done after all that was asked for before."""
        return self._thread.submit(work)

    def count(self, seconds: float) -> None:
        """Add what a device took for the calling thread's work."""
        self._clock.seconds += seconds

    @property
    def seconds(self) -> float:
        """What devices took for the calling thread's work so far, without its waiting for that of others."""
        return self._clock.seconds


FORWARD = ForwardExecutor()
