"""SIGKILL for workers, nannies, schedulers, drivers, alone and together: --resume ends in the bytes of a calm run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.faults.campaign import Campaign, run_campaign
from tests.faults.contenders import content
from tests.faults.processes import LIMIT, lock_is_free, members, start, wait_until, workers
from volseg.cluster.executor import SLOTS
from volseg.cluster.submission import TASKS_PER_SLOT
from volseg.storage import read_marks
from volseg.testing.factories import blobs, create_target_like, make_model, make_volume

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

SHAPE, CHEAP, REAL = (12, 96, 128), (1, 32, 32), (1, 96, 128)
KILLS = 10
"""In one round, which is one map."""
REAL_EVERY = 10
"""One round in so many has a FusionNet as in use, and blocks of seconds."""
WORKERS = 2
WINDOW = TASKS_PER_SLOT * SLOTS * WORKERS
"""Blocks in flight, which a kill of the driver may lose."""
LOCAL = ("worker",) * 3 + ("all workers",) * 2 + ("driver", "driver and worker")
JOINED = ("worker",) * 3 + ("nanny",) * 2 + ("scheduler", "driver", "scheduler and worker", "everything")
"""Those after which a run goes on more often, because a start takes seconds."""

ENDING = ("driver", "scheduler", "everything")
"""Kills after which the run cannot go on."""


class Killed:
    """Runs that are killed, and their maps if they are not."""

    def __init__(self, folder: Path) -> None:
        self.raw = make_volume(folder / "raw.zarr", SHAPE, voxels=blobs(SHAPE), chunk=(4, 96, 128))
        sizes = {
            "cheap": ({"width": 1, "depth": 1}, CHEAP, "0,4,4"),
            "real": ({"width": 8, "depth": 4}, REAL, "0,32,32"),
        }
        self.options, self.calm = {}, {}
        for kind, (arguments, block, halo) in sizes.items():
            model = make_model(folder / f"{kind}.safetensors", arguments=arguments)
            size = ",".join(map(str, block))
            self.options[kind] = ["--model", str(model), "--block", size, "--halo", halo, "--precision", "float32"]
            self.calm[kind] = folder / f"{kind}.zarr"
            self.finish(kind, self.calm[kind], folder / "log", "--cluster", "serial")

    def arguments(self, kind: str, target: Path, *more: str) -> list[str]:
        """Of the command line."""
        return ["predict", str(self.raw), str(target), *self.options[kind], "--resume", *more]

    def finish(self, kind: str, target: Path, log: Path, *more: str) -> None:
        """Run to the end."""
        process = start(self.arguments(kind, target, *more), log)
        assert process.wait(timeout=LIMIT) == 0, log.read_text()

    def play(self, rng: random.Random, folder: Path) -> Counter[str]:
        """One round: kill until the kills are used up or the map is done, then finish it."""
        kind = "real" if rng.randrange(REAL_EVERY) == 0 else "cheap"
        target, log, counts = folder / "t.zarr", folder / "log", Counter({f"{kind} maps": 1})
        create_target_like(target, self.calm[kind])  # the frozen record: same tiles and threads
        code, in_flight = 1, 0
        while counts["kills"] < KILLS and code:
            cluster = None if rng.random() < 0.5 else Joined(folder)
            process = start(
                self.arguments(kind, target, *([] if cluster is None else ["--cluster", cluster.address])), log
            )
            try:
                for what in kills(rng, target, process, cluster, KILLS - counts["kills"]):
                    counts += Counter({f"kills of {what}": 1, "kills": 1, "kills with a real network": kind == "real"})
                    in_flight += WINDOW
                code = process.wait(timeout=LIMIT)
            finally:
                end(process)
                if cluster is not None:
                    cluster.close()
            assert code in (0, 1, 3, -signal.SIGKILL), log.read_text()
            assert code < 0 or "Traceback" not in log.read_text(), log.read_text()
        wait_until(lambda: lock_is_free(target), "the release of the lock")
        self.finish(kind, target, log, "--cluster", "serial")
        assert content(target) == content(self.calm[kind]), "other bytes"
        numbers = [mark.block for mark in read_marks(target / "0" / ".volseg")]
        twice = len(numbers) - len(set(numbers))
        assert twice <= in_flight, f"{twice} blocks have two marks, {in_flight} could be in flight"
        return counts + Counter({"blocks with two marks": twice, "maps with equal bytes": 1})


class Joined:
    """A scheduler and its workers, each with a nanny, in a session of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        python = [sys.executable, "-m"]
        scheduler = [*python, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        log = folder / "scheduler.log"
        with log.open("w") as file:
            self.scheduler = subprocess.Popen(scheduler, stderr=file, start_new_session=True, cwd=folder)
        wait_until(lambda: "Scheduler at:" in log.read_text(), "a scheduler")
        self.address = next(line.split()[-1] for line in log.read_text().splitlines() if "Scheduler at:" in line)
        self.nanny = self.start_workers()

    def start_workers(self) -> subprocess.Popen[bytes]:
        """Start the workers, as a batch system does again."""
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--nthreads", str(SLOTS),
                   "--resources", f"slot={SLOTS}", "--memory-limit", "0", "--no-dashboard",
                   "--nworkers", str(WORKERS)]  # fmt: skip
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=self.folder
        )

    def close(self) -> None:
        """End all processes."""
        for process in (self.scheduler, self.nanny):
            end(process)


def kills(
    rng: random.Random, target: Path, process: subprocess.Popen[bytes], cluster: Joined | None, most: int
) -> Iterator[str]:
    """Kill processes of a run until it ends, and yield what was killed."""
    for _ in range(most):
        what, before = rng.choice(LOCAL if cluster is None else JOINED), marked(target)
        wait_for_progress(target, process, rng)
        if process.poll() is not None:
            return
        for pid in (victims := victims_of(what, process, cluster)):
            kill(pid)
        if victims:
            yield what
        if any(part in what for part in ENDING):
            return
        if what == "nanny" and cluster is not None:
            end(cluster.nanny)
            cluster.nanny = cluster.start_workers()
        assert before <= marked(target), "marks were lost"


def victims_of(what: str, process: subprocess.Popen[bytes], cluster: Joined | None) -> list[int]:
    """Processes to kill."""
    at_work = workers(process.pid if cluster is None else cluster.nanny.pid)
    victims = [process.pid] if "driver" in what or what == "everything" else []
    if cluster is not None:
        victims += [cluster.scheduler.pid] if "scheduler" in what or what == "everything" else []
        victims += [cluster.nanny.pid] if what in ("nanny", "everything") else []
    return victims + (at_work if what in ("all workers", "everything") else at_work[:1] if "worker" in what else [])


def kill(pid: int) -> None:
    """SIGKILL for a process that may be gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a session."""
    for pid in members(process.pid):
        kill(pid)
    process.wait()


def marked(target: Path) -> set[int]:
    """Blocks that have a mark."""
    return {mark.block for mark in read_marks(target / "0" / ".volseg")}


def wait_for_progress(target: Path, process: subprocess.Popen[bytes], rng: random.Random) -> None:
    """Wait for more marks, or a while."""
    goal, until = len(marked(target)) + rng.randrange(1, 12), time.monotonic() + 3 + 20 * rng.random()
    while process.poll() is None and time.monotonic() < until and len(marked(target)) < goal:
        time.sleep(0.02)


def campaign(seed: int, rounds: int, folder: Path) -> Campaign:
    """Play rounds of ten kills each."""
    return run_campaign("kills", seed, rounds, folder, Killed(folder).play)
