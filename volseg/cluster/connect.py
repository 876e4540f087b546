"""The cluster that a run uses: this process, worker processes of this machine, or a scheduler's address."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from volseg.cluster.dask_cluster import _joined, _local
from volseg.cluster.executor import Cluster
from volseg.errors import ConfigError
from volseg.inference.memory.malloc import release_heap

if TYPE_CHECKING:
    from collections.abc import Iterator


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
            release_heap()  # the process is the user's
    elif kind == "local":
        with _local(workers, gpus) as cluster:
            yield cluster
    elif "://" in kind:
        with _joined(kind) as cluster:
            yield cluster
    else:
        raise ConfigError(f"--cluster {kind!r} is not one of serial, local, or a scheduler's address tcp://HOST:PORT")
