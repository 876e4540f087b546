"""Progress bars on standard error: prediction, evaluation, training."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Task, TaskID


class ProgressBar:
    """A bar on standard error: blocks done, blocks/s, voxels/s, time left."""

    def __init__(self, what: str = "predict", console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _Rates(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self._console,
            speed_estimate_period=120,
        )
        self._what = what
        self._voxels = 0

    def begin(self, total: int) -> None:
        """Show an empty bar."""
        self._task = self._bar.add_task(self._what, total=total, voxels=0, busy=None)

    def advance(self, voxels: int, busy: float | None = None) -> None:
        """Move the bar by one block."""
        self._voxels += voxels
        self._bar.update(self._task, advance=1, voxels=self._voxels, busy=busy)

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


class _Rates(ProgressColumn):
    """Blocks and voxels a second, over the whole run, and how much of the time the devices compute."""

    def render(self, task: Task) -> Text:
        """Draw the column."""
        seconds = task.elapsed or 0.0
        if not task.completed or not seconds:
            return Text("")
        rates = f"{task.completed / seconds:.2f} blocks/s, {task.fields['voxels'] / seconds / 1e6:.2f} Mvoxel/s,"
        if task.fields["busy"] is not None:
            rates += f" devices {task.fields['busy']:.0%} busy,"
        return Text(rates, no_wrap=True)


class Screen:
    """A context that holds a bar, which is started by whoever first moves it."""

    _bar: Progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A bar that was never shown would still end its line.
        if self._bar.live.is_started:
            self._bar.stop()


class EvaluateScreen(Screen):
    """Shows on standard error how many sections are scored, how fast, and the time left."""

    def __init__(self, *, shown: bool = True) -> None:
        self._bar = Progress(
            TextColumn("score {task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=Console(stderr=True),
            disable=not shown,
            speed_estimate_period=120,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def told(self, what: str, done: int, sections: int) -> None:
        """Move a bar; the first appears with the first sections, so that a refusal stands alone."""
        if what not in self._tasks:
            self._bar.start()
            self._tasks[what] = self._bar.add_task(what, total=sections)
        self._bar.update(self._tasks[what], completed=done)


class _Rate(ProgressColumn):
    """Sections a second, over the whole run."""

    def render(self, task: Task) -> Text:
        """Draw the column."""
        if not task.completed or not task.elapsed:
            return Text("")
        return Text(f"{task.completed / task.elapsed:.2f} sections/s,", no_wrap=True)


_WORTH_TELLING = 0.02
"""Share of the time, waited for data, that a person may want to do something about."""


class TrainingScreen(Screen):
    """Shows a training on standard error."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(bar_width=20),
            TextColumn("step {task.fields[step]}, loss {task.fields[loss]:.4f}, {task.fields[speed]},"),
            TimeRemainingColumn(compact=True),
            TextColumn("left{task.fields[waiting]}"),
            console=Console(stderr=True),
            speed_estimate_period=120,
        )
        self._task = self._bar.add_task("train", total=1.0, step=0, loss=float("nan"), speed="", waiting="")
        self._recent: deque[tuple[int, float]] = deque(maxlen=50)

    def step(self, step: int, loss: float, share: float, waited: float) -> None:
        """Move the bar; it appears with the first step, so that a refusal stands alone."""
        self._bar.start()
        self._recent.append((step, time.monotonic()))
        (first, then), (last, now) = self._recent[0], self._recent[-1]
        speed = f"{(last - first) / (now - then):.2f} steps/s" if now > then else "first step"
        waiting = f", waits for data {waited:.0%} of the time" if waited >= _WORTH_TELLING else ""
        self._bar.update(self._task, completed=share, step=step, loss=loss, speed=speed, waiting=waiting)

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)
