"""How far a run is: blocks, voxels a second and time left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

_TELL_SECONDS = 5.0

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.progress import Task


class Progress(Protocol):
    """Anything that wants to know how far a run is."""

    def begin(self, total: int) -> None:
        """A run of so many blocks begins."""

    def advance(self, voxels: int, busy: float | None = None) -> None:
        """A block of so many voxels is done; `busy` is the share of the devices' time in the network so far."""

    def note(self, line: str) -> None:
        """Something the user should see: a failed attempt, a lost worker."""


class Quiet:
    """Tells nobody."""

    def begin(self, total: int) -> None:
        """Say nothing."""

    def advance(self, voxels: int, busy: float | None = None) -> None:
        """Say nothing."""

    def note(self, line: str) -> None:
        """Say nothing."""


class Shown:
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


def sections_told(progress: Progress, sections: int) -> Callable[[int], None]:
    """Tells of the one pass over the volume before the first block, where it takes long."""
    started = told = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told > _TELL_SECONDS:
            told = now
            left = (now - started) / done * (sections - done)
            progress.note(f"grey values of {done} of {sections} sections measured, {left:.0f} s left")

    return tell
