"""Progress on standard error: bars in a terminal, else a line now and then."""

from __future__ import annotations

import threading
import time
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from volseg.errors import redact
from volseg.text import counted

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import TaskID

_LINE_SECONDS = 10.0
"""Interval of lines where there is no terminal."""
_STAGE_SECONDS = 1.0
"""A stage that is over sooner is no line."""
_BAR_WIDTH = 12
_TIME_WIDTH = len("00:00:00 left")


class _TimeColumn(ProgressColumn):
    """Time left; of a task without an end, the time since its start."""

    def render(self, task: Task) -> Text:
        """Show the time of a task."""
        if task.total is None:
            return Text(_time(task.elapsed or 0))
        left = task.time_remaining
        return Text("" if left is None else f"{_time(left)} left")


def _time(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> _time(3725.4)
    '1:02:05'
    """
    return str(timedelta(seconds=int(seconds)))


class ProgressBar:
    """Progress by name; each bar appears with its first update, so that a refusal stands alone.

    Args:
        unit: what is counted, such as `section`; empty for a fraction of 1, without count and rate.
        visible: False for no output.
        transient: remove the bars at the end.
    """

    note_style: str | None = None

    def __init__(self, unit: str = "", *, visible: bool = True, transient: bool = False) -> None:
        self.unit = unit
        self._visible, self._transient = visible, transient
        self._console = Console(stderr=True)
        self._bars = visible and self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.fields[status]}", markup=False),
            _TimeColumn(),
            console=self._console,
            disable=not self._bars,
            speed_estimate_period=120,
            transient=transient,
        )
        self._tasks: dict[str, tuple[TaskID, float, float]] = {}
        self._stage: TaskID | None = None
        self._timer: threading.Timer | None = None
        self._lines: dict[str, str] = {}
        self._printed = time.monotonic()

    def update(self, name: str, completed: float, total: float, *details: str) -> None:
        """Move a bar.

        Args:
            name: of the bar.
            completed: of `total`.
            total: at the end.
            details: shown behind the count and the mean rate since the first update; those that do not fit into the
                terminal are left out, the last ones first.
        """
        self._end_stage()
        if name not in self._tasks:
            self._progress.start()
            self._tasks[name] = self._progress.add_task(name, total=total, status=""), completed, time.monotonic()
        task, first, started = self._tasks[name]
        seconds = time.monotonic() - started
        if self.unit and completed > first:
            details = (f"{(completed - first) / max(seconds, 1e-9):.2f} {self.unit}s/s", *details)
        if self._bars:
            count = f"{completed:g}/{total:g}" if self.unit else f"{completed / total:.0%}"
            status = self._fitting(name, (count, *details))
            self._progress.update(task, completed=completed, total=total, status=status)
        elif self._visible:
            remains = seconds / (completed - first) * (total - completed) if completed > first else 0
            left = (f"{_time(remains)} left",) if remains else ()
            count = f"{completed:g} of {counted(int(total), self.unit)}" if self.unit else f"{completed / total:.0%}"
            self._lines[name] = f"{name}: {', '.join((count, *details, *left))}"
            if time.monotonic() - self._printed >= _LINE_SECONDS:
                self._print_lines()

    def stage(self, name: str) -> None:
        """Name what is waited for, until the next stage or update."""
        self._end_stage()
        if self._bars:
            self._progress.start()
            self._stage = self._progress.add_task(name, total=None, status="")
        elif self._visible:
            self._timer = threading.Timer(_STAGE_SECONDS, self._print, [f"{name} .."])
            self._timer.daemon = True
            self._timer.start()

    def note(self, line: str) -> None:
        """Print a line above the bars, without credentials."""
        self._console.print(redact(line), style=self.note_style, highlight=False, markup=False, soft_wrap=True)

    def _fitting(self, name: str, parts: tuple[str, ...]) -> str:
        """As many of the parts as the terminal has room for behind a name and its bar, and at least the first."""
        room = self._console.width - len(name) - _BAR_WIDTH - _TIME_WIDTH - 4
        while len(parts) > 1 and len(", ".join(parts)) > room:
            parts = parts[:-1]
        return ", ".join(parts)

    def _print_lines(self) -> None:
        self._printed = time.monotonic()
        for line in self._lines.values():
            self._print(line)
        self._lines.clear()

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _end_stage(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._stage is not None:
            self._progress.remove_task(self._stage)
            self._stage = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_stage()
        # stop() ends the line even of a bar that was never shown.
        if self._progress.live.is_started:
            self._progress.stop()
        if not self._transient:
            self._print_lines()


class PredictionBar(ProgressBar):
    """Progress of a prediction: blocks, blocks and voxels per second, busy fraction of the devices, time left."""

    note_style, name, shows_devices = "yellow", "predict", True

    def __init__(self) -> None:
        super().__init__("block")
        self._total = self._blocks = self._voxels = 0
        self._started = 0.0

    def begin(self, total: int) -> None:
        """Show a bar for a number of blocks; called again if there are more than was known."""
        self._end_stage()
        self._total, self._started = total, self._started or time.monotonic()
        if total:
            self.update(self.name, self._blocks, total)

    def advance(self, voxels: int, busy: float | None = None) -> None:
        """Add one block of so many voxels."""
        self._blocks += 1
        self._voxels += voxels
        rate = self._voxels / max(time.monotonic() - self._started, 1e-9) / 1e6
        devices = [] if busy is None or not self.shows_devices else [f"devices {busy:.0%} busy"]
        self.update(self.name, self._blocks, self._total, f"{rate:.2f} Mvoxel/s", *devices)


class CalibrationBar(PredictionBar):
    """Progress of the blocks that are tried for a calibration."""

    name = "calibrate"


class ConversionBar(PredictionBar):
    """Progress of a conversion: blocks, blocks and voxels per second, time left."""

    name, shows_devices = "convert", False


class PyramidBar(PredictionBar):
    """Progress of coarser levels that are added: blocks, voxels of level 0 per second, time left."""

    name, shows_devices = "pyramid", False


class VerificationBar(PredictionBar):
    """Progress of a verification: blocks, bytes per second, time left; and of the run that repairs."""

    def __init__(self) -> None:
        super().__init__()
        self._began: dict[str, float] = {}

    def compared(self, blocks: int, total: int, size: int) -> None:
        """Show how many blocks are compared, and the speed of reading."""
        name = "verify again" if self._blocks else "verify"
        began = self._began.setdefault(name, time.monotonic())
        self.update(name, blocks, total, f"{size / max(time.monotonic() - began, 1e-9) / 1e9:.2f} GB/s")


_MIN_WAITING = 0.02
"""Fraction of the time spent waiting for data from which it is shown."""


class TrainingBar(ProgressBar):
    """Progress of a training: step, loss, speed of the last 50 steps, time waited for data, time left."""

    def __init__(self) -> None:
        super().__init__()
        self._recent: deque[tuple[int, float]] = deque(maxlen=50)

    def step(self, step: int, loss: float, progress: float, wait_fraction: float) -> None:
        """Show a step, the fraction of the training that is done, and the fraction of its time waited for data."""
        self._recent.append((step, time.monotonic()))
        (first, then), (last, now) = self._recent[0], self._recent[-1]
        speed = f"{(last - first) / (now - then):.2f} steps/s" if now > then else "first step"
        waiting = [f"waits for data {wait_fraction:.0%} of the time"] if wait_fraction >= _MIN_WAITING else []
        self.update("train", progress, 1.0, f"step {step}", f"loss {loss:.4f}", speed, *waiting)
