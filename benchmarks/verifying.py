"""Measures the speed of verification on one core, beside reading the same shards with zarr; files are in memory.

python -m benchmarks.verifying
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import zarr

from benchmarks.record import record
from benchmarks.writing import cpu_seconds
from volseg.ops import to_uint8
from volseg.prediction.verification.shards import BlockRange, VerifyRef, check_range
from volseg.storage import Journal, Mark, open_target, read_mark_table
from volseg.testing.factories import blobs
from volseg.testing.targets import make_target, noise_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.storage import MarkTable, RunRecord

SHAPE, BLOCK, CHUNK = (64, 1024, 1024), (16, 1024, 1024), (16, 128, 128)
ROUNDS = 15


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def write_map(path: Path, run: RunRecord) -> MarkTable:
    """Write and mark a map of smooth tissue with noise; returns its marks."""
    smooth = np.tile(blobs((1, 256, 256))[0], (4, 4)).astype(np.float32) / 255
    target = open_target(make_target(path, run, unmarked=set(run.grid.numbers())))
    with Journal(target.journal) as journal:
        for number in run.grid.numbers():
            noise = np.random.default_rng(number).normal(0, 0.004, BLOCK).astype(np.float32)
            digest, size, files = target.write(run.grid.box(number), to_uint8(np.clip(smooth + noise, 0, 1)))
            journal.mark(Mark(number, digest, 1, "here", 0.1, "", size, files))
    target.remove_partials()
    return read_mark_table(target.journal, run.pyramid)


def main() -> None:
    """Measure by turns, record, print."""
    run = noise_record(SHAPE, BLOCK, chunk=CHUNK)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "t.zarr"
        table = write_map(path, run)
        blocks = BlockRange(0, run.grid.count, table.entries.tobytes())
        array = zarr.open_array(path / "0", mode="r")

        def plain() -> None:
            check(deep=False)

        def deep() -> None:
            check(deep=True)

        def check(*, deep: bool) -> None:
            report = check_range(blocks, VerifyRef(str(path), run.digest, deep, complete=True))
            if report.damaged or report.checked != run.grid.count:
                raise AssertionError(f"a sound target is not found so: {report}")

        def read() -> None:
            for number in run.grid.numbers():
                _ = array[run.grid.box(number).slices]

        plain(), deep(), read()
        cpu = [tuple(cpu_seconds(work) for work in (plain, deep, read)) for _ in range(ROUNDS)]
        wall = [tuple(seconds(work) for work in (plain, deep, read)) for _ in range(ROUNDS)]
    stored, decoded = int(table.entries["bytes"].sum()), run.grid.count * int(np.prod(BLOCK))
    figures = {
        "blocks": run.grid.count,
        "block": BLOCK,
        "stored_mib": round(stored / 2**20, 1),
        "voxels_mib": round(decoded / 2**20, 1),
        "plain_gb_s": round(stored / median(p for p, _, _ in cpu) / 1e9, 2),
        "deep_gb_s": round(decoded / median(d for _, d, _ in cpu) / 1e9, 2),
        "zarr_gb_s": round(decoded / median(z for _, _, z in cpu) / 1e9, 2),
        "plain_of_zarr_cpu": round(median(p / z for p, _, z in cpu), 3),
        "deep_of_zarr_cpu": round(median(d / z for _, d, z in cpu), 3),
        "plain_of_zarr_wall": round(median(p / z for p, _, z in wall), 3),
        "deep_of_zarr_wall": round(median(d / z for _, d, z in wall), 3),
        "limits": {"plain_gb_s": 1.0, "deep_gb_s": 0.4},
    }
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('verifying', figures)}\n")


if __name__ == "__main__":
    main()
