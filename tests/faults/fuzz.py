"""Hostile files and command lines: no traceback, no unexpected error, no hang, no large allocation.

A round plays cases of one kind in a copy of one folder, each in a copy of this process.
"""

from __future__ import annotations

import shutil
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from tests.faults.campaign import Campaign, run_campaign
from tests.faults.guarded import Ended, guarded
from tests.faults.hostile import (
    command_line,
    copy_folder,
    damaged_state,
    input_command,
    make_folder,
    state_command,
    state_files,
)
from tests.laws.fuzzing import damaged, outcome, targets_in
from volseg.cli import convert, evaluate, models, models_import, predict, pyramid, status, train, verify
from volseg.cli.main import main
from volseg.evaluation import evaluate as scores
from volseg.models.interop import import_weights
from volseg.prediction import run, worker
from volseg.prediction.verification import verify as verification

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 600.0
CASES = 8
DAMAGES = 40
"""Of one file, which are read in one copy of this process."""
IMPORTED = (
    convert, evaluate, models, models_import, predict, pyramid, status, train, verify, scores, import_weights, run,
    worker,
    verification,
)  # fmt: skip
"""Before the forks."""


def campaign(seed: int, rounds: int, folder: Path) -> Campaign:
    """Play rounds, each kind in turn, for ten minutes at most."""
    made = guarded(partial(make_folder, folder / "all"), folder, folder / "log", 120.0)
    assert made.code == 0, made.said
    return run_campaign("fuzz", seed, rounds, folder, partial(play, folder / "all"), SECONDS)


def play(origin: Path, rng: random.Random, folder: Path) -> Counter[str]:
    """Some cases of one kind."""
    kind = KINDS[int(folder.name.rpartition("-")[2]) % len(KINDS)]
    counts, findings = Counter[str](), list[str]()
    try:
        for case, ended in kind(origin, rng, folder):
            counts[f"{kind.__name__.replace('_', ' ')}: exit code {ended.code}"] += 1
            if ended.finding:
                findings.append(f"{case}: {ended.finding}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert not findings, "; ".join(findings)
    return counts


def damaged_files(origin: Path, rng: random.Random, folder: Path) -> Iterator[tuple[str, Ended]]:
    """Damage a file many times and read it as volseg does."""
    copy = copy_folder(origin, folder / "all")
    targets = targets_in(copy)
    for target in rng.sample(targets, 4):
        content = target.file.read_bytes()

        def read(target=target, content=content) -> None:
            for _ in range(DAMAGES):
                outcome(target, damaged(content, rng))

        state = rng.getstate()
        yield target.name, guarded(read, copy, folder / "log")
        rng.setstate(state)
        rng.random()


def commands_on_damaged_files(origin: Path, rng: random.Random, folder: Path) -> Iterator[tuple[str, Ended]]:
    """Damage a file that a command reads."""
    for number in range(CASES):
        copy = copy_folder(origin, folder / str(number))
        targets = targets_in(copy)
        file = rng.choice([*(target.file for target in targets), copy / "weights.pt", copy / "labels.tif"])
        for _ in range(rng.choice((1, 1, 2, 4))):
            file.write_bytes(damaged(file.read_bytes() or b"x", rng))
        name = file.relative_to(copy).parts[0]
        arguments = input_command(name, rng)
        yield (
            f"{file.relative_to(copy)}: {' '.join(arguments)}",
            guarded(partial(main, arguments), copy, folder / "log"),
        )
        shutil.rmtree(copy)


def damaged_runs(origin: Path, rng: random.Random, folder: Path) -> Iterator[tuple[str, Ended]]:
    """Damage what a run left, and let a command read it."""
    for number in range(CASES):
        copy = copy_folder(origin, folder / str(number))
        target = copy / rng.choice(("done.zarr", "half.zarr"))
        files = rng.sample(state_files(target), rng.choice((1, 1, 2)))
        for file in files:
            file.write_bytes(damaged_state(file, file.read_bytes(), rng))
        arguments = state_command(target.name, rng)
        case = f"{', '.join(file.name for file in files)}: {' '.join(arguments)}"
        yield case, guarded(partial(main, arguments), copy, folder / "log")
        shutil.rmtree(copy)


def command_lines(origin: Path, rng: random.Random, folder: Path) -> Iterator[tuple[str, Ended]]:
    """Random options with hostile values."""
    copy = copy_folder(origin, folder / "all")
    for _ in range(2 * CASES):
        arguments = command_line(origin, rng)
        shown = " ".join(repr(word[:60]) for word in arguments)
        yield shown, guarded(partial(main, arguments), copy, folder / "log")


KINDS = (damaged_files, commands_on_damaged_files, damaged_runs, command_lines)
