"""Progress fits its terminal, and is a line now and then without one."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

import volseg.cli.progress
from volseg.cli.progress import PredictionBar, ProgressBar, TrainingBar

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(volseg.cli.progress, "time", clock)
    return clock


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, int], io.StringIO]:
    def make(terminal: bool, width: int = 80) -> io.StringIO:
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=width, color_system=None)
        monkeypatch.setattr(volseg.cli.progress, "Console", lambda **_: console)
        return out

    return make


def test_without_a_terminal_lines_are_seconds_apart_and_the_last_one_is_shown(
    clock: Clock, screen: Callable[..., io.StringIO]
) -> None:
    out = screen(False)
    with PredictionBar() as bar:
        bar.begin(1000)
        for _ in range(500):
            clock.now += 0.125
            bar.advance(10**6, 0.456)
    lines = out.getvalue().splitlines()
    assert lines[0] == "predict: 80 of 1000 blocks, 8.00 blocks/s, 8.00 Mvoxel/s, devices 46% busy, 0:01:55 left"
    assert [int(line.split()[1]) for line in lines] == [80, 160, 240, 320, 400, 480, 500]


def test_a_short_run_without_a_terminal_is_one_line(clock: Clock, screen: Callable[..., io.StringIO]) -> None:
    out = screen(False)
    with PredictionBar() as bar:
        bar.begin(1)
        clock.now += 0.5
        bar.advance(1000)
    (line,) = out.getvalue().splitlines()
    assert line.startswith("predict: 1 of 1 block, 2.00 blocks/s, 0.00 Mvoxel/s")


class Timer:
    """A timer whose time is set by hand."""

    is_cancelled = daemon = False

    def __init__(self, call: tuple[float, Callable[..., None], list[str]]) -> None:
        self.call = call

    def start(self) -> None:
        pass

    def cancel(self) -> None:
        self.is_cancelled = True

    def after(self, seconds: float) -> None:
        limit, call, arguments = self.call
        if seconds >= limit:
            call(*arguments)


def test_what_is_waited_for_is_named_unless_it_is_short(
    clock: Clock, screen: Callable[..., io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[Any] = []

    def timer(*call: Any) -> Any:
        timers.append(Timer(call))
        return timers[-1]

    monkeypatch.setattr(threading, "Timer", timer)
    out = screen(False)
    with PredictionBar() as bar:
        bar.stage("waiting for workers")
        timers[0].after(2)
        bar.stage("measuring tiles")
        timers[1].after(0.5)
        bar.stage("measuring halo")
        timers[2].after(2)
    assert all(timer.is_cancelled for timer in timers)
    assert out.getvalue().splitlines() == ["waiting for workers ..", "measuring halo .."]
    shown = screen(True)
    with PredictionBar() as bar:
        bar.stage("waiting for workers")
        bar._progress.refresh()
        bar.begin(3)
    assert "waiting for workers" in shown.getvalue()
    assert "waiting for workers" not in shown.getvalue().splitlines()[-1]


@pytest.mark.parametrize(("width", "expected"), [(50, 0), (70, 1), (80, 2), (100, 3), (160, 3)])
def test_a_terminal_shows_whole_details_or_none(
    clock: Clock, screen: Callable[..., io.StringIO], width: int, expected: int
) -> None:
    details = ("8.00 blocks/s", "98.77 Mvoxel/s", "devices 46% busy")
    out = screen(True, width)
    with PredictionBar() as bar:
        bar.begin(123456)
        for _ in range(100):
            clock.now += 0.125
            bar.advance(12345678, 0.456)
        bar._progress.refresh()
    text = out.getvalue()
    assert "…" not in text
    assert "..." not in text
    last = [line for line in text.replace("\r", "\n").splitlines() if "/123456" in line][-1]
    shown = [detail for detail in details if detail in last]
    assert details[: len(shown)] == tuple(shown)
    assert all(word in " ".join(shown) for word in ("blocks/s", "Mvoxel/s", "busy") if word in last)
    assert len(shown) == expected


def test_a_training_has_a_line_with_its_fraction(clock: Clock, screen: Callable[..., io.StringIO]) -> None:
    out = screen(False)
    with TrainingBar() as bar:
        for step in range(1, 5):
            clock.now += 0.5
            bar.step(step, 0.25, step / 8, 0.5)
    assert out.getvalue() == (
        "train: 50%, step 4, loss 0.2500, 2.00 steps/s, waits for data 50% of the time, 0:00:02 left\n"
    )


def test_a_transient_or_invisible_bar_leaves_no_line(clock: Clock, screen: Callable[..., io.StringIO]) -> None:
    for options in ({"transient": True}, {"visible": False}):
        out = screen(False)
        with ProgressBar("section", **options) as bar:
            bar.update("convert", 1, 3)
        assert out.getvalue() == ""
