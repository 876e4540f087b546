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
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Made = TypeVar("Made")


class _Clock(threading.local):
    seconds = 0.0


class Lane:
    """Does one thing after another, in a thread of its own."""

    def __init__(self) -> None:
        self._clock = _Clock()
        self._open()
        os.register_at_fork(after_in_child=self._open)  # a fork's child has the lane, but not its thread

    def _open(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forward")

    def run(self, work: Callable[[], Made]) -> Made:
        """Have something done, and wait for it.

        Raises:
            Exception: whatever the work raises.
        """
        made, seconds = self._thread.submit(_timed, work).result()
        self._clock.seconds += seconds
        return made

    @property
    def seconds(self) -> float:
        """How long the calling thread's work took so far, without waiting for that of others."""
        return self._clock.seconds


def _timed(work: Callable[[], Made]) -> tuple[Made, float]:
    started = time.perf_counter()
    return work(), time.perf_counter() - started


FORWARD = Lane()
