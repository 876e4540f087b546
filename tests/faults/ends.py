"""Signals at any moment: the run ends, quietly, leaves nothing behind, and is finished by --resume."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.faults.campaign import Campaign, run_campaign
from tests.faults.contenders import content
from tests.faults.processes import LIMIT, handles_signals, lock_is_free, members, said, start, wait_until
from volseg.testing.factories import make_model, make_volume

if TYPE_CHECKING:
    import random
    from pathlib import Path

SHAPE = (4, 64, 96)
OPTIONS = ["--block", "1,32,32", "--halo", "0,8,8", "--tile", "1,32,32", "--precision", "float32"]
KINDS = {
    "Ctrl-C": [signal.SIGINT],
    "SIGTERM": [signal.SIGTERM],
    "SIGTERM thrice": [signal.SIGTERM] * 3,
    "SIGHUP": [signal.SIGHUP],
    "SIGUSR1": [signal.SIGUSR1],
    "SIGHUP, SIGTERM, Ctrl-C": [signal.SIGHUP, signal.SIGTERM, signal.SIGINT],
    "SIGKILL": [signal.SIGKILL],
}
STOPPED = "Stopped."


class Signalled:
    """A run that gets signals, and its map without them."""

    def __init__(self, folder: Path) -> None:
        self.raw = make_volume(folder / "raw.zarr", SHAPE)
        self.model = make_model(folder / "model.safetensors")
        self.alone, self.seconds = {}, {}
        for cluster in ("serial", "local"):
            started, target = time.monotonic(), folder / f"{cluster}.zarr"
            self.finish(target, cluster)
            self.alone[cluster], self.seconds[cluster] = content(target), time.monotonic() - started

    def arguments(self, target: Path, cluster: str) -> list[str]:
        """Of the command line; --resume starts a run too."""
        return ["predict", str(self.raw), str(target), "--model", str(self.model), *OPTIONS, "--resume",
                "--cluster", cluster]  # fmt: skip

    def finish(self, target: Path, cluster: str) -> None:
        """Run to the end."""
        log = target.with_suffix(".log")
        process = start(self.arguments(target, cluster), log)
        assert process.wait(timeout=LIMIT) == 0, log.read_text()
        assert said(log) == [], said(log)

    def play(self, rng: random.Random, folder: Path) -> Counter[str]:
        """One round."""
        target, log = folder / "t.zarr", folder / "log"
        cluster, kind = rng.choice(("serial", "local", "local")), rng.choice(list(KINDS))
        to_all = rng.random() < 0.5 and kind != "SIGKILL"  # a terminal and a batch system signal every process
        process = start(self.arguments(target, cluster), log)
        wait_until(lambda: handles_signals(process.pid) or process.poll() is not None, "start")
        time.sleep(rng.random() * self.seconds[cluster])
        for number in KINDS[kind]:
            if process.poll() is None:
                (os.killpg if to_all else os.kill)(process.pid, number)
                time.sleep(rng.random() * 0.3)
        code = process.wait(timeout=LIMIT)
        self.check(target, log, code, kind)
        wait_until(lambda: not members(process.pid), f"the end of {members(process.pid)}", 60)
        assert lock_is_free(target)
        self.finish(target, cluster)
        assert content(target) == self.alone[cluster], "other bytes"
        return Counter({f"{kind}: exit code {code}": 1, f"{cluster} runs": 1})

    def check(self, target: Path, log: Path, code: int, kind: str) -> None:
        """What a run that was not killed says and leaves."""
        lines = said(log)
        if kind == "SIGKILL":
            assert code in (0, -signal.SIGKILL), log.read_text()
            return
        assert code in (0, 4), f"exit code {code}: {log.read_text()}"
        assert len(lines) == bool(code), log.read_text()
        assert all(line.startswith(STOPPED) for line in lines), lines
        left = [path.name for path in target.parent.iterdir() if path not in (target, log)]
        assert not left, left
        assert not list(target.rglob(".partial")), kind


def campaign(seed: int, rounds: int, folder: Path) -> Campaign:
    """Play rounds of one signalled run each."""
    return run_campaign("ends", seed, rounds, folder, Signalled(folder).play)
