"""A Slurm of one node for tests: its own ports, files and fake GPUs; memory is asked for and not enforced."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "munged")
_CONFIGURATION = """
ClusterName=volseg
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={munge}/socket
SlurmctldPort={controller}
SlurmdPort={node}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
KillWait=10
MinJobAge=20
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 Gres=gpu:2 State=UNKNOWN
PartitionName=debug Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why Slurm cannot be started here; empty if it can."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    absent = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        return f"needs {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "needs root"


@contextlib.contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Start the daemons, with files in a folder, and put SLURM_CONF into the environment."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    ports = _free_ports(2)
    settings, quiet = folder / "slurm.conf", subprocess.DEVNULL
    munge, munged = _munge()
    settings.write_text(_CONFIGURATION.format(folder=folder, controller=ports[0], node=ports[1], munge=munge))
    for number in range(2):
        os.mknod(folder / f"gpu{number}", 0o020666, os.makedev(1, 3))
    (folder / "gres.conf").write_text(f"NodeName=localhost Name=gpu File={folder}/gpu[0-1]\n")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(settings)
    commands = [munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", "localhost"]]
    path = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    daemons = []
    try:
        for command in commands:
            daemons.append(subprocess.Popen(command, env=path, stdout=quiet, stderr=quiet))
            _wait((munge / "socket").exists, "munge")
        _wait(lambda: "idle" in output("sinfo", "-h", "-o", "%t"), "a node")
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], check=False, capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=60)
        shutil.rmtree(munge)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def _munge() -> tuple[Path, list[str]]:
    """A folder of a munged of its own, and the command that starts it."""
    folder = Path(tempfile.mkdtemp(prefix="munge-"))  # a short path, as sockets need
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o600)
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    return folder, ["munged", "--force", "--foreground", *(f"--{key}={folder / file}" for key, file in files.items())]


def output(*command: str) -> str:
    """What a command prints; empty if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def jobs() -> dict[str, str]:
    """State of each job that waits or runs, by its number."""
    return dict(line.split(" ", 1) for line in output("squeue", "-h", "-o", "%i %T").splitlines())


def _wait(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"no {what} within {seconds:g} s")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
