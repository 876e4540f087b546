"""What the system lets this process use, cores and memory within its control groups; and how it asks it to stop."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

_STOPS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
STOP_SIGNALS = tuple(getattr(signal, name) for name in _STOPS if hasattr(signal, name))
"""Ctrl-C, a batch system's request to end (by any of several signals), and a terminal that is closed."""
UNLIMITED = 1 << 62
_CGROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_CPUS = ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "LSB_DJOB_NUMPROC", "NSLOTS", "NCPUS")
"""Cores of a job of Slurm (of a task, or of all on the node), LSF, Grid Engine and PBS."""
_JOBS = ("SLURM_JOB_ID", "LSB_JOBID", "PBS_JOBID", "JOB_ID")
_V1_NO_LIMIT = 1 << 60
"""A memory limit of version 1 from here on is none: it states the largest multiple of a page."""


def available_cpus() -> frozenset[int]:
    """Cores that this process may use, at most as many as its job asked for; all, where there is no CPU affinity."""
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    asked = next((int(value) for value in map(os.environ.get, _CPUS) if value and value.isdecimal()), 0)
    return frozenset(sorted(affinity)[: asked or None])


def batch_job() -> tuple[str, str]:
    """The job of a batch system that this process is part of, and its task in that; empty outside of one."""
    job = next((value for value in map(os.environ.get, _JOBS) if value), "")
    return job, f"{job}.{os.environ.get('SLURM_STEP_ID', '')}.{os.environ.get('SLURM_PROCID', '')}" if job else ""


def free_in_job() -> int:
    """Free memory below the limit of this process's job, in bytes; 2**62 without a limit.

    The limit is that of its control groups, and what Slurm states (`--mem` or `--mem-per-cpu`, in MiB), which a site
    may enforce without them.
    """
    stated = UNLIMITED
    if (node := os.environ.get("SLURM_MEM_PER_NODE", "")).isdecimal() and int(node):
        stated = int(node) << 20
    elif (core := os.environ.get("SLURM_MEM_PER_CPU", "")).isdecimal() and int(core):
        cores = os.environ.get("SLURM_CPUS_ON_NODE", "")
        stated = (int(core) << 20) * (int(cores) if cores.isdecimal() else len(available_cpus()))
    used = psutil.Process().memory_info().rss if stated < UNLIMITED else 0
    return max(0, min(free_in_control_groups(), stated - used))


def free_in_control_groups() -> int:
    """Free memory below the limits of a batch system or a container, in bytes; 2**62 without limits."""
    return max(0, min((limit - used for limit, used in _memory_limits()), default=UNLIMITED))


def free_of_own_limits() -> int:
    """Memory that this process may still map below its own limits (`ulimit -v`, `-d`), in bytes; 2**62 without limits.

    Other processes of the machine do not share these limits.
    """
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return UNLIMITED
    used = psutil.Process().memory_info()
    limits = ((resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, getattr(used, "data", used.rss)))
    soft = ((resource.getrlimit(limit)[0], value) for limit, value in limits)
    return max(0, min((limit - value for limit, value in soft if limit != resource.RLIM_INFINITY), default=UNLIMITED))


def address_space_limit() -> int:
    """Bytes that this process may map in all (`ulimit -v`); 2**62 without a limit."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return UNLIMITED
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def out_of_memory_kills() -> int | None:
    """How many processes of this one's control group the kernel has killed for its memory; None if that is unknown.

    A batch system puts each job into a group of its own, so a count that has grown since a worker started, when it is
    found dead, tells why it died. Version 2 counts the groups below too.
    """
    counts = []
    for root, group, names in _memory_groups():
        event_file = "memory.oom_control" if names[0] == "memory.limit_in_bytes" else "memory.events"
        # As in `_memory_limits`, a container's own group is mounted as the root.
        for folder in (root / group, root):
            try:
                lines = (folder / event_file).read_text().splitlines()
            except OSError:
                continue
            counts += [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
            break
    return sum(counts) if counts else None


def _memory_limits() -> Iterator[tuple[int, int]]:
    """Limit and use of each control group that this process is in, and of those above it."""
    for root, group, names in _memory_groups():
        # Within a container, /proc may name a group of the host, and the container's own is mounted as the root.
        for folder in (root / group, *(root / group).parents):
            try:
                limit, used, statistics = ((folder / name).read_text() for name in names)
            except OSError:
                pass
            else:
                if limit.strip() != "max" and int(limit) < _V1_NO_LIMIT:
                    yield int(limit), int(used) - _reclaimable(statistics)
            if folder == root:
                break


def _memory_groups() -> Iterator[tuple[Path, str, tuple[str, str, str]]]:
    """Mount and path of each group, and the files of its limit, use and statistics: of version 2, and of version 1.

    A line of /proc/self/cgroup is `number:controllers:/path`; that of version 2 has no controllers.
    """
    try:
        lines = _CGROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if not controllers:
            yield _MOUNT, group.strip("/"), ("memory.max", "memory.current", "memory.stat")
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
            yield _MOUNT / "memory", group.strip("/"), files


def _reclaimable(statistics: str) -> int:
    """Bytes of files that were read and not used again: the system drops them for memory that is needed."""
    values = dict(line.split(" ", 1) for line in statistics.split("\n") if " " in line)
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))


@contextmanager
def held_signals() -> Iterator[None]:
    """Hold back the stop signals that raise an exception, so that what is opened or closed meanwhile is so in full."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


class LastBlocks:
    """A request to begin no more blocks and to end with those that run; accepted only while blocks are computed."""

    def __init__(self) -> None:
        self._accepts = self.requested = False

    def request(self) -> bool:
        """Ask for it; False if no blocks are computed now, so that the caller has to stop in another way."""
        self.requested = self._accepts
        return self._accepts

    @contextmanager
    def accepted(self) -> Iterator[None]:
        """Accept requests.

        Raises:
            KeyboardInterrupt: at the end, if there was one.
        """
        self._accepts, self.requested = True, False
        try:
            yield
            if self.requested:
                raise KeyboardInterrupt
        finally:
            self._accepts = self.requested = False


last_blocks = LastBlocks()
"""Of this process."""
