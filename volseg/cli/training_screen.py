"""A training as a person watches it: a bar with loss, steps a second and time left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from types import TracebackType


class TrainingScreen:
    """Shows a training on standard error."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(bar_width=20),
            TextColumn("step {task.fields[step]}, loss {task.fields[loss]:.4f},"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=Console(stderr=True),
            speed_estimate_period=120,
        )
        self._task = self._bar.add_task("train", total=1.0, step=0, loss=float("nan"))

    def step(self, step: int, loss: float, share: float) -> None:
        """Move the bar; it appears with the first step, so that a refusal stands alone."""
        self._bar.start()
        self._bar.update(self._task, completed=share, step=step, loss=loss)

    def note(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
