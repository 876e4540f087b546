"""Clusters that others started: the address of a scheduler, a Dask `Client`, or a cluster object."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from volseg.cluster.dask_cluster import closed_in_order
from volseg.cluster.dask_executor import DaskExecutor
from volseg.cluster.executor import SLOTS
from volseg.cluster.security import security_of
from volseg.cluster.submission import SLOT
from volseg.errors import ClusterError, ConfigError
from volseg.system import held_signals
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

CONNECT_SECONDS = 5
WORKER_SECONDS = 10
"""A joined scheduler may be without workers for so long: in a batch job they start beside the driver."""


def check_object(cluster: Any) -> None:
    """Refuse an object that is neither a Dask client nor a cluster, without loading Dask.

    Raises:
        ConfigError: another object, or one of asynchronous code.
    """
    if not any(hasattr(cluster, name) for name in ("scheduler_info", "scheduler_address")):
        raise ConfigError(
            f"cluster {cluster!r:.80} is neither a name nor an address, nor a Dask Client or cluster object; give one"
        )
    if getattr(cluster, "asynchronous", False):
        raise ConfigError("the Dask client or cluster is asynchronous; give one that was made with asynchronous=False")


@contextlib.contextmanager
def joined_object(cluster: Any, note: Callable[[str], None]) -> Iterator[DaskExecutor]:
    """Use a Dask client, or a client of a cluster object; what the caller made stays open.

    Args:
        cluster: the object.
        note: receives what is assumed.

    Raises:
        ConfigError: as `check_object`.
        ClusterError: there are no workers.
    """
    from distributed import Client  # noqa: PLC0415 - a serial run needs no Dask

    check_object(cluster)
    with closed_in_order() as stack:
        client = cluster if isinstance(cluster, Client) else stack.enter_context(Client(cluster))
        yield _executor(client, f"the {type(cluster).__name__} that was given", note)


@contextlib.contextmanager
def joined_cluster(address: str, tls: str | None, note: Callable[[str], None]) -> Iterator[DaskExecutor]:
    """Join the cluster of a scheduler, and leave it as it was.

    Args:
        address: `tcp://host:port` or `tls://host:port`.
        tls: folder of the certificate authority `ca.pem`, and of this client's `cert.pem` and `key.pem`; by default
            Dask's own configuration is used.
        note: receives what is assumed.

    Raises:
        ConfigError: a file of `tls` is missing.
        ClusterError: the scheduler does not answer, or has no workers.
    """
    import dask  # noqa: PLC0415 - a serial run needs no Dask
    from distributed import Client  # noqa: PLC0415 - likewise

    security = security_of(tls)
    with dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s"}), closed_in_order() as stack:
        try:
            with held_signals():
                client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS, security=security))
        except (OSError, ValueError, TimeoutError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ClusterError(
                f"no scheduler answers at {address} within {CONNECT_SECONDS} s ({reason}); "
                "check the address, or start one with: dask scheduler"
            ) from None
        except TypeError as error:
            raise ClusterError(
                f"{address} needs certificates, which Dask's configuration does not name; give --tls FOLDER"
            ) from error
        yield _executor(client, address, note)


def _executor(client: Client, where: str, note: Callable[[str], None]) -> DaskExecutor:
    """Wait a little for the first worker.

    Raises:
        ClusterError: there is none.
    """
    deadline = time.monotonic() + WORKER_SECONDS
    while not client.scheduler_info(n_workers=-1)["workers"] and time.monotonic() < deadline:
        time.sleep(0.2)
    executor = DaskExecutor(client, where)
    if not executor.slots:
        raise ClusterError(
            f"{where} has no workers; start some with: dask worker ADDRESS --nthreads {SLOTS} --resources "
            f"{SLOT}={SLOTS} --memory-limit 0"
        )
    if not executor.resources:
        most = counted(executor.slots_per_worker, "block")
        note(
            f"no worker of {where} states the resource {SLOT!r}: a worker computes as many blocks at once as it has "
            f"threads, {most} at most; start workers with --nthreads {SLOTS} --resources {SLOT}={SLOTS} for less memory"
        )
    return executor
