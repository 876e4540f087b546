"""Jobs that hold workers: those that end are submitted again, and those that never come up are explained."""

from __future__ import annotations

import re
import subprocess
import time
from typing import TYPE_CHECKING, Any

from volseg.errors import ClusterError
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_LOOK_SECONDS = 5.0
_ANSWER_SECONDS = 30.0
_MAX_EARLY = 3
"""Jobs that may end, one after the other, before their worker has joined."""
_ENDED = re.compile(r"\b(FAILED|COMPLETED|CANCELLED|TIMEOUT|NODE_FAIL|OUT_OF_MEMORY|BOOT_FAIL|DEADLINE|DONE|EXIT)\b")
"""States of Slurm and LSF for jobs that have ended and are still listed."""
_ADVICE = {
    "Resources": "the nodes are busy",
    "Priority": "other jobs come first",
    "PartitionConfig": "the queue has no nodes for it; lower --cores, --memory or --gpus, or name another --queue",
    "BadConstraints": "no node has what it asks for; lower --cores, --memory or --gpus",
    "PartitionDown": "the queue is down; name another --queue (sinfo lists them)",
    "PartitionInactive": "the queue is closed; name another --queue (sinfo lists them)",
    "PartitionTimeLimit": "the queue gives less time; lower --walltime (sinfo shows the limit)",
    "PartitionNodeLimit": "the queue has fewer nodes; lower --cores, or name another --queue",
    "ReqNodeNotAvail": "its nodes are down or reserved; sinfo -R tells why",
    "JobHeldUser": "it is held; scontrol release frees it",
    "JobHeldAdmin": "an administrator holds it; ask the site",
}
"""What Slurm's reasons for waiting mean."""
_LIMIT = re.compile(r"Assoc|QOS|MaxJobs|Account")
"""In reasons of Slurm: a limit of an account."""
_UNKNOWN = ("Invalid job id",)
"""What Slurm says if it knows none of the jobs."""


def job_states(system: str, identifiers: Iterable[str | None]) -> dict[str, str] | None:
    """State of each job that waits or runs, in the words of the batch system; None if it does not answer.

    Args:
        system: slurm, lsf, pbs or sge.
        identifiers: of the jobs.
    """
    asked = [name for name in identifiers if name]
    command = {
        "slurm": ["squeue", "-h", "-o", "%i %T (%r)", "-j", ",".join(asked)],
        "lsf": ["bjobs", "-noheader", "-o", "jobid stat", *asked],
        "pbs": ["qstat", *asked],
        "sge": ["qstat"],
    }[system]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return listed(asked, done.stdout, done.stderr, done.returncode)


def listed(asked: list[str], output: str, errors: str, code: int) -> dict[str, str] | None:
    """Jobs that a listing names and that have not ended; None if it does not tell.

    >>> listed(["7", "8"], "7 PENDING (Priority)\\n8 FAILED (NonZeroExitCode)\\n", "", 0)
    {'7': 'PENDING (Priority)'}
    >>> listed(["7"], "", "slurm_load_jobs error: Unable to contact slurm controller", 1)
    >>> listed(["7"], "", "qstat: Unknown Job Id 7.head", 153)
    {}
    """
    found = {}
    for line in output.splitlines():
        name, _, state = line.strip().partition(" ")
        name = name.partition(".")[0]
        if name in asked and not _ENDED.search(state):
            found[name] = " ".join(state.split())
    says_unknown = any(text in errors for text in _UNKNOWN) or any(re.search(rf"\b{name}\b", errors) for name in asked)
    return found if code == 0 or found or says_unknown else None


def advice(state: str) -> str:
    """What a state of Slurm means for its user, as a suffix; empty if it says enough.

    >>> advice("PENDING (PartitionDown)"), advice("PENDING (QOSMaxCpuPerUserLimit)")
    (': the queue is down; name another --queue (sinfo lists them)', ': a limit of the account is reached')
    >>> advice("PENDING (ReqNodeNotAvail, UnavailableNodes:n1)"), advice("RUNNING (None)")
    (': its nodes are down or reserved; sinfo -R tells why', ': its worker is starting')
    """
    word, _, reason = state.partition(" (")
    if word == "RUNNING":
        return ": its worker is starting"
    reason = reason.rstrip(")").partition(",")[0]
    meaning = _ADVICE.get(reason, "a limit of the account is reached" if _LIMIT.search(reason) else "")
    return f": {meaning}" if meaning else ""


def refusal(system: str, line: str) -> str:
    """Why a job was not accepted, with what Slurm has to choose from.

    Args:
        system: the batch system.
        line: the last one of its command.
    """
    if system != "slurm":
        return line
    if "partition" in line:
        return f"{line}; partitions here: {', '.join(_lines('sinfo', '-h', '-o', '%R'))}"
    if "node configuration" in line:
        return f"{line}; nodes here have {'; '.join(_lines('sinfo', '-h', '-e', '-o', '%R: %c cores, %m MiB, %G'))}"
    return line


def _lines(*command: str) -> list[str]:
    """Different lines that a command prints, at most ten; none if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return list(dict.fromkeys(line.strip() for line in done.stdout.splitlines() if line.strip()))[:10]


class Jobs:
    """Looks after the jobs of a cluster; called with the number of workers that are there.

    Args:
        cluster: of dask-jobqueue.
        system: its batch system.
        count: of jobs to hold; None if the cluster adapts it.
        refused: why jobs were not accepted, emptied here.
        logs: folder of their logs.
        note: receives what happened to a job.
    """

    def __init__(
        self, cluster: Any, system: str, count: int | None, refused: list[str], logs: Path, note: Callable[[str], None]
    ) -> None:
        self._cluster, self._system, self._count = cluster, system, count
        self._refused, self._logs, self._note = refused, logs, note
        self._joined: set[str] = set()
        self._early = 0
        self._looked = time.monotonic()

    def __call__(self, present: int) -> None:
        """Submit lost jobs again, at most every few seconds.

        Raises:
            ClusterError: there is no worker, and the batch system refuses jobs, or they end early.
        """
        if self._refused and not present:
            raise ClusterError(f"{self._system} refused the job: {refusal(self._system, self._refused[0])}")
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        if self._refused:
            self._note(f"{self._system} refused a job: {self._refused[0]}; it is submitted again")
            self._refused.clear()
        self._renew_ended(present)
        self._looked = time.monotonic()

    def _renew_ended(self, present: int) -> None:
        pending = self._pending()
        gone = []
        if pending and (states := job_states(self._system, pending.values())) is not None:
            gone = [name for name, identifier in pending.items() if identifier and identifier not in states]
        for name in gone:
            self._early += 1
            reason = self._last_line(pending[name])
            said = f"job {pending[name]} of {self._system} ended before its worker joined{reason}"
            if self._early >= _MAX_EARLY and not present:
                raise ClusterError(f"{counted(self._early, 'job')} ended early: {said}; logs: {self._logs}")
            self._note(f"{said}; it is submitted again")
        self._cluster.sync(self._renew, [*gone, *(name for name, identifier in pending.items() if not identifier)])

    def waiting_for(self) -> str:
        """Jobs without a worker, with their states."""
        pending = [identifier for identifier in self._pending().values() if identifier]
        states = job_states(self._system, pending) if pending else None
        shown = [f"job {name} {state}{advice(state)}" for name, state in (states or {}).items()][:3]
        return ", ".join(shown) if shown else f"{self._system} does not tell the state of its jobs"

    def _pending(self) -> dict[str, str | None]:
        """Identifiers of the jobs whose workers have never joined; None for one that is not accepted (yet)."""
        names = [str(worker.name) for worker in list(self._cluster.scheduler.workers.values())]
        jobs = dict(self._cluster.workers)
        joined = {name for name in jobs if any(one == name or one.startswith(f"{name}-") for one in names)}
        if joined:
            self._early = 0
        self._joined |= joined
        return {name: job.job_id for name, job in jobs.items() if name not in self._joined}

    async def _renew(self, names: list[str]) -> None:
        """Forget jobs that are gone, and submit others in their place."""
        for name in names:
            job = self._cluster.workers.get(name)
            if job is not None and (job.job_id or job.status.name == "failed"):
                del self._cluster.workers[name]
        for name in self._joined - {*self._cluster.workers}:  # their worker was lost, and Dask has closed the job
            self._joined.discard(name)
        if self._count is not None:
            self._cluster.scale(jobs=self._count)

    def _last_line(self, identifier: str | None) -> str:
        """The end of a job's log."""
        files = sorted(self._logs.glob(f"*{identifier}*"), key=lambda path: path.stat().st_mtime)
        for path in reversed(files):
            lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
            if lines:
                return f": {lines[-1].strip()[:200]} ({path})"
        if self._system == "slurm" and identifier and (shown := _lines("scontrol", "show", "job", "-o", identifier)):
            told = re.findall(r"\b(?:JobState|Reason|ExitCode|StdErr)=\S+", shown[0])
            return f" and left no log: {' '.join(told)}"
        return ""
