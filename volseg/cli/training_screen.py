"""A training as a person watches it: a bar with loss, speed, time left, and how much of it went by without data."""

from __future__ import annotations

import time
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from volseg.cli.screen import Screen

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
