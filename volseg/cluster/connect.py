"""The cluster of a run: `serial`, `local`, a plug-in, a scheduler's address, a batch system, or an object of Dask."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from volseg.config.cluster import SYSTEMS, BatchConfig, Cluster, read_cluster
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


def check_cluster(cluster: Cluster, workers: int | None = None) -> None:
    """Refuse what is no cluster, without connecting to it or loading Dask.

    Args:
        cluster: as for `connect`.
        workers: number of processes or jobs that is given.

    Raises:
        ConfigError: an unknown name, one that is declared twice, an address that is not `tcp://host:port`, a batch
            system that cannot be used from here, or a number of workers for a cluster that has its own.
    """
    cluster = read_cluster(cluster)
    if isinstance(cluster, BatchConfig):
        from volseg.cluster.batch import check_batch  # noqa: PLC0415 - loads a part of Dask

        check_batch(cluster)
        return
    if not isinstance(cluster, str):
        from volseg.cluster.joined import check_object  # noqa: PLC0415 - likewise

        check_object(cluster)
    else:
        _check_name(cluster)
    if workers is not None and cluster != "local":
        raise ConfigError(
            f"--workers {workers} needs --cluster local or a batch system; leave it out with {cluster!s:.80}"
        )


def _check_name(name: str) -> None:
    protocol, is_address, _ = name.partition("://")
    if is_address:
        _check_address(name, protocol)
    elif name in CLUSTERS:
        CLUSTERS.check(name)
    else:
        names = (*CLUSTERS, *SYSTEMS)
        raise ConfigError(
            f"--cluster {name!r} is not one of {', '.join(names)}{did_you_mean(name, names)}, a FILE.toml, or a "
            "scheduler's tcp://HOST:PORT"
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
def connect(
    cluster: Cluster,
    workers: int | None,
    gpus: tuple[str, ...] = (),
    tls: str | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Executor]:
    """Start or join a cluster; one that was started here ends with the context.

    Args:
        cluster: `serial`, `local`, a plug-in of the group `volseg.clusters`, a scheduler's address (`tcp://host:port`,
            `tls://host:port`), a batch system (its name, FILE.toml or a `BatchConfig`), or a Dask client or cluster.
        workers: processes of a `local` cluster, by default one per GPU, or two on a machine without GPUs (one if it
            has a single core); or number of jobs.
        gpus: CUDA_VISIBLE_DEVICES of each GPU that may be used.
        tls: folder of `ca.pem`, `cert.pem` and `key.pem`, for a scheduler's `tls://` address, or for a batch system.
        note: receives what is asked of a batch system, and what is assumed of a cluster that others started.

    Raises:
        ConfigError: as `check_cluster`, or TLS files that are missing or not used.
        ClusterError: the scheduler does not answer within 5 s, there are no workers, or jobs were refused.
    """
    cluster = read_cluster(cluster)
    check_cluster(cluster)
    if isinstance(cluster, BatchConfig):
        from volseg.cluster.batch import batch_cluster  # noqa: PLC0415 - a serial run needs no Dask

        opened: AbstractContextManager[Executor] = batch_cluster(cluster, workers, tls, note)
    elif tls is not None and not str(cluster).startswith("tls://"):
        raise ConfigError(f"--tls {tls} needs a scheduler's address, --cluster tls://HOST:PORT, not {cluster!s:.80}")
    elif not isinstance(cluster, str):
        from volseg.cluster.joined import joined_object  # noqa: PLC0415 - likewise

        opened = joined_object(cluster, note)
    elif "://" in cluster:
        from volseg.cluster.joined import joined_cluster  # noqa: PLC0415 - likewise

        opened = joined_cluster(cluster, tls, note)
    else:
        opened = CLUSTERS[cluster](workers, gpus)
    with opened as executor:
        yield executor
