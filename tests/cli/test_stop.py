"""Ctrl-C, SIGTERM and SIGHUP end a command in one line, and never in the middle of closing."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from distributed import CancelledError
from distributed.comm.core import CommClosedError

from volseg.cluster.dask_cluster import closed_in_order
from volseg.errors import ClusterError
from volseg.storage import Journal, Mark, read_marks
from volseg.system import STOP_SIGNALS, held_signals

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STOPPED = """
import os, signal, sys, time
from volseg.conversion import run as conversion
from volseg.storage.unfinished import work_folder

def stopped(path, *rest):
    (work_folder(path) / path.name).mkdir()
    os.kill(os.getpid(), signal.{name})
    while True:
        time.sleep(0.01)

conversion.begin = stopped
from volseg.cli.main import run
sys.argv = ["volseg", "convert", "raw.zarr", "copy.zarr"]
run()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_stops_a_command_in_one_line_and_leaves_nothing(tmp_path: Path, raw: Path, name: str) -> None:
    command = [sys.executable, "-c", STOPPED.format(name=name)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr.strip()) == (4, "Stopped.")
    assert [path.name for path in tmp_path.iterdir()] == [raw.name]


AHEAD = """
import os, signal
from volseg.cli.stop import interrupt_once
from volseg.cluster import NullProgress, SerialExecutor, run_blocks
from volseg.testing.doubles import MarkRecorder, report

interrupt_once()
marks = MarkRecorder()

def compute(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGUSR1)
    return report(number)

try:
    run_blocks(SerialExecutor(), range(10), compute, marks, NullProgress())
except KeyboardInterrupt:
    print(sorted(marks.done))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_a_signal_ahead_of_the_end_lets_the_block_that_runs_be_marked_and_begins_no_more() -> None:
    done = subprocess.run([sys.executable, "-c", AHEAD], capture_output=True, text=True, check=False)
    assert done.stdout == "[0, 1, 2, 3]\n"
    assert done.stderr.strip().endswith("Interrupted")  # outside of a run it stops at once


ONCE = """
import os, signal
from volseg.cli.stop import interrupt_once
signal.signal(signal.SIGHUP, signal.SIG_IGN)
interrupt_once()
os.kill(os.getpid(), signal.SIGHUP)
try:
    together = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, together)
    for number in together:
        os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, together)
    signal.pause()
except KeyboardInterrupt:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    print("closed")
"""


def test_later_signals_do_not_disturb_the_closing_and_nohup_counts() -> None:
    done = subprocess.run([sys.executable, "-c", ONCE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\n", "")


@pytest.fixture
def raising() -> Iterator[None]:
    """A handler of SIGTERM that raises, as on the command line."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_is_held_back_until_all_is_closed(raising: None) -> None:
    handlers, steps = [signal.getsignal(number) for number in STOP_SIGNALS], list[str]()

    def close() -> None:
        with held_signals():
            with held_signals():
                os.kill(os.getpid(), signal.SIGTERM)
                steps.append("inner")
            steps.append("outer")
        steps.append("never")

    with pytest.raises(KeyboardInterrupt):
        close()
    assert steps == ["inner", "outer"]
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == handlers


def test_marks_are_written_and_the_lock_is_free_if_a_signal_comes_while_a_journal_closes(
    raising: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fsync = tmp_path / "0" / ".volseg", os.fsync
    folder.parent.mkdir()
    journal = Journal(folder)

    def signalled(file: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        fsync(file)

    monkeypatch.setattr(os, "fsync", signalled)
    journal.mark(Mark(3, "0" * 32, 1, "worker", 0.5))
    with pytest.raises(KeyboardInterrupt):
        journal.close()
    monkeypatch.undo()
    assert [mark.block for mark in read_marks(folder)] == [3]
    Journal(folder).close()


def test_a_cluster_is_closed_in_full_and_silently_if_a_signal_comes_meanwhile(raising: None) -> None:
    steps, logger = list[str](), logging.getLogger("distributed.client")
    level = logger.level

    def close() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        steps.append("closed" if not logger.isEnabledFor(logging.CRITICAL) else "loud")

    with pytest.raises(KeyboardInterrupt), closed_in_order() as stack:
        stack.callback(close)
    assert steps == ["closed"]
    assert logger.level == level


@pytest.mark.parametrize("lost", [CommClosedError("in <TCP (closed)>"), CancelledError("lost")])
def test_a_scheduler_that_is_lost_while_something_is_asked_is_one_error(lost: Exception) -> None:
    with pytest.raises(ClusterError, match="the scheduler was lost; .*--resume"), closed_in_order():
        raise lost


LATE = """
import os, signal, sys
from volseg.cli import main as cli

class Late:
    def __del__(self, kill=os.kill, own=os.getpid(), number=signal.{name}):
        kill(own, number)

sys.late = Late()  # goes when Python has given its signals their default
cli.main = lambda prog_name: print("the end")
cli.run()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_python_ends_changes_nothing(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", LATE.format(name=name)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")


IN_EXEC = """
import os, signal
from volseg.cli import main as cli

def main(prog_name):
    try:
        exec("os.kill(os.getpid(), signal.SIGINT)\\nwhile True: pass")
    except KeyboardInterrupt:
        print("caught")

cli.main = main
cli.run()
"""


def test_a_signal_in_code_that_python_makes_is_caught_like_others() -> None:
    done = subprocess.run([sys.executable, "-c", IN_EXEC], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "caught\n", "")
