"""Compares volseg end to end with other tools, on the same weights and sections; two threads for each.

python -m benchmarks.peers [RAW] [--only CASE]

RAW is a stack of sections that volseg reads (TIFF, folder, HDF5), 30 x 6 x 6 nm; by default EM is generated. volseg
reads Zarr, writes Zarr and uses Dask; the others have normalised sections in memory. The time before volseg's first
block (start-up, statistics, halo) is reported separately. Figures go to benchmarks/results/peers-CASE.json, and from
there to docs/benchmarks.md.
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

from benchmarks.adapters import IMPORT_ERRORS, PeerSettings, load_peer, versions
from benchmarks.cases import CASES, Case, case_model, make_source
from benchmarks.charts import draw_charts
from benchmarks.forward import mean_pass_seconds
from benchmarks.record import record
from benchmarks.tables import write_tables
from volseg.blocks import Box, Tiling, Zyx
from volseg.cluster import Executor, NullProgress, connect
from volseg.config import PredictConfig, validate
from volseg.models.model import Model, load_model_file
from volseg.ops import normalize
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.prediction.worker import RunRef, pipeline_of
from volseg.storage import VolumeRef, open_target, open_volume, read_record, read_table
from volseg.testing.doubles import address_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from volseg.prediction.summary import Summary
    from volseg.storage import RunRecord

THREADS = 2
WARM_UP = 2
"""Blocks before those that are timed: the first pass maps its activations apart, the second one fills the heap."""
HALO: Zyx = (0, 64, 64)
MAX_ROUNDS = 4
Rounds: TypeAlias = dict[str, list[float]]


@dataclass
class Bench:
    """Methods of one network on one volume; each round continues with the next sections.

    Attributes:
        source: the volume in Zarr.
        model: the model file.
        folder: of the targets.
        cluster: with one worker.
        address: of the cluster.
        sections: of volseg in a round.
        computed: voxels that each method computes per voxel that it writes.
    """

    source: Path
    model: Path
    folder: Path
    cluster: Executor
    address: str
    sections: int
    computed: dict[str, float] = field(default_factory=dict)

    def predict(self, target: Path, numbers: Iterable[int], **options: Any) -> Summary:
        """Predict some sections with `volseg.predict`; the run is planned for the whole volume."""
        _, y, x = open_volume(str(self.source)).shape
        values = {"source": str(self.source), "target": str(target), "model": str(self.model), "block": (1, y, x)}
        config = validate(PredictConfig, {**values, "cluster": self.address, **options}, "predict")
        summary = execute(*prepare(config), NullProgress(), numbers=numbers)
        if summary.failed:
            raise RuntimeError(f"blocks failed: {summary.failed}")
        return summary

    def volseg(self, name: str, **options: Any) -> tuple[Callable[[], float], RunRecord]:
        """Start a run; returns a function that measures the rate of its next sections in voxel/s, and its record."""
        target = self.folder / f"{name}.zarr"
        self.predict(target, (), **options)
        run_record = read_record(target)
        self.computed[name] = round(run_record.models[0].tiling.overhead, 3)
        reference = RunRef(
            str(target), run_record.digest, VolumeRef(open_volume(str(self.source)).location), (str(self.model),)
        )
        starts = count(0, WARM_UP + self.sections)

        def rate() -> float:
            # Workers cache few models; a run of many blocks opens its models once, and warms up with its first blocks.
            self.cluster.run_on_all(open_run, reference)
            first = next(starts)
            start = first + WARM_UP
            self.predict(target, range(first, start), resume=True, **options)
            summary = self.predict(target, range(start, start + self.sections), resume=True, **options)
            return summary.voxels / summary.seconds

        return rate, run_record

    def peer(self, name: str, model: Model, sections: NDArray[np.float32]) -> Callable[[], float]:
        """Load a peer; returns a function that measures its rate on the next section in voxel/s.

        Raises:
            ImportError: or another of IMPORT_ERRORS, if it cannot be used.
        """
        predict, network = load_peer(name, model, PeerSettings(threads=THREADS))
        numbers = count()

        def rate() -> float:
            z = next(numbers) % len(sections)
            section = sections[z : z + 1]
            network.voxels.clear()
            torch.set_num_threads(THREADS)
            start = time.perf_counter()
            predict(section)
            seconds = time.perf_counter() - start
            self.computed[name] = round(sum(network.voxels) / section.size, 3)
            return section.size / seconds

        return rate


def open_run(reference: RunRef) -> None:
    """Open a run and its models on a worker."""
    pipeline_of(reference)


def measure_in_turns(methods: dict[str, Callable[[], float]], seconds: float, max_rounds: int = MAX_ROUNDS) -> Rounds:
    """Measure each method once per round, in rotating order, until the time is up; at least one round."""
    rates: Rounds = {name: [] for name in methods}
    start = before = time.perf_counter()
    for number in range(max_rounds):
        names = list(methods)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            rates[name].append(methods[name]())
        now = time.perf_counter()
        if now - start + (now - before) > seconds:
            break
        before = now
    return rates


def compare(case: Case, source: Path, model_file: Path, folder: Path) -> dict[str, Any]:
    """Measure all methods of one network; rates in kvoxel/s, one per round."""
    methods: dict[str, Callable[[], float]] = {}
    left_out: dict[str, str] = {}
    start = time.perf_counter()
    process = ProcessPoolExecutor(1, get_context("spawn"))
    with connect("local", 1) as cluster, process:
        bench = Bench(source, model_file, folder / case.name, cluster, address_of(cluster), case.sections)
        methods["volseg"], run_record = bench.volseg("volseg", precision=case.precision)
        start_up = time.perf_counter() - start
        entry, precision = run_record.models[0], run_record.settings.precision
        for name, options in (
            ("volseg float32", {"halo": entry.halo, "precision": "float32"}),
            ("volseg halo 64", {"halo": HALO, "precision": case.precision}),
            ("volseg halo 64 float32", {"halo": HALO, "precision": "float32"}),
        ):
            methods[name], _ = bench.volseg(name, **options)
        model = load_model_file(model_file)
        constants = read_table(open_target(bench.folder / "volseg.zarr").journal, entry.statistics)
        sections = normalize(_voxels(source), constants)
        for name in case.peers:
            try:
                methods[name] = bench.peer(name, model, sections)
            except IMPORT_ERRORS as error:
                left_out[name] = str(error).splitlines()[0]
                sys.stdout.write(f"{name} is left out: {left_out[name]}\n")
        methods |= limits(process, model_file, run_record, THREADS)
        rates = measure_in_turns(methods, case.seconds, min(MAX_ROUNDS, len(sections) // (WARM_UP + case.sections)))
    return {
        "network": case.network, "arguments": case.arguments, "weights": case.packaged or "random",
        "sections": case.sections, "shape": list(sections.shape[1:]), "threads": run_record.settings.threads,
        "precision": precision, "rounding": entry.precision_loss, "halo": list(entry.halo), "tile": list(entry.tile),
        "torch": torch.__version__,
        "start_up_s": round(start_up, 1), "halo_measured": bool(entry.halo_curve), "left_out": left_out,
        "versions": versions([name for name in case.peers if name in rates]), "computed": bench.computed,
        "kvoxel_s": {method: [round(rate / 1e3, 2) for rate in rounds] for method, rounds in rates.items()},
    }  # fmt: skip


def _voxels(source: Path) -> NDArray[Any]:
    volume = open_volume(str(source))
    return volume.read(Box.of_shape(volume.shape))


def limits(
    process: ProcessPoolExecutor, model_file: Path, run_record: RunRecord, threads: int
) -> dict[str, Callable[[], float]]:
    """Functions that measure the bare forward pass in voxel/s: with volseg's halo, and without halo.

    It runs in a process of its own: its retained heap would speed up the peers, which run as their users run them.
    """
    entry, precision = run_record.models[0], run_record.settings.precision
    footprint, (_, side, _) = entry.footprint, entry.tile
    cores = sorted({side, max(side // 2 // footprint.stride[1] * footprint.stride[1], footprint.stride[1])})
    with_halo = [Tiling(footprint, (1, core, core), entry.halo) for core in cores]
    without_halo = [Tiling(footprint, (1, core, core), footprint.margin) for core in cores[:1]]

    def best(tilings: list[Tiling]) -> Callable[[], float]:
        def rate(tiling: Tiling) -> float:
            seconds = process.submit(mean_pass_seconds, model_file, precision, tiling, threads).result()
            return tiling.core[1] * tiling.core[2] / seconds

        return lambda: max(map(rate, tilings))

    return {"limit at this halo": best(with_halo), "limit without halo": best(without_halo)}


def main() -> None:
    """Measure, record, print, and update the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("raw", nargs="?", default="")
    parser.add_argument("--only", choices=[case.name for case in CASES])
    options = parser.parse_args()
    # The same two cores for all methods.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = name  # no halo from an earlier run
        data = make_source(folder / "raw.zarr", options.raw)
        for case in CASES:
            if options.only in (None, case.name):
                load = round(os.getloadavg()[0], 1)
                figures = compare(case, folder / "raw.zarr", case_model(case, folder), folder)
                record(f"peers-{case.name}", {"data": data, "load_before": load, **figures})
                medians = {method: median(rates) for method, rates in figures["kvoxel_s"].items()}
                sys.stdout.write(f"{case.name}: {medians}\n")
                sys.stdout.flush()
    draw_charts()
    write_tables()


if __name__ == "__main__":
    main()
