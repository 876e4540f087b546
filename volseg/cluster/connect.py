"""The cluster that a run uses: this process, worker processes of this machine, or a scheduler's address."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from volseg.errors import ClusterError, ConfigError
from volseg.inference.heap import give_pages_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distributed import Client

SLOT = "slot"
"""The Dask resource: how many blocks a worker holds at once, so that reading, predicting and writing overlap."""
SLOTS = 2
CONNECT_SECONDS = 5
GRACE_SECONDS = 10
"""How long a joined scheduler may be without workers: in a batch job they start beside the driver."""
_REFRESH_SECONDS = 5.0
_START_SECONDS = 120


@dataclass
class Cluster:
    """Something that computes blocks.

    Attributes:
        client: the connection to a scheduler; None where this process does the work itself.
        where: what to call it in messages.
        names: of the workers.
        slots: blocks that may be in flight on all of them.
        slots_each: blocks that may be in flight on one of them, at the most.
    """

    client: Client | None
    where: str = "this process"
    names: tuple[str, ...] = ("this process",)
    slots: int = 1
    slots_each: int = 1
    _looked: float = 0.0

    def others(self, tried: tuple[str, ...]) -> list[str]:
        """Workers that are there now and have not tried a block yet; none for a block that nobody tried."""
        if not tried:
            return []
        self.refresh(now=True)
        return [name for name in self.names if name not in tried]

    def refresh(self, *, now: bool = False) -> None:
        """See which workers have come or gone, at most every few seconds unless it must be `now`."""
        if self.client is None or (not now and time.monotonic() - self._looked < _REFRESH_SECONDS):
            return
        self._looked = time.monotonic()
        if able := self._able():
            self.names, self.slots, self.slots_each = tuple(able), sum(able.values()), max(able.values())

    def alive(self) -> bool:
        """Whether there is any worker to do a block, asked now."""
        return self.client is None or bool(self._able())

    def _able(self) -> dict[str, int]:
        """Slots of each worker that has some."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"] if self.client else {}
        return {name: int(w["resources"][SLOT]) for name, w in workers.items() if w["resources"].get(SLOT)}

    def on_each(self, call: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Call a function once on every worker; a quick one, for Dask counts a worker as dead meanwhile."""
        if self.client is None:
            return [call(*arguments)]
        self.refresh(now=True)
        results: dict[str, Any] = self.client.run(call, *arguments, workers=list(self.names))
        return list(results.values())

    def on_one(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function on a worker that is free; it may take long.

        Raises:
            VolsegError: what the function raised.
            ClusterError: the workers that tried it died.
        """
        (made,) = self.each(partial(_called, call), [arguments])
        return made

    def each(self, call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Call a function on a few items, one at a time on each worker; yields results as they come.

        An item is taken when a worker is free for it, so items may go by what came of those before.

        Raises:
            VolsegError: what the function raised, whichever item was the first.
            ClusterError: the workers that tried an item died.
        """
        if self.client is None:
            yield from map(call, items)
            return
        from distributed import KilledWorker, as_completed  # noqa: PLC0415 - a serial run needs no Dask

        waiting, send = iter(items), partial(self.client.submit, call, pure=False, resources={SLOT: 1})
        running = as_completed([send(item) for item in islice(waiting, len(self.names))])
        try:
            for future in running:
                yield future.result()
                running.update([send(item) for item in islice(waiting, 1)])
        except (KilledWorker, CancelledError) as error:
            raise ClusterError(
                f"workers of {self.where} died, one after the other, at the same task; see their logs (a batch system "
                "may have stopped them for their memory)"
            ) from error


def _called(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return call(*arguments)


@contextlib.contextmanager
def connect(kind: str, workers: int | None, gpus: tuple[str, ...] = ()) -> Iterator[Cluster]:
    """Start or join a cluster; a started one ends with the block.

    Args:
        kind: `serial`, `local`, or the address of a scheduler (`tcp://host:port`).
        workers: worker processes of a `local` cluster; by default one a GPU, or two on a machine without
            (one where it has a single core).
        gpus: what CUDA_VISIBLE_DEVICES is for each GPU that may be used.

    Raises:
        ConfigError: no such kind.
        ClusterError: the scheduler does not answer within 5 s, or has no worker with the resource `slot`.
    """
    if kind == "serial":
        try:
            yield Cluster(None)
        finally:
            give_pages_back()  # the process is the user's
    elif kind == "local":
        with _local(workers, gpus) as cluster:
            yield cluster
    elif "://" in kind:
        with _joined(kind) as cluster:
            yield cluster
    else:
        raise ConfigError(f"--cluster {kind!r} is not one of serial, local, or a scheduler's address tcp://HOST:PORT")


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
    # One heap for all threads of a worker: see volseg.inference.heap.
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
