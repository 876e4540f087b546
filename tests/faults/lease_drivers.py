"""Drivers of two runs that can be told apart, each in a process that starts quickly, with leases of a second."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from volseg.conversion import plan
from volseg.storage import lease, object_client, read_marks, repeats
from volseg.storage.object_journal import ObjectSegments
from volseg.testing.factories import blobs, make_model, make_volume

if TYPE_CHECKING:
    from pathlib import Path

SHAPE, BLOCKS, RUNS = (4, 64, 64), 16, 2
OPTIONS = ["--block", "1,32,32", "--halo", "0,8,8", "--tile", "1,32,32", "--precision", "float32"]
SERIAL, WORKERS = ["--cluster", "serial"], ["--cluster", "local", "--workers", "2"]
TIMES = {"duration": 1.5, "beat": 0.1, "write": 1.0}
COPY = ["--shard", "1,32,32", "--chunk", "1,16,16", "--levels", "0"]
LOADED = (
    "tests.faults.lease_drivers",
    "torch",
    "volseg.conversion.run",
    "volseg.storage.writers.ome_zarr",
    "volseg.prediction.run",
    "volseg.prediction.worker",
    "volseg.models.model",
    "volseg.cli.main",
)
FORKS = multiprocessing.get_context("forkserver")
LIMIT = 120.0


class Runs:
    """Two runs whose maps differ in every block, and their calm maps."""

    marked = True
    """Whether the marks stay when a run is complete."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prepare()
        self.maps, self.digests = [], []
        for number in range(RUNS):
            target = folder / f"{type(self).__name__}-{number}.zarr"
            assert Driver(self.arguments(str(target), number, SERIAL), {}, folder / "log").wait() == 0
            self.maps.append(disk_content(target))
            self.digests.append({mark.block: mark.digest for mark in read_marks(target / "0" / ".volseg")})
        assert all(self.maps[0][key] != self.maps[1][key] for key in self.maps[0])
        assert len(self.maps[0]) == BLOCKS

    def prepare(self) -> None:
        """Make what is read: a volume and two models."""
        self.raw = make_volume(self.folder / "raw.zarr", SHAPE)
        self.models = [make_model(self.folder / f"model-{seed}.safetensors", seed=seed) for seed in range(RUNS)]

    def arguments(self, target: str, number: int, cluster: list[str], *more: str) -> list[str]:
        """Of the command line."""
        return ["predict", str(self.raw), target, "--model", str(self.models[number]), *OPTIONS, *cluster, *more]


class Copies(Runs):
    """Two conversions, which start in a fraction of the time."""

    marked = False

    def prepare(self) -> None:
        """Make two volumes."""
        self.sources = [
            make_volume(self.folder / f"source-{n}.zarr", SHAPE, voxels=blobs(SHAPE, seed=n) | 1) for n in range(RUNS)
        ]

    def arguments(self, target: str, number: int, cluster: list[str], *more: str) -> list[str]:
        return ["convert", str(self.sources[number]), target, *COPY, *cluster, *more]


class Driver:
    """A driver, in a process and a session of its own."""

    def __init__(self, arguments: list[str], variables: dict[str, str], log: Path) -> None:
        self.log = log
        self.process = FORKS.Process(target=drive, args=(arguments, variables, str(log)))
        self.process.start()

    def signal(self, number: int) -> None:
        """Send a signal to the driver alone."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid or 0, number)

    def wait(self, seconds: float = LIMIT) -> int:
        """Its exit code."""
        self.process.join(seconds)
        code = self.process.exitcode
        assert code is not None, f"a driver hangs: {self.log.read_text()}"
        return code

    def end(self) -> None:
        """Kill it and its workers."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid or 0, signal.SIGKILL)
        self.process.join()


def drive(arguments: list[str], variables: dict[str, str], log: str) -> None:
    """Run the command line, in a new process."""
    from volseg.cli.main import main

    os.setsid()
    os.environ.update(variables)
    number = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(number, stream)
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))  # noqa: SIM115
    ObjectSegments.seconds, plan._LEAST_BYTES = 0.1, 1
    lease.TIMES, lease._MARGIN = lease.LeaseTimes(**TIMES), 0.1
    object_client.WRITE_SECONDS, repeats._FIRST_PAUSE = TIMES["write"], 0.01
    main(arguments)


def disk_content(target: Path) -> dict[str, bytes]:
    """The shards of level 0 of a map on a disk."""
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in sorted((target / "0" / "c").rglob("*"))
        if path.is_file() and path.name.isdecimal()
    }
