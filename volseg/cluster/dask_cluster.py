"""Dask clusters of this process: worker processes of this machine, and what all clusters are opened and closed with."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from volseg.cluster.dask_executor import DaskExecutor
from volseg.cluster.executor import SLOTS
from volseg.cluster.submission import SLOT
from volseg.errors import ClusterError
from volseg.system import STOP_SIGNALS, available_cpus, held_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client, SpecCluster

_START_SECONDS = 120
_RESTART_LOST_SECONDS = 15.0
_LOGGERS = ("distributed", "tornado", "asyncio")
"""Of Dask: what a run has to say of lost workers and schedulers, it says itself, in one line."""
_SILENT = logging.CRITICAL + 1
_LOCAL_CONFIG = {
    # The driver retries the blocks of a dead worker one by one; Dask would blame all that ran beside the culprit.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    # Deadlines of blocks find workers that are stuck; a busy one may miss heartbeats for minutes.
    "distributed.scheduler.worker-ttl": None,
    # A nanny on a busy machine takes longer than Dask's 15 s to start a worker again.
    "distributed.deploy.lost-worker-timeout": "120s",
    # Messages and stack samples for Dask's developers: memory that grows for an hour, and time per block.
    "distributed.admin.low-level-log-length": 100,
    "distributed.worker.profile.enabled": False,
    # Fifty checks a second whether each process still answers, and two of its load: 4 % of two cores.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    # One heap for all threads of a worker: see volseg.malloc.
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": "1",
}
BATCH_CONFIG = {
    **{key: value for key, value in _LOCAL_CONFIG.items() if "nanny" not in key},
    # A worker that its nanny starts again, from a slow file system, keeps its job.
    "distributed.deploy.lost-worker-timeout": "60s",
}
"""Of Dask, for a scheduler of this process whose workers are jobs."""


def default_workers(gpus: tuple[str, ...]) -> int:
    """Number of processes of a local cluster: one per GPU, else two (one on a single core)."""
    return len(gpus) or min(2, len(available_cpus()))


@contextlib.contextmanager
def local_cluster(workers: int | None, gpus: tuple[str, ...]) -> Iterator[DaskExecutor]:
    """Start worker processes on this machine; they end with the context.

    Args:
        workers: number of processes; `default_workers` by default.
        gpus: CUDA_VISIBLE_DEVICES of each GPU, dealt to the workers in turn.

    Raises:
        ClusterError: the processes did not start.
    """
    import dask  # noqa: PLC0415 - a serial run needs no Dask
    from distributed import Client, Nanny, Scheduler, SpecCluster  # noqa: PLC0415 - likewise

    count = workers or default_workers(gpus)
    spec = {
        number: {
            "cls": Nanny,
            "options": {
                "nthreads": SLOTS,
                "resources": {SLOT: SLOTS},
                "memory_limit": 0,  # memory is planned before the run; pausing workers would only stall it
                "host": "127.0.0.1",
                "dashboard": False,
                # A worker that the run's end meets amid a heartbeat would log a traceback; lost ones are reported.
                "silence_logs": logging.CRITICAL,
                "env": _worker_environment(number, gpus),
            },
        }
        for number in range(count)
    }
    # Port 0 for the dashboard too: several runs may share a machine.
    address = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": address}
    with dask.config.set(_LOCAL_CONFIG), closed_in_order() as stack:
        with held_signals():
            started = _start_processes(
                SpecCluster, workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL, name="volseg"
            )
            cluster = stack.enter_context(started)
            client = stack.enter_context(Client(cluster, timeout=60))
        restart_lost = _LostWorkers(cluster, count)
        _wait_for_workers(client, count, restart_lost)
        yield DaskExecutor(client, "the local cluster", is_local=True, restart_lost=restart_lost)


class _LostWorkers:
    """Starts the workers of a local cluster anew whose nannies have given up.

    A nanny does if its worker dies while it starts; Dask then holds the place for a worker that never comes.
    """

    def __init__(self, cluster: SpecCluster, count: int) -> None:
        self._cluster, self._count, self._last = cluster, count, time.monotonic()

    def __call__(self, present: int) -> None:
        """Look for such nannies if workers are missing, at most every few seconds."""
        if present >= self._count:
            self._last = time.monotonic()
        elif time.monotonic() - self._last > _RESTART_LOST_SECONDS:
            self._last = time.monotonic()
            self._cluster.sync(self._renew)

    async def _renew(self) -> None:
        for name, nanny in list(self._cluster.workers.items()):
            if nanny.status.name in ("closed", "closing", "failed"):
                del self._cluster.workers[name]
        self._cluster.scale(self._count)


def _wait_for_workers(client: Client, count: int, restart_lost: _LostWorkers) -> None:
    """Wait until the workers of a local cluster have started.

    Raises:
        ClusterError: they have not within minutes.
    """
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(TimeoutError):
            client.wait_for_workers(count, timeout=_RESTART_LOST_SECONDS)
            return
        restart_lost(len(client.scheduler_info(n_workers=-1)["workers"]))
    raise ClusterError(
        f"{count} local worker processes did not start within {_START_SECONDS} s; give fewer --workers, or "
        "--cluster serial"
    )


@contextlib.contextmanager
def closed_in_order() -> Iterator[contextlib.ExitStack]:
    """A stack that is closed whatever signals come meanwhile, and without what Dask logs of lost connections.

    Raises:
        ClusterError: the scheduler was lost.
    """
    from distributed import CancelledError  # noqa: PLC0415 - a serial run needs no Dask
    from distributed.client import ClosedClientError  # noqa: PLC0415 - likewise
    from distributed.comm.core import CommClosedError  # noqa: PLC0415 - likewise

    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _LOGGERS]
    levels = {logger: logger.level for logger in map(logging.getLogger, (*_LOGGERS, *names))}
    stack = contextlib.ExitStack()
    try:
        for logger in levels:
            logger.setLevel(_SILENT)
        yield stack
    except (CommClosedError, ClosedClientError, CancelledError) as error:
        raise ClusterError(
            "the scheduler was lost; start it again, then rerun with --resume instead of --overwrite"
        ) from error
    finally:
        with held_signals():
            stack.close()
            for logger, level in levels.items():
                logger.setLevel(level)


@contextlib.contextmanager
def signals_blocked() -> Iterator[None]:
    """Let threads and processes that start meanwhile never receive Ctrl-C and the like.

    A terminal or a batch system sends them to all: the driver stops the others in order.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        resource_tracker.ensure_running()  # its start unblocks some again
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _start_processes(kind: Callable[..., Any], **options: Any) -> Iterator[Any]:
    """Start worker processes.

    Raises:
        ClusterError: they did not start.
    """
    try:
        with signals_blocked():
            cluster = kind(**options)
    except RuntimeError as error:
        raise ClusterError(
            f"the local worker processes did not start ({error}); in a script, call volseg under "
            'if __name__ == "__main__":, for workers read the script too; or use cluster="serial"'
        ) from None
    with cluster:
        yield cluster


def _worker_environment(number: int, gpus: tuple[str, ...]) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
