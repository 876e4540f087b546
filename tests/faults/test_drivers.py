"""Of several drivers on one target one wins, whole; what the others did leaves no trace."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import volseg.storage.publish
from tests.faults.contenders import Contenders
from volseg.errors import ResumeError, TargetError, VolsegError

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = {
    "resolve_run": "volseg.prediction.run",
    "sync_tree": "volseg.storage.publish",
    "_publish": "volseg.storage.publish",
    "open_target": "volseg.storage.create",
    "take_over": "volseg.prediction.run",
    "compute_block": "volseg.prediction.run",
    "_replace": "volseg.storage.publish",
}
"""Functions before or after which another driver runs, in the order of a start, with their modules."""
MODES = ("plain", "overwrite", "resume")
APPEARED = {
    *product(("open_target", "take_over", "compute_block"), ("before", "after")),
    *product(("_publish", "_replace"), ("after",)),
}
"""Moments at which the target of the first driver is there, which nobody may take from it."""
QUICK = {
    ("resolve_run", "after", "plain", "overwrite"),
    ("open_target", "before", "plain", "overwrite"),
    ("take_over", "before", "overwrite", "overwrite"),
    ("compute_block", "before", "plain", "resume"),
}
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow)
    for case in product(STEPS, ("before", "after"), MODES, MODES)
    if case[0] != "_replace" or case[2] == "overwrite"
]


@pytest.fixture(scope="module")
def contenders(tmp_path_factory: pytest.TempPathFactory) -> Contenders:
    """Two drivers."""
    two = Contenders(tmp_path_factory.mktemp("contenders"), 2)
    two.prepare()
    two.remember()
    return two


def at(monkeypatch: pytest.MonkeyPatch, name: str, when: str, act: Callable[[], object]) -> list[bool]:
    """Do something once, before or after a step of the first driver that comes to it."""
    module, acted = import_module(STEPS[name]), list[bool]()
    function = getattr(module, name)

    def once() -> None:
        if not acted:
            acted.append(True)
            act()

    def with_act(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            once()
        result = function(*arguments, **options)
        if when == "after":
            once()
        return result

    monkeypatch.setattr(module, name, with_act)
    return acted


@pytest.mark.parametrize(("step", "when", "first", "second"), CASES)
def test_a_second_driver_at_any_step_of_the_first(
    contenders: Contenders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str, first: str,
    second: str,
) -> None:  # fmt: skip
    target, errors = tmp_path / "t.zarr", list[VolsegError]()
    if first == "overwrite":
        contenders.run(target, 1)

    def drive(number: int, mode: str) -> None:
        try:
            contenders.run(target, number, **({} if mode == "plain" else {mode: True}))
        except VolsegError as error:
            errors.append(error)

    acted = at(monkeypatch, step, when, lambda: drive(1, second))
    drive(0, first)
    assert acted
    winner = contenders.winner(target)
    assert len(errors) <= 1, errors
    if (step, when) in APPEARED:
        assert (winner, len(errors)) == (0, 1)
    assert all(isinstance(error, TargetError | ResumeError) for error in errors)
    assert all("\n" not in str(error) and "t.zarr" in str(error) for error in errors)


def test_a_driver_that_comes_between_two_renames_wins(
    contenders: Contenders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no exchange, the path is free for a moment."""
    target, rename = tmp_path / "t.zarr", Path.rename
    contenders.run(target, 1)
    monkeypatch.setattr(volseg.storage.publish, "exchange", lambda first, second: False)

    def then_run(self: Path, new: Path) -> Path:
        moved = rename(self, new)
        if new.name == "old":
            monkeypatch.undo()
            with pytest.raises(TargetError, match="t.zarr is being replaced by the process that .* names; wait for it"):
                contenders.run(target, 1)
        return moved

    monkeypatch.setattr(Path, "rename", then_run)
    contenders.run(target, 0, overwrite=True)
    assert contenders.winner(target) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("campaign", "rounds"), [("drivers", 10), ("ends", 6), ("kills", 1), ("leases", 4)])
def test_a_short_form_of_each_campaign(campaign: str, rounds: int) -> None:
    command = [sys.executable, "-m", "tests.faults", "--only", campaign, "--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
