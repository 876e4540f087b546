"""The end of a worker, by its walltime or a signal: no block begins that cannot end.

Workers and their nannies load this module at their start:

    dask worker ADDRESS .. --preload volseg.cluster.ending --preload-nanny volseg.cluster.ending

The end is the earliest of Dask's --lifetime, VOLSEG_JOB_END or SLURM_JOB_END_TIME (seconds since 1970), and
VOLSEG_NOTICE seconds (30) after a SIGTERM, SIGUSR1 or SIGUSR2.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from volseg.cluster.attempt import Attempt, Failure, attempted

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.pipeline import BlockReport

ENDS = Failure("its worker ends soon", kind="worker ends", counts=False)
"""Result of a block that was not begun."""
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
_FACTOR = 1.5
"""A block may take so many times as long as the slowest of the last ones."""
_BLOCKS = 10
_CLOSING = ("closing", "closing_gracefully", "closed")
"""States of Dask's servers that end."""
_NOTICE_SECONDS = 30.0
_END_SECONDS = 30.0
"""Of a job that Slurm ends, kept for the end of the worker."""
_CLOSE_SECONDS = 1.0
"""Between the end of the last block and that of the worker, for its report to arrive."""


class Ending:
    """Decides whether a block may begin, and closes the worker when no more may.

    Args:
        close: called once, from any thread, when nothing runs and nothing may begin.
        clock: monotonic seconds.
    """

    def __init__(self, close: Callable[[], object] = lambda: None, clock: Callable[[], float] = time.monotonic) -> None:
        self._close, self._clock = close, clock
        self._lock = threading.RLock()
        self._end, self._noticed, self._drains = math.inf, False, False
        self._running = 0
        self._last: deque[float] = deque(maxlen=_BLOCKS)

    def ends_at(self, end: float) -> None:
        """The worker ends at that time at the latest."""
        self._end = min(self._end, end)

    def notice(self, seconds: float) -> None:
        """The worker is asked to end, and is ended after some seconds; closes it if nothing runs and nothing fits."""
        with self._lock:
            self._noticed = True
            self.ends_at(self._clock() + seconds)
            self._close_if_idle()

    def attempt(self, number: int, compute: Callable[[int], BlockReport], worker: str) -> Attempt:
        """Attempt a block, or return at once that its worker ends."""
        with self._lock:
            if not self._may_begin():
                self._close_if_idle()
                return Attempt(number, worker, ENDS)
            self._running += 1
        started = self._clock()
        try:
            return attempted(number, compute, worker)
        finally:
            with self._lock:
                self._running -= 1
                self._last.append(self._clock() - started)
                self._close_if_idle()

    def _may_begin(self) -> bool:
        """Whether a block can end in time; of a worker that knows no block, unless it was asked to end."""
        left = self._end - self._clock()
        needs = _FACTOR * max(self._last) if self._last else (math.inf if self._noticed else 0.0)
        self._drains = self._drains or left <= needs
        return not self._drains

    def _close_if_idle(self) -> None:
        if not self._running and not self._may_begin():
            close, self._close = self._close, lambda: None
            close()


_ending = Ending()


def attempt_before_end(number: int, compute: Callable[[int], BlockReport], worker: str) -> Attempt:
    """Attempt a block on this process's worker, unless that ends before the block would."""
    return _ending.attempt(number, compute, worker)


def dask_setup(server: Any) -> None:
    """Set up a worker, or its nanny; Dask calls it in the main thread at the start."""
    from distributed import Nanny  # noqa: PLC0415 - a serial run needs no Dask

    for handler in logging.getLogger("distributed").handlers:
        handler.addFilter(QuietEnd(server))
    if isinstance(server, Nanny):
        _set_up_nanny(server)
    else:
        _set_up_worker(server)


class QuietEnd(logging.Filter):
    """Leaves tracebacks out of the log once a server closes: they tell of connections that were closed before it.

    Args:
        server: a worker or nanny of Dask.
    """

    def __init__(self, server: Any) -> None:
        super().__init__()
        self._server = server

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged; why the server closes is one without a traceback."""
        return not record.exc_info or self._server.status.name not in _CLOSING


def _set_up_worker(worker: Any) -> None:
    global _ending
    loop = asyncio.get_running_loop()

    def close() -> None:
        def begin() -> None:
            task = asyncio.ensure_future(worker.close_gracefully(reason="volseg-worker-ends"))
            tasks.add(task)

        loop.call_soon_threadsafe(loop.call_later, _CLOSE_SECONDS, begin)

    tasks: set[Any] = set()  # asyncio itself keeps no reference
    _ending = Ending(close)
    now = time.monotonic()
    if worker.lifetime:
        _ending.ends_at(now + worker.lifetime)
    for name, margin in (("VOLSEG_JOB_END", 0.0), ("SLURM_JOB_END_TIME", _END_SECONDS)):
        with contextlib.suppress(KeyError, ValueError):
            _ending.ends_at(now + float(os.environ[name]) - margin - time.time())
    try:
        seconds = float(os.environ["VOLSEG_NOTICE"])
    except (KeyError, ValueError):
        seconds = _NOTICE_SECONDS
    _on_signal(lambda number: _ending.notice(seconds))


def _set_up_nanny(nanny: Any) -> None:
    """Pass signals on to the worker, which ends itself; give each worker of a job with several GPUs its own."""

    def pass_on(number: int) -> None:
        nanny.close_gracefully(reason=f"signal-{number}")  # a worker that ends is not started again
        if nanny.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(nanny.pid, number)

    _on_signal(pass_on)
    count = int(os.environ.get("VOLSEG_WORKERS", "1"))
    if count > 1:
        gpus = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        names = gpus or [str(index) for index in range(count)]
        nanny.env["CUDA_VISIBLE_DEVICES"] = names[int(str(nanny.name).rpartition("-")[2]) % len(names)]


def _on_signal(act: Callable[[int], object]) -> None:
    """Act on a signal in the event loop of this thread, in place of what Dask does; only in the main thread."""
    loop = asyncio.get_running_loop()
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, lambda number, frame: loop.call_soon_threadsafe(act, number))
