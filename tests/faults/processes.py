"""Processes of a run, as /proc shows them."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 600.0


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start the command line in a session of its own, which all its processes share."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "volseg", *arguments],
            stdout=subprocess.DEVNULL, stderr=file, start_new_session=True,
        )  # fmt: skip


def wait_until(is_so: Callable[[], bool], what: str, limit: float = LIMIT) -> None:
    """Wait for something; AssertionError if it does not come."""
    deadline = time.monotonic() + limit
    while not is_so():
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(0.01)


def handles_signals(pid: int) -> bool:
    """Whether a process has a handler for SIGHUP: before, it is Python that starts."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), "0")
    return bool(int(caught, 16) >> (signal.SIGHUP - 1) & 1)


def members(session: int) -> dict[int, str]:
    """Numbers and command lines of the live processes of a session."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def workers(session: int) -> list[int]:
    """Worker processes of a local cluster."""
    return [pid for pid, command in members(session).items() if "spawn_main" in command]


def lock_is_free(target: Path) -> bool:
    """Whether no process holds the lock of a target's journal."""
    path = target / "0" / ".volseg" / "lock"
    if not path.exists():
        return True
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def said(log: Path) -> list[str]:
    """What a run wrote to standard error, without its progress and its usual warnings."""
    usual = ("Warning: halo", "measuring ", "looking for ", "waiting for ", "predict: ")
    lines = log.read_text().splitlines()
    return [line for line in lines if not (line.startswith(usual) or line.endswith(" .."))]  # the name of a stage
