"""A call in a copy of this process, with little memory and time: how it ends, and what it says."""

from __future__ import annotations

import faulthandler
import os
import re
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 10.0
"""Of a processor."""
WAIT = 15.0
"""Of waiting in which no thread could run, however busy the machine is."""
BYTES = 1 << 30
_STACKS = 256 << 20
"""For threads, most of which is not used."""
_TOO_MUCH = 97
_OWN = "/volseg/"


class Ended(NamedTuple):
    """How a call ended.

    Attributes:
        code: exit code, the negative number of a signal.
        said: on standard output and error.
        seconds: of a processor.
        grown: bytes of memory.
    """

    code: int
    said: str
    seconds: float
    grown: int

    @property
    def finding(self) -> str:
        """What no input may lead to; empty if there is nothing."""
        lines = self.said.splitlines()
        if self.code in (-signal.SIGPROF, -signal.SIGKILL):
            return f"hangs: {_last(lines, _OWN)}"
        if self.code == _TOO_MUCH or "memory ran out" in self.said:
            return f"{self.grown >> 20} MiB of memory: {lines[-1:]}"
        if self.code not in (0, 1, 2, 3):
            return f"exit code {self.code}: {lines[-1:]}"
        for line in lines:
            if log := re.search(r"did not expect this error: .* is in (\S+\.log)", line):
                return _end_of(Path(log[1]).read_text())
            if "Traceback (most" in line:
                return _end_of(self.said)
            if "did not expect" in line or re.search(r"\.py:\d+: \w*Warning", line):
                return line
        strange = next((letter for letter in self.said if not letter.isprintable() and letter not in "\n\t"), "")
        return f"an unprintable {strange!r} in {self.said!r:.300}" if strange else ""


def _end_of(trace: str) -> str:
    """The error of a traceback, and the last line of volseg's."""
    lines = [line.strip() for line in trace.strip().splitlines()]
    places = [line for line in lines if line.startswith("File ") and (_OWN in line or "/tests/" in line)]
    return f"{lines[-1]:.300} {places[-1] if places else ''}"


def _last(lines: list[str], part: str) -> str:
    return " / ".join([line.strip() for line in lines if part in line][:3])


def guarded(act: Callable[[], object], folder: Path, log: Path, seconds: float = SECONDS) -> Ended:
    """Do something in a copy of this process, in a folder, within so many seconds of a processor and `BYTES`."""
    pid = os.fork()
    if pid == 0:
        os._exit(_play(act, folder, log, seconds))
    waiting = time.monotonic()
    ended = os.wait4(pid, os.WNOHANG)
    while not ended[0] and time.monotonic() - waiting < WAIT:
        ended = os.wait4(pid, os.WNOHANG)
        time.sleep(0.002)
        if _can_run(pid):
            waiting = time.monotonic()
    if not ended[0]:
        os.kill(pid, signal.SIGPROF)
        time.sleep(0.2)
    _kill_group(pid)
    if not ended[0]:
        ended = os.wait4(pid, 0)
    usage, text = ended[2], log.read_bytes().decode(errors="backslashreplace")
    said, _, grown = text.rpartition("\ngrown ")
    code = os.waitstatus_to_exitcode(ended[1])
    seconds = usage.ru_utime + usage.ru_stime
    return Ended(code, said if grown.isdigit() else text, seconds, int(grown) if grown.isdigit() else 0)


def _play(act: Callable[[], object], folder: Path, log: Path, seconds: float) -> int:
    """The copy's side; its exit code."""
    os.setsid()
    file = os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = sys.stderr = os.fdopen(file, "w", buffering=1, errors="backslashreplace", closefd=False)
    os.chdir(folder)
    sys.argv = ["volseg"]
    faulthandler.register(signal.SIGPROF, file=file, chain=True)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    before = _kilobytes("VmRSS")
    data = (_kilobytes("VmData") << 10) + BYTES + _STACKS
    resource.setrlimit(resource.RLIMIT_DATA, (data, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        act()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # the copy must not go on as the original
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    grown = _kilobytes("VmHWM") - before << 10
    os.write(file, f"\ngrown {max(grown, 0)}".encode())
    return _TOO_MUCH if grown > BYTES else code


def _can_run(pid: int) -> bool:
    """Whether a thread of a process runs, or would if there were a processor for it."""
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            if (task / "stat").read_text().rpartition(")")[2].split()[0] in "RD":
                return True
    return False


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
