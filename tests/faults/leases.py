"""Drivers that are killed or stopped while others take over, and writes that land late: one map, whole, of one run.

On a disk a lock keeps the others out. In a store it is the lease, with times that are a thirtieth of the usual ones;
of its writes some land seconds after their client has given them up, and some requests fail.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request as Call
from urllib.request import urlopen

import volseg
from tests.faults.campaign import Campaign, run_campaign
from tests.faults.lease_drivers import (
    BLOCKS,
    FORKS,
    LIMIT,
    LOADED,
    RUNS,
    SERIAL,
    TIMES,
    WORKERS,
    Copies,
    Driver,
    Runs,
    disk_content,
)
from tests.object_fakes import ObjectServer, object_server, s3_variables
from volseg.storage import object_client, read_marks, target_path
from volseg.storage.target_store import target_store
from volseg.storage.unfinished import unfinished_volume
from volseg.testing.object_servers import has_moto, moto_server

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.object_fakes import Request, Write

LATE, FAILED, LATEST = 0.08, 0.03, 4.0
"""Shares of the puts that land late, and of the requests that fail; seconds by which the first do so at most."""
DISK_EVERY, MOTO_EVERY, WORKERS_EVERY, PREDICT_EVERY = 3, 4, 12, 8
OTHER_RUN = re.compile(r"another|other|record")
_JOURNAL, _EPOCH = re.compile(r"/journal-\d+-\d+-\d+\.marks$"), re.compile(r"/epoch-\d+\.json$")


def campaign(seed: int, rounds: int, folder: Path) -> Campaign:
    """Play rounds, one in three on a disk, of the others some on moto where it is."""
    FORKS.set_forkserver_preload(list(LOADED))
    with ExitStack() as stack:
        moto = stack.enter_context(moto_server()) if has_moto() else None
        return run_campaign("leases", seed, rounds, folder, partial(play, [Runs(folder), Copies(folder)], moto))


@dataclass
class Faults:
    """What happens to the requests of a round; nothing in its last start."""

    rng: random.Random
    is_on: bool = True
    counts: Counter[str] = field(default_factory=Counter)

    def __call__(self, request: Request) -> str | None:
        """Trouble for a request."""
        drawn = self.rng.random()
        if self.is_on and request.method == "PUT" and drawn < LATE:
            self.counts["writes that landed late"] += 1
            return f"late:{self.rng.uniform(0.0, LATEST)}"
        if self.is_on and drawn > 1 - FAILED:
            self.counts["requests that failed"] += 1
            return self.rng.choice(("500", "503", "reset", "lost", "half"))
        return None


def play(both: list[Runs], moto: str | None, rng: random.Random, folder: Path) -> Counter[str]:
    """One round."""
    runs = both[rng.randrange(PREDICT_EVERY) != 0]
    kind = Counter({f"rounds of {'predict' if runs.marked else 'convert'}": 1})
    if rng.randrange(DISK_EVERY) == 0:
        return kind + play_on_disk(runs, rng, folder)
    return kind + play_in_store(runs, moto if rng.randrange(MOTO_EVERY) == 0 else None, rng, folder)


def play_on_disk(runs: Runs, rng: random.Random, folder: Path) -> Counter[str]:
    """One round on a disk, where nobody is stopped: the lock of a stopped driver is held."""
    target = folder / "t.zarr"
    begun = unfinished_volume(target)
    assert isinstance(begun, Path)

    def done() -> int:
        folders = (walked for place in (target, begun) for walked in os.walk(place / "0" / "c"))
        return sum(name.isdecimal() for _, _, names in folders for name in names)

    counts, number = contend(runs, rng, folder, (str(target), {}), done)
    assert disk_content(target) == runs.maps[number], "other bytes on the disk"
    check_marks(runs, number, str(target))
    return counts + Counter({"rounds on a disk": 1})


def play_in_store(runs: Runs, moto: str | None, rng: random.Random, folder: Path) -> Counter[str]:
    """One round in a store: of this process, or on moto."""
    upstream = None
    if moto is not None:
        host, port = moto.removeprefix("http://").split(":")
        upstream = (host, int(port))
        urlopen(Call(f"{moto}/{folder.name}", method="PUT")).close()
    with object_server(upstream) as server:
        server.trouble = faults = Faults(rng)
        target, variables = f"s3://{folder.name}/t.zarr", s3_variables(server.url)
        counts, number = contend(runs, rng, folder, (target, variables), partial(shards_landed, server), faults)
        server.settle()
        os.environ.update(variables)
        for cached in (object_client.reading_client, object_client.writing_client, target_store):
            cached.cache_clear()
        found = {key: (target_path(target) / key).read_bytes() for key in runs.maps[number]}
        assert found == runs.maps[number], "other bytes in the store"
        check_marks(runs, number, target)
        counts += check_log(runs, server.log) + faults.counts
    return counts + Counter({"rounds on moto" if moto else "rounds in a store": 1})


def contend(
    runs: Runs,
    rng: random.Random,
    folder: Path,
    where: tuple[str, dict[str, str]],
    done: Callable[[], int],
    faults: Faults | None = None,
) -> tuple[Counter[str], int]:
    """Start drivers, kill or stop each at a random block, and let the last one end.

    Returns:
        Counts, and the number of the run whose map it must be.
    """
    counts: Counter[str] = Counter()
    target, variables = where
    started: list[Driver] = []
    number, log = 0, folder / "log"
    try:
        for start in range(rng.choice((1, 1, 2, 3))):
            more = "--resume"
            if start and rng.random() < 0.4:
                number, more = (number + 1) % RUNS, "--overwrite"
                counts["overwritten meanwhile"] += 1
            cluster = WORKERS if rng.randrange(WORKERS_EVERY) == 0 else SERIAL
            driver = Driver(runs.arguments(target, number, cluster, more), variables, log)
            started.append(driver)
            landed, wanted = done(), rng.randrange(1, BLOCKS)
            deadline = time.monotonic() + LIMIT
            while driver.process.is_alive() and done() < landed + wanted:
                assert time.monotonic() < deadline, "no block is done"
                time.sleep(0.002)
            time.sleep(rng.choice((0.0, rng.uniform(0.0, 0.1))))
            is_stopped = faults is not None and rng.random() < 0.4
            driver.signal(signal.SIGSTOP if is_stopped else signal.SIGKILL)
            counts["drivers stopped" if is_stopped else "drivers killed"] += 1
        counts += finish(runs, (target, number), variables, log, faults, started)
    finally:
        for driver in started:
            driver.end()
    text = log.read_text()
    assert "Traceback" not in text, text
    return counts, number


def finish(
    runs: Runs,
    arguments: tuple[str, int],
    variables: dict[str, str],
    log: Path,
    faults: Faults | None,
    others: list[Driver],
) -> Counter[str]:
    """Start the last driver, until one ends well; those that were stopped go on when it has taken over."""
    counts: Counter[str] = Counter()
    target, number = arguments
    more, deadline = "--resume", time.monotonic() + LIMIT
    while True:
        last = Driver(runs.arguments(target, number, SERIAL, more), variables, log)
        last.process.join(TIMES["duration"] + 0.5)
        for driver in others:
            driver.signal(signal.SIGCONT)
        code, text = last.wait(), log.read_text()
        if code == 0:
            return counts
        said = text.rstrip().splitlines()[-1]
        assert code == 1, (code, text)
        assert said.startswith("Error: "), text
        assert time.monotonic() < deadline, text
        counts["starts refused"] += 1
        for driver in others:  # one of those that were stopped may have come first
            driver.process.join(LIMIT)
        if OTHER_RUN.search(said):  # the start that overwrites died before it began
            more = "--overwrite"
        if faults is not None:
            faults.is_on = False


def check_marks(runs: Runs, number: int, target: str) -> None:
    """Every block has a mark, and each has the digest of the run's calm map; those of a conversion are deleted."""
    if not runs.marked:
        return
    marks = {mark.block: mark.digest for mark in read_marks(target_path(target) / "0" / ".volseg")}
    assert marks == runs.digests[number], "other marks"
    assert volseg.verify(target, cluster="serial", seams=False).sound, "it is not sound"


def check_log(runs: Runs, log: list[Write]) -> Counter[str]:
    """What the server saw: nothing of another run landed on a shard of the owner, and no late mark was accepted."""
    counts: Counter[str] = Counter()
    landed: dict[str, float] = {}
    owner: dict[str, int] = {}
    for write in log:
        key, is_put = write.request.key, write.request.method == "PUT" and write.status < 300
        if write.request.method == "PUT" and write.late and "/c/" in key:
            counts["late shards refused" if write.status == 412 else "late shards landed"] += 1
        if write.request.method == "POST" and b"/c/" in write.request.body:
            owner.clear()  # an overwriting start has deleted shards
        if not is_put:
            continue
        landed.setdefault(key, write.at)
        name = key.removeprefix("t.zarr/")
        run = next((n for n, shards in enumerate(runs.maps) if shards.get(name) == write.request.body), None)
        if run is not None:
            was = owner.get(key)
            conditional = "if-match" in write.request.headers or "if-none-match" in write.request.headers
            assert conditional, f"{key} was put without a condition"
            assert was is None or was == run or not write.late, f"a late shard landed on {key}"
            owner[key] = run
        if _EPOCH.search(key):
            accepted = json.loads(write.request.body)["accepted"]
            late = [a for a in accepted if landed.get(f"{key.rpartition('/')[0]}/{a}", float("inf")) > write.at]
            assert not late, f"{key} accepts {late}, which had not landed"
            counts["epochs"] += 1
        counts["flushes of marks"] += bool(_JOURNAL.search(key))
    return counts


def shards_landed(server: ObjectServer) -> int:
    """Puts of shards so far."""
    return sum(write.request.method == "PUT" and "/c/" in write.request.key for write in list(server.log))
