"""volseg end to end against what people use today, on the same weights and sections, by turns; two threads for each.

python -m benchmarks.peers [RAW] [--only CASE]

RAW is a stack of sections that volseg reads (TIFF, folder, HDF5), 30 x 6 x 6 nm; without it EM is generated. volseg
reads Zarr, writes Zarr and goes through Dask; the others have their sections in memory, normalised. What volseg does
before its first block (start-up, statistics, halo) is told apart. Figures go to benchmarks/results/peers-CASE.json,
and from there to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from benchmarks import limit
from benchmarks.cases import CASES, Case, make_source, model_of
from benchmarks.charts import draw_charts
from benchmarks.contenders import MISSING, Cut, made_ready, versions
from benchmarks.passes import seconds_of
from benchmarks.record import record
from benchmarks.tables import write_tables
from volseg.blocks import Box, Tiling, Zyx
from volseg.cluster import Executor, NullProgress, connect
from volseg.config import PredictConfig, validate
from volseg.models.model import Model, load_model_file
from volseg.ops import normalize
from volseg.prediction.prepare import prepare
from volseg.prediction.run import Summary, execute
from volseg.prediction.worker import RunRef, pipeline_of
from volseg.storage import open_volume, read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from volseg.storage import RunRecord

THREADS = 2
WARM_UP = 2
"""Blocks before those that are timed: the first pass makes its maps apart, the next one the heap that is kept."""
HALO: Zyx = (0, 64, 64)
MOST_ROUNDS = 4
Rounds: TypeAlias = dict[str, list[float]]


@dataclass
class Bench:
    """Where the contenders of one network meet; each goes on where it stopped the round before.

    Attributes:
        source: the volume in Zarr.
        model: the network's file.
        folder: for what is written.
        cluster: of one worker.
        address: how a run joins it.
        sections: that volseg does in a round.
        computed: voxels that each contender computes for each one that it writes.
    """

    source: Path
    model: Path
    folder: Path
    cluster: Executor
    address: str
    sections: int
    computed: dict[str, float] = field(default_factory=dict)

    def predict(self, target: Path, numbers: Iterable[int], **options: Any) -> Summary:
        """`volseg.predict` of some sections; what is decided for the run is decided for the whole volume."""
        _, y, x = open_volume(str(self.source)).shape
        values = {"source": str(self.source), "target": str(target), "model": str(self.model), "block": (1, y, x)}
        config = validate(PredictConfig, {**values, "cluster": self.address, **options}, "predict")
        summary = execute(*prepare(config), NullProgress(), numbers=numbers)
        if summary.failed:
            raise RuntimeError(f"blocks failed: {summary.failed}")
        return summary

    def volseg(self, name: str, **options: Any) -> tuple[Callable[[], float], RunRecord]:
        """A contender, begun: voxels written a second, from one block done to the last of the next that came back."""
        target = self.folder / f"{name}.zarr"
        self.predict(target, (), **options)
        frozen = read_record(target)
        self.computed[name] = round(frozen.models[0].tiling.overhead, 3)
        ticket = RunRef(str(target), frozen.digest, open_volume(str(self.source)).location, (str(self.model),))
        firsts = count(0, WARM_UP + self.sections)

        def rate() -> float:
            # Workers keep but a few models; a run of many blocks opens its own once, and warms up with its first.
            self.cluster.run_on_all(opened, ticket)
            first = next(firsts)
            timed = first + WARM_UP
            self.predict(target, range(first, timed), resume=True, **options)
            summary = self.predict(target, range(timed, timed + self.sections), resume=True, **options)
            return summary.voxels / summary.seconds

        return rate, frozen

    def peer(self, name: str, model: Model, sections: NDArray[np.float32]) -> Callable[[], float]:
        """A contender of somebody else's: voxels a second, a section each time.

        Raises:
            ImportError: or another of MISSING, where it cannot be used.
        """
        predict, seen = made_ready(name, model, Cut(threads=THREADS))
        numbers = count()

        def rate() -> float:
            at = next(numbers) % len(sections)
            section = sections[at : at + 1]
            seen.voxels.clear()
            torch.set_num_threads(THREADS)
            began = time.perf_counter()
            predict(section)
            seconds = time.perf_counter() - began
            self.computed[name] = round(sum(seen.voxels) / section.size, 3)
            return section.size / seconds

        return rate


def opened(ticket: RunRef) -> None:
    """Have a worker open a run, models and all."""
    pipeline_of(ticket)


def by_turns(contenders: dict[str, Callable[[], float]], seconds: float, most: int = MOST_ROUNDS) -> Rounds:
    """Each contender once a round, in another order every round; at least one round."""
    rates: Rounds = {name: [] for name in contenders}
    began = before = time.perf_counter()
    for number in range(most):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            rates[name].append(contenders[name]())
        now = time.perf_counter()
        if now - began + (now - before) > seconds:
            break
        before = now
    return rates


def compared(case: Case, source: Path, model_file: Path, folder: Path) -> dict[str, Any]:
    """All figures of one network; rates in kvoxel/s, one a round."""
    contenders: dict[str, Callable[[], float]] = {}
    left_out: dict[str, str] = {}
    began = time.perf_counter()
    alone = ProcessPoolExecutor(1, get_context("spawn"))
    with connect("local", 1) as cluster, alone:
        bench = Bench(source, model_file, folder / case.name, cluster, limit.address_of(cluster), case.sections)
        contenders["volseg"], frozen = bench.volseg("volseg", precision=case.precision)
        start_up = time.perf_counter() - began
        entry, precision = frozen.models[0], frozen.settings.precision
        for name, options in (
            ("volseg float32", {"halo": entry.halo, "precision": "float32"}),
            ("volseg halo 64", {"halo": HALO, "precision": case.precision}),
            ("volseg halo 64 float32", {"halo": HALO, "precision": "float32"}),
        ):
            contenders[name], _ = bench.volseg(name, **options)
        model = load_model_file(model_file)
        sections = normalize(_voxels(source), entry.statistics)
        for name in case.peers:
            try:
                contenders[name] = bench.peer(name, model, sections)
            except MISSING as error:
                left_out[name] = str(error).splitlines()[0]
                sys.stdout.write(f"{name} is left out: {left_out[name]}\n")
        contenders |= limits(alone, model_file, frozen, THREADS)
        rates = by_turns(contenders, case.seconds, min(MOST_ROUNDS, len(sections) // (WARM_UP + case.sections)))
    return {
        "network": case.network, "arguments": case.arguments, "weights": case.packaged or "random",
        "sections": case.sections, "shape": list(sections.shape[1:]), "threads": frozen.settings.threads,
        "precision": precision, "rounding": entry.precision_loss, "halo": list(entry.halo), "tile": list(entry.tile),
        "torch": torch.__version__,
        "start_up_s": round(start_up, 1), "halo_measured": bool(entry.halo_curve), "left_out": left_out,
        "versions": versions([name for name in case.peers if name in rates]), "computed": bench.computed,
        "kvoxel_s": {name: [round(rate / 1e3, 2) for rate in each] for name, each in rates.items()},
    }  # fmt: skip


def _voxels(source: Path) -> NDArray[Any]:
    volume = open_volume(str(source))
    return volume.read(Box.of_shape(volume.shape))


def limits(
    process: ProcessPoolExecutor, model_file: Path, frozen: RunRecord, threads: int
) -> dict[str, Callable[[], float]]:
    """The bare forward pass: voxels that count a second at volseg's halo, and all that are computed without one.

    It has a process of its own: pages that it keeps would be there for the peers, who are run as their users run them.
    """
    entry, precision = frozen.models[0], frozen.settings.precision
    footprint, (_, side, _) = entry.footprint, entry.tile
    cores = sorted({side, max(side // 2 // footprint.stride[1] * footprint.stride[1], footprint.stride[1])})
    useful = [Tiling(footprint, (1, core, core), entry.halo) for core in cores]
    whole = [Tiling(footprint, (1, core, core), footprint.margin) for core in cores[:1]]

    def best(tilings: list[Tiling]) -> Callable[[], float]:
        def of(tiling: Tiling) -> float:
            seconds = process.submit(seconds_of, model_file, precision, tiling, threads).result()
            return tiling.core[1] * tiling.core[2] / seconds

        return lambda: max(map(of, tilings))

    return {"limit at this halo": best(useful), "limit without halo": best(whole)}


def main() -> None:
    """Measure, record, tell; make the page anew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("raw", nargs="?", default="")
    parser.add_argument("--only", choices=[case.name for case in CASES])
    asked = parser.parse_args()
    # Two cores for everybody, whatever the machine has.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = name  # no halo that an earlier run measured
        data = make_source(folder / "raw.zarr", asked.raw)
        for case in CASES:
            if asked.only in (None, case.name):
                load = round(os.getloadavg()[0], 1)
                figures = compared(case, folder / "raw.zarr", model_of(case, folder), folder)
                record(f"peers-{case.name}", {"data": data, "load_before": load, **figures})
                middle = {each: median(rates) for each, rates in figures["kvoxel_s"].items()}
                sys.stdout.write(f"{case.name}: {middle}\n")
                sys.stdout.flush()
    draw_charts()
    write_tables()


if __name__ == "__main__":
    main()
