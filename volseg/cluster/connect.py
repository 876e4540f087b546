"""The cluster of a run, by name: `serial`, `local`, a plug-in, or a scheduler's address."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from volseg.errors import ConfigError
from volseg.registry import Registry
from volseg.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from volseg.cluster.executor import Executor

ClusterFactory: TypeAlias = "Callable[[int | None, tuple[str, ...]], AbstractContextManager[Executor]]"
"""(workers, gpus) -> a context manager that starts or joins a cluster, and leaves nothing of it behind."""

CLUSTERS: Registry[ClusterFactory] = Registry(
    "volseg.clusters",
    "cluster",
    {"serial": "volseg.cluster.serial:serial", "local": "volseg.cluster.dask_cluster:local_cluster"},
)

_PROTOCOLS = ("tcp", "tls", "ws", "wss", "ucx", "inproc")
"""Of addresses that Dask knows by itself; installed packages may add to them."""
_PROTOCOL_GROUP = "distributed.comm.backends"


def check_cluster(name: str) -> None:
    """Refuse what names no cluster, without connecting to it or loading Dask.

    Raises:
        ConfigError: an unknown name, one that is declared twice, or an address that is not `tcp://host:port`.
    """
    protocol, is_address, _ = name.partition("://")
    if is_address:
        _check_address(name, protocol)
    elif name in CLUSTERS:
        CLUSTERS.check(name)
    else:
        raise ConfigError(
            f"--cluster {name!r} is not one of {', '.join(CLUSTERS)}{did_you_mean(name, CLUSTERS)}, or a scheduler's "
            "tcp://HOST:PORT"
        )


def _check_address(address: str, protocol: str) -> None:
    protocols = (*_PROTOCOLS, *(backend.name for backend in metadata.entry_points(group=_PROTOCOL_GROUP)))
    if protocol not in protocols:
        raise ConfigError(f"--cluster {address!r} is not a scheduler's address; write tcp://HOST:PORT")
    if protocol not in ("tcp", "tls"):
        return
    try:
        parts = urlsplit(address)
        is_complete = bool(parts.hostname and parts.port) and not (parts.path or parts.query or parts.fragment)
    except ValueError:  # a port that is no number, or out of range
        is_complete = False
    if not is_complete:
        raise ConfigError(
            f"--cluster {address!r} is not a scheduler's address; write {protocol}://HOST:PORT, such as "
            f"{protocol}://login1:8786"
        )


@contextmanager
def connect(name: str, workers: int | None, gpus: tuple[str, ...] = (), tls: str | None = None) -> Iterator[Executor]:
    """Start or join a cluster; one that was started here ends with the context.

    Args:
        name: `serial`, `local`, a plug-in of the group `volseg.clusters`, or a scheduler's address (`tcp://host:port`,
            `tls://host:port`).
        workers: processes of a `local` cluster; by default one per GPU, or two on a machine without GPUs (one if it
            has a single core).
        gpus: CUDA_VISIBLE_DEVICES of each GPU that may be used.
        tls: folder of `ca.pem`, `cert.pem` and `key.pem`, for a scheduler's `tls://` address.

    Raises:
        ConfigError: as `check_cluster`, or TLS files that are missing or not used.
        ClusterError: the scheduler does not answer within 5 s, or no worker has the resource `slot`.
    """
    check_cluster(name)
    if tls is not None and not name.startswith("tls://"):
        raise ConfigError(f"--tls {tls} needs a scheduler's address, --cluster tls://HOST:PORT, not {name}")
    if "://" in name:
        from volseg.cluster.dask_cluster import joined_cluster  # noqa: PLC0415 - a serial run needs no Dask

        with joined_cluster(name, tls) as executor:
            yield executor
        return
    with CLUSTERS[name](workers, gpus) as executor:
        yield executor
