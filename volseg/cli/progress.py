"""Progress bars on standard error."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from volseg.errors import redact

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import TaskID


class ProgressBar:
    """Bars on standard error, one for each name; each appears with its first update, so that a refusal stands alone.

    Args:
        unit: what is counted, such as `sections`; empty for a fraction of 1, without count and rate.
        visible: False for no output.
        transient: remove the bars at the end.
    """

    note_style: str | None = None

    def __init__(self, unit: str = "", *, visible: bool = True, transient: bool = False) -> None:
        self.unit = unit
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            *([MofNCompleteColumn()] if unit else []),
            TextColumn("{task.fields[status]}", markup=False),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=Console(stderr=True),
            disable=not visible,
            speed_estimate_period=120,
            transient=transient,
        )
        self._tasks: dict[str, tuple[TaskID, float, float]] = {}

    def update(self, name: str, completed: float, total: float, status: str = "") -> None:
        """Move a bar, with the mean rate since its first update and a text on its state."""
        if name not in self._tasks:
            self._progress.start()
            self._tasks[name] = self._progress.add_task(name, total=total, status=""), completed, time.monotonic()
        task, first, started = self._tasks[name]
        if self.unit and completed > first:
            rate = (completed - first) / max(time.monotonic() - started, 1e-9)
            status = f"{rate:.2f} {self.unit}/s, {status}".rstrip()
        self._progress.update(task, completed=completed, total=total, status=status)

    def note(self, line: str) -> None:
        """Print a line above the bars, without credentials."""
        self._progress.console.print(redact(line), style=self.note_style, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # stop() ends the line even of a bar that was never shown.
        if self._progress.live.is_started:
            self._progress.stop()


class PredictionBar(ProgressBar):
    """Progress of a prediction: blocks, blocks and voxels per second, busy fraction of the devices, time left."""

    note_style = "yellow"

    def __init__(self) -> None:
        super().__init__("blocks")
        self._total = self._blocks = self._voxels = 0
        self._started = 0.0

    def begin(self, total: int) -> None:
        """Show a bar for a number of blocks; called again if there are more than was known."""
        self._total, self._started = total, self._started or time.monotonic()
        self.update("predict", self._blocks, total)

    def advance(self, voxels: int, busy: float | None = None) -> None:
        """Add one block of so many voxels."""
        self._blocks += 1
        self._voxels += voxels
        rate = self._voxels / max(time.monotonic() - self._started, 1e-9) / 1e6
        devices = "" if busy is None else f" devices {busy:.0%} busy,"
        self.update("predict", self._blocks, self._total, f"{rate:.2f} Mvoxel/s,{devices}")


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
        waiting = f" waits for data {wait_fraction:.0%} of the time," if wait_fraction >= _MIN_WAITING else ""
        self.update("train", progress, 1.0, f"step {step}, loss {loss:.4f}, {speed},{waiting}")
