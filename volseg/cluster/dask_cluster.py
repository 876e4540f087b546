"""Dask clusters: worker processes of this machine, or a scheduler's address."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from volseg.cluster.executor import SLOT, SLOTS, Cluster
from volseg.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client


def default_workers(gpus: tuple[str, ...]) -> int:
    """Worker processes of a local cluster: one a GPU, else two."""
    return len(gpus) or min(2, len(os.sched_getaffinity(0)))


@contextlib.contextmanager
def _local(workers: int | None, gpus: tuple[str, ...]) -> Iterator[Cluster]:
    import dask  # noqa: PLC0415 - half a second that `serial` need not pay
    from distributed import Client, Nanny, Scheduler, SpecCluster  # noqa: PLC0415 - likewise

    count = workers or default_workers(gpus)
    spec = {
        number: {
            "cls": Nanny,
            "options": {
                "nthreads": SLOTS,
                "resources": {SLOT: SLOTS},
                "memory_limit": 0,  # memory is planned before the run; pausing workers by share would only stall it
                "host": "127.0.0.1",
                "dashboard": False,
                "silence_logs": logging.ERROR,
                "env": _worker_environment(number, gpus),
            },
        }
        for number in range(count)
    }
    # Port 0 for the status pages too: several runs may share a machine.
    address = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": address}
    with (
        dask.config.set(_LOCAL_CONFIG),
        _started(
            SpecCluster, workers=spec, scheduler=scheduler, silence_logs=logging.CRITICAL, name="volseg"
        ) as started,
        Client(started, timeout=60) as client,
    ):
        try:
            client.wait_for_workers(count, timeout=_START_SECONDS)
        except TimeoutError:
            raise ClusterError(
                f"{count} local worker processes did not start within {_START_SECONDS} s; give fewer --workers, or "
                "--cluster serial"
            ) from None
        yield _described(client, "the local cluster")


_LOCAL_CONFIG = {
    # The driver sends the blocks of a lost worker again, one by one; Dask would blame whatever ran beside the culprit.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    # Messages and stack samples kept for Dask's developers: memory that grows for an hour, and time a block.
    "distributed.admin.low-level-log-length": 100,
    "distributed.worker.profile.enabled": False,
    # Fifty looks a second at whether each process still answers, and two at its load: 4 % of two cores, for nobody.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    # One heap for all threads of a worker: see volseg.inference.memory.malloc.
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": "1",
}


@contextlib.contextmanager
def _started(kind: Callable[..., Any], **options: Any) -> Iterator[Any]:
    """Start worker processes.

    Raises:
        ClusterError: they did not come up.
    """
    try:
        # Threads and processes that are started now never see Ctrl-C: it is the driver's to stop them in order. The
        # tracker goes first, for its start would unblock the signal again.
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            cluster = kind(**options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    except RuntimeError as error:
        raise ClusterError(
            f"the local worker processes did not start ({error}); in a script, call volseg under "
            'if __name__ == "__main__":, for workers read the script too; or use cluster="serial"'
        ) from None
    with cluster:
        yield cluster


def _worker_environment(number: int, gpus: tuple[str, ...]) -> dict[str, str]:
    # Threads of a forward pass are set by the run's record; a pool made larger by default would fight over cores.
    return {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}


@contextlib.contextmanager
def _joined(address: str) -> Iterator[Cluster]:
    import dask  # noqa: PLC0415 - half a second that `serial` need not pay
    from distributed import Client  # noqa: PLC0415 - likewise

    with dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s"}):
        try:
            client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ClusterError(
                f"no scheduler answers at {address} within {CONNECT_SECONDS} s ({reason}); "
                "check the address, or start one with: dask scheduler"
            ) from None
        with client:
            yield _described(client, address)


def _described(client: Client, where: str) -> Cluster:
    cluster = Cluster(client, where, names=(), slots=0)
    waited = time.monotonic() + GRACE_SECONDS
    while not (count := len(client.scheduler_info(n_workers=-1)["workers"])) and time.monotonic() < waited:
        time.sleep(0.2)
    cluster.refresh()
    if not cluster.slots:
        raise ClusterError(
            f"{where} has {count} workers, none with the resource {SLOT!r}, so that tasks would wait for ever; "
            f"start workers with: dask worker ADDRESS --nthreads {SLOTS} --resources {SLOT}={SLOTS} --memory-limit 0"
        )
    return cluster


CONNECT_SECONDS = 5


GRACE_SECONDS = 10
"""How long a joined scheduler may be without workers: in a batch job they start beside the driver."""


_START_SECONDS = 120
