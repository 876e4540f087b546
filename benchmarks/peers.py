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
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from benchmarks import limit
from benchmarks.cases import CASES, Case, make_source, model_of
from benchmarks.charts import draw_charts
from benchmarks.contenders import MISSING, Cut, made_ready, versions
from benchmarks.record import record
from benchmarks.tables import write_tables
from volseg.blocks import Box, Tiling, Zyx
from volseg.cluster import Quiet, connect
from volseg.models.model import Model, load_model_file
from volseg.ops import normalize
from volseg.prediction import Summary, execute, prepare
from volseg.runfiles import PredictConfig, checked
from volseg.storage import open_volume, read_record

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from volseg.storage import RunRecord

THREADS = 2
HALO: Zyx = (0, 64, 64)
MOST_ROUNDS = 5
Rounds: TypeAlias = dict[str, list[float]]


@dataclass
class Bench:
    """Where the contenders of one network meet.

    Attributes:
        source: the volume in Zarr.
        model: the network's file.
        folder: for what is written.
        cluster: address of a scheduler with one worker.
        sections: that each contender does.
        computed: voxels that each contender computes for each one that it writes.
    """

    source: Path
    model: Path
    folder: Path
    cluster: str
    sections: int
    computed: dict[str, float] = field(default_factory=dict)

    def predict(self, **options: Any) -> tuple[Summary, RunRecord]:
        """`volseg.predict` of the first sections; what is decided for the run is decided for the whole volume."""
        _, y, x = open_volume(str(self.source)).shape
        values = {
            "source": str(self.source), "target": str(self.folder / "membrane.zarr"), "model": str(self.model),
            "block": (1, y, x), "overwrite": True, "cluster": self.cluster, **options,
        }  # fmt: skip
        summary = execute(prepare(checked(PredictConfig, values, "predict")), Quiet(), numbers=range(self.sections))
        if summary.failed:
            raise RuntimeError(f"blocks failed: {summary.failed}")
        return summary, read_record(Path(summary.target))

    def volseg(self, name: str, **options: Any) -> Callable[[], float]:
        """A contender: voxels written a second, from the first block sent to the last that came back."""

        def rate() -> float:
            summary, frozen = self.predict(**options)
            self.computed[name] = round(frozen.models[0].tiling.overhead, 3)
            return summary.voxels / summary.seconds

        return rate

    def peer(self, name: str, model: Model, sections: NDArray[np.float32]) -> Callable[[], float]:
        """A contender of somebody else's.

        Raises:
            ImportError: or another of MISSING, where it cannot be used.
        """
        predict, seen = made_ready(name, model, Cut(threads=THREADS))

        def rate() -> float:
            seen.voxels.clear()
            torch.set_num_threads(THREADS)
            began = time.perf_counter()
            predict(sections)
            seconds = time.perf_counter() - began
            self.computed[name] = round(sum(seen.voxels) / sections.size, 3)
            return sections.size / seconds

        return rate


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
    bench = Bench(source, model_file, folder, "local", case.sections)
    began = time.perf_counter()
    summary, frozen = bench.predict(workers=1)
    start_up = time.perf_counter() - began - summary.seconds
    entry, precision = frozen.models[0], frozen.settings.precision
    model, sections = load_model_file(model_file), _normalised(source, entry.statistics, case.sections)
    with connect("local", 1) as cluster:
        bench.cluster = limit.address_of(cluster)
        contenders: dict[str, Callable[[], float]] = {
            "volseg": bench.volseg("volseg"),
            "volseg float32": bench.volseg("volseg float32", halo=entry.halo, precision="float32"),
            "volseg halo 64": bench.volseg("volseg halo 64", halo=HALO),
            "volseg halo 64 float32": bench.volseg("volseg halo 64 float32", halo=HALO, precision="float32"),
        }
        left_out: dict[str, str] = {}
        for name in case.peers:
            try:
                contenders[name] = bench.peer(name, model, sections)
            except MISSING as error:
                left_out[name] = str(error).splitlines()[0]
                sys.stdout.write(f"{name} is left out: {left_out[name]}\n")
        contenders |= limits(model, frozen, THREADS)
        rates = by_turns(contenders, case.seconds)
    return {
        "network": case.network, "arguments": case.arguments, "weights": case.packaged or "random",
        "sections": case.sections, "shape": list(sections.shape[1:]), "threads": frozen.settings.threads,
        "precision": precision, "halo": list(entry.halo), "tile": list(entry.tile), "torch": torch.__version__,
        "start_up_s": round(start_up, 1), "halo_measured": bool(entry.halo_curve), "left_out": left_out,
        "versions": versions([name for name in case.peers if name in rates]), "computed": bench.computed,
        "kvoxel_s": {name: [round(rate / 1e3, 2) for rate in each] for name, each in rates.items()},
    }  # fmt: skip


def limits(model: Model, frozen: RunRecord, threads: int) -> dict[str, Callable[[], float]]:
    """The bare forward pass: voxels that count a second at volseg's halo, and all that are computed without one."""
    entry, precision = frozen.models[0], frozen.settings.precision
    footprint, (_, side, _) = entry.footprint, entry.tile
    cores = sorted({side, max(side // 2 // footprint.stride[1] * footprint.stride[1], footprint.stride[1])})
    useful = [Tiling(footprint, (1, core, core), entry.halo) for core in cores]
    whole = [Tiling(footprint, (1, core, core), footprint.margin) for core in cores[:1]]

    def best(tilings: list[Tiling]) -> Callable[[], float]:
        passes = [(t, limit.forward_pass(model, precision, t, threads)) for t in tilings]
        return lambda: max(t.core[1] * t.core[2] / seconds() for t, seconds in passes)

    return {"limit at this halo": best(useful), "limit without halo": best(whole)}


def _normalised(source: Path, statistics: Any, sections: int) -> NDArray[np.float32]:
    volume = open_volume(str(source))
    return normalize(volume.read(Box((0, 0, 0), (sections, *volume.shape[1:]))), statistics)


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
