"""Many drivers on one target, at random moments: one map, whole, and one clear line for each of the others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import traceback
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from tests.faults.campaign import Campaign, run_campaign
from tests.faults.contenders import Contenders
from volseg.cli.main import main
from volseg.prediction import run, worker  # imported once, before the forks

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

COUNTS = (2, 3, 10)
IMPORTED = (run, worker)
REAL_EVERY = 20
"""One round in so many runs the command line anew; the others fork, which takes no imports."""
USUAL = ("Warning: halo", "measuring ", "looking for ", "waiting for ", "predict: ")
LIMIT = 600.0


def campaign(seed: int, rounds: int, folder: Path) -> Campaign:
    """Play rounds of two, three and ten drivers."""
    contenders = Contenders(folder, max(COUNTS))
    # This process computes nothing itself: pools of threads do not outlive a fork.
    assert wait_for([fork(contenders.prepare, 0.0, folder / "prepare")])[0] == (0, "")
    contenders.remember()
    return run_campaign("drivers", seed, rounds, folder, partial(play, contenders))


def play(contenders: Contenders, rng: random.Random, folder: Path) -> Counter[str]:
    """One round."""
    target, drivers = folder / "t.zarr", rng.choice(COUNTS)
    if begun := rng.random() < 0.3:
        assert wait_for([fork(partial(contenders.run, target, 0), 0.0, folder / "begun")])[0] == (0, "")
    spread = rng.choice((0.0, 0.2, 1.0))
    is_real = rng.randrange(REAL_EVERY) == 0
    started = []
    for number in range(drivers):
        mode = rng.choice(((), ("--overwrite",), ("--resume",)))
        arguments = contenders.arguments(target, number, *mode)
        log, pause = folder / str(number), rng.random() * spread
        started.append(start_command(arguments, log) if is_real else fork(partial(main, arguments), pause, log))
    ended = wait_for(started)
    codes = Counter(code for code, _ in ended)
    assert set(codes) <= {0, 1}, codes
    errors = []
    for code, lines in ended:
        said = [line for line in lines.splitlines() if not (line.startswith(USUAL) or line.endswith(" .."))]  # stages
        assert len(said) == code, lines
        assert all(line.startswith("Error: ") for line in said), lines
        errors += said
    assert begun or codes[0], "no driver came through"
    contenders.winner(target)
    told = Counter(generic(line, folder) for line in errors)
    return told + Counter({f"rounds of {drivers} drivers": 1, "drivers": drivers, "drivers that ended well": codes[0]})


def generic(line: str, folder: Path) -> str:
    """A message without what differs from round to round."""
    return re.sub(r"model-\d+|[0-9a-f]{12,}", "..", line.replace(f"{folder}/", "").replace(str(folder.parent), ""))


def fork(act: Callable[[], object], pause: float, log: Path) -> tuple[int, Path]:
    """Do something in a copy of this process; returns its number, and the file of what it says."""
    pid = os.fork()
    if pid:
        return pid, log
    code = 99
    try:
        for stream, name in ((1, log.with_suffix(".out")), (2, log)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), stream)
        time.sleep(pause)
        act()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # the copy must not go on as the original
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start_command(arguments: list[str], log: Path) -> tuple[int, Path]:
    """Start a driver as a new process."""
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "volseg", *arguments], stdout=subprocess.DEVNULL, stderr=file)
    process.returncode = 0  # it is waited for by its number
    return process.pid, log


def wait_for(started: list[tuple[int, Path]]) -> list[tuple[int, str]]:
    """Exit codes and messages of drivers."""
    ended: dict[int, int] = {}
    deadline = time.monotonic() + LIMIT
    while len(ended) < len(started):
        for pid, _ in started:
            if pid not in ended and (status := os.waitpid(pid, os.WNOHANG))[0]:
                ended[pid] = os.waitstatus_to_exitcode(status[1])
        assert time.monotonic() < deadline, "a driver hangs"
        time.sleep(0.005)
    return [(ended[pid], log.read_text()) for pid, log in started]
