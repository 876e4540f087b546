"""What a worker of a cluster sees, before a run: `volseg cluster check`."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from volseg.cluster import Progress, connect, package_versions
from volseg.config import BatchConfig, read_cluster
from volseg.errors import ConfigError, VolsegError
from volseg.inference import worker_info
from volseg.storage import ReadOptions, VolumeRef
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.config import Cluster

_READABLE, _WRITABLE = "readable", "writable"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What one worker sees.

    Attributes:
        host: its name.
        cores: that it may use.
        memory: free bytes for it.
        device: `cuda` or `cpu`.
        gpu: its UUID; empty on a CPU.
        gpu_memory: free bytes on the GPU.
        versions: of packages.
        read: of each path, `readable` or why not.
        write: of each folder, `writable` or why not.
    """

    host: str
    cores: int
    memory: int
    device: str
    gpu: str
    gpu_memory: int
    versions: dict[str, str]
    read: dict[str, str]
    write: dict[str, str]


@dataclass(frozen=True)
class ClusterCheck:
    """Result of a check.

    Attributes:
        cluster: its name in messages.
        versions: of packages in this process.
        workers: that there were, or the one that was started.
        faults: what does not fit, a line each.
    """

    cluster: str
    versions: dict[str, str]
    workers: tuple[WorkerView, ...]
    faults: tuple[str, ...]


def check_workers(
    cluster: Cluster, progress: Progress, *, read: Sequence[str] = (), write: Sequence[str] = (), tls: str | None = None
) -> ClusterCheck:
    """Start one worker, or join those that are there, and ask what it sees; one that was started ends.

    Args:
        cluster: as for `connect`.
        progress: receives what is waited for.
        read: paths and URLs that a run would read.
        write: local folders that a run would write into.
        tls: folder of certificates.

    Raises:
        ConfigError: a URL to write to.
        VolsegError: the cluster refused, or no worker came up.
    """
    if urls := [path for path in write if "://" in path]:
        raise ConfigError(f"--write {urls[0]} is a URL; targets are local paths")
    cluster = read_cluster(cluster)
    if isinstance(cluster, BatchConfig):
        cluster = cluster.model_copy(update={"workers": 1, "adapt": None})
    token = f".volseg-check-{uuid4().hex[:12]}"
    folders = {path: _folder_of(path) for path in write}
    progress.stage("waiting for a worker")
    with connect(cluster, 1 if cluster == "local" else None, (), tls, progress.note) as executor:
        try:
            views: list[WorkerView] = executor.run_on_all(view, list(read), folders, token)
            seen = {path: any(Path(folder).glob(f"{token}*")) for path, folder in folders.items()}
        finally:
            with contextlib.suppress(VolsegError):
                executor.run_on_all(_remove, list(folders.values()), token)
        where = executor.where
    here = package_versions()
    faults = [fault for one in views for fault in _faults(one, cluster, here, seen)]
    return ClusterCheck(where, here, tuple(views), tuple(dict.fromkeys(faults)))


def _folder_of(path: str) -> str:
    """The folder in which a target would be made, absolute."""
    folder = Path(path).expanduser().absolute()
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return str(folder)


def view(read: Sequence[str], folders: dict[str, str], token: str) -> WorkerView:
    """What this process sees; it leaves an empty file in each folder, for the driver to find."""
    info = worker_info("auto")
    return WorkerView(
        host=info.host,
        cores=len(info.cpus),
        memory=min(info.memory, info.job_memory, info.own_memory),
        device=info.device,
        gpu=info.gpu,
        gpu_memory=info.device_memory,
        versions=package_versions(),
        read={path: _readable(path) for path in read},
        write={path: _writable(Path(folder), token) for path, folder in folders.items()},
    )


def _readable(path: str) -> str:
    try:
        if "://" in path:
            VolumeRef(path, ReadOptions()).open()
        elif Path(path).is_dir():
            next(os.scandir(path), None)
        else:
            with Path(path).open("rb") as file:
                file.read(1)
    except OSError as error:
        return error.strerror or str(error)
    except VolsegError as error:
        return str(error)
    return _READABLE


def _writable(folder: Path, token: str) -> str:
    try:
        with (folder / f"{token}-{os.getpid()}").open("xb") as file:
            file.write(b"volseg")
            os.fsync(file.fileno())
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return _WRITABLE


def _remove(folders: Sequence[str], token: str) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            (Path(folder) / f"{token}-{os.getpid()}").unlink()


def _faults(one: WorkerView, cluster: Cluster, here: dict[str, str], seen: dict[str, bool]) -> list[str]:
    """What does not fit on a worker, in words."""
    host, found = one.host, []
    for name, version in one.versions.items():
        if here.get(name, version) != version:
            found.append(f"{host} has {name} {version}, and this process {here[name]}")
    found += [f"{host} has no {name}" for name in here if name not in one.versions]
    found += [f"{host} cannot read {path} ({why})" for path, why in one.read.items() if why != _READABLE]
    found += [f"{host} cannot write {path} ({why})" for path, why in one.write.items() if why != _WRITABLE]
    found += [
        f"{path} on {host} is not {path} here: what it writes is not seen"
        for path, why in one.write.items()
        if why == _WRITABLE and not seen[path]
    ]
    if isinstance(cluster, BatchConfig):
        if cluster.gpus and one.device != "cuda":
            found.append(f"a job asks for {counted(cluster.gpus, 'GPU')}, and torch sees none on {host}")
        if one.cores < cluster.cores // max(1, cluster.gpus):
            found.append(f"a job asks for {cluster.cores} cores, and the worker on {host} may use {one.cores}")
        if one.memory < cluster.memory // max(1, cluster.gpus) - 512 * _MIB:
            found.append(
                f"a job asks for {cluster.memory // _MIB} MiB, and {one.memory // _MIB} MiB are free for the worker on "
                f"{host}"
            )
    return found
