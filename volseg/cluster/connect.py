"""The cluster of a run, by name: `serial`, `local`, a plug-in, or a scheduler's address."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TypeAlias

from volseg.errors import ConfigError
from volseg.registry import Registry

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
        ConfigError: an unknown name, or TLS files that are missing or not used.
        ClusterError: the scheduler does not answer within 5 s, or no worker has the resource `slot`.
    """
    if tls is not None and not name.startswith("tls://"):
        raise ConfigError(f"--tls {tls} needs a scheduler's address, --cluster tls://HOST:PORT, not {name}")
    if "://" in name:
        from volseg.cluster.dask_cluster import joined_cluster  # noqa: PLC0415 - a serial run needs no Dask

        with joined_cluster(name, tls) as executor:
            yield executor
        return
    if name not in CLUSTERS:
        raise ConfigError(
            f"--cluster {name!r} is not one of {', '.join(CLUSTERS)}, or a scheduler's tcp://HOST:PORT or tls://HOST:PORT"
        )
    with CLUSTERS[name](workers, gpus) as executor:
        yield executor
