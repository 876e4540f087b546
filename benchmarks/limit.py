"""Compares volseg with limits of the hardware: the bare forward pass, a plain copy, twice the workers.

python -m benchmarks.limit

Blocks are timed on the workers, on local clusters of one worker and of two in turns; each worker has one thread.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from benchmarks.forward import forward_block
from benchmarks.record import record
from benchmarks.tables import write_tables
from volseg.blocks import Box, Zyx
from volseg.cluster import Executor, NullProgress, connect, run_blocks
from volseg.config import PredictConfig, validate
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.prediction.worker import RunRef, compute_block
from volseg.storage import VolumeRef, read_record
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.testing.doubles import address_of, copy_block
from volseg.testing.factories import VOXEL_NM, blobs, make_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.pipeline import BlockReport

ROUNDS = 3
WIDTH, BLOCK, HALO, BLOCKS = 16, (1, 512, 512), (0, 64, 64), 32
NO_HALO: Zyx = (0, 0, 0)
COPIED, COPY_BLOCK = (192, 1024, 1024), (16, 512, 512)


def run_timed(cluster: Executor, numbers: range, compute: Callable[[int], BlockReport]) -> tuple[float, float, int]:
    """Process blocks; returns wall seconds, seconds of the forward passes, and voxels written."""
    reports: list[BlockReport] = []
    start = time.perf_counter()
    outcome = run_blocks(cluster, numbers, compute, lambda report, *_: reports.append(report), NullProgress())
    seconds = time.perf_counter() - start
    if outcome.failed:
        raise RuntimeError(f"blocks failed: {outcome.failed}")
    return seconds, sum(report.predict_seconds for report in reports), sum(report.voxels for report in reports)


def measure_workers(folder: Path, blocks: int = BLOCKS, block: Zyx = BLOCK, width: int = WIDTH) -> dict[str, Any]:
    """Compare one worker with two, of one thread each, on the same run; measure their busy fractions."""
    raw = _volume(folder / "raw.zarr", (blocks, *block[1:]), block)
    model = str(make_model(folder / "network.safetensors", arguments={"width": width}))
    target = folder / "membrane.zarr"
    with connect("local", 1) as one, connect("local", 2) as two:
        values = {
            "source": str(raw), "target": str(target), "model": model, "block": block, "halo": HALO,
            "cluster": address_of(two),
        }  # fmt: skip
        execute(*prepare(validate(PredictConfig, values, "predict")), NullProgress())
        run_record = read_record(target)
        compute = partial(
            compute_block, reference=RunRef(str(target), run_record.digest, VolumeRef(str(raw)), (model,))
        )
        runs: dict[int, list[tuple[float, float, int]]] = {1: [], 2: []}
        bare = partial(forward_block, target=target)
        for cluster in (one, two):
            for work in (compute, bare):
                run_timed(cluster, range(min(blocks, 4)), work)  # warm-up
        bare_scaling: list[float] = []
        for _ in range(ROUNDS):
            for workers, cluster in ((1, one), (2, two)):
                runs[workers].append(run_timed(cluster, range(blocks), compute))
            one_worker, two_workers = (run_timed(cluster, range(blocks), bare)[0] for cluster in (one, two))
            bare_scaling.append(round(one_worker / two_workers, 3))
    return {
        "threads_each": run_record.settings.threads,
        "precision": run_record.settings.precision,
        "kvoxel_s": {str(n): [round(v / s / 1e3, 1) for s, _, v in rounds] for n, rounds in runs.items()},
        "busy": {str(n): [round(inside / s / n, 3) for s, inside, _ in rounds] for n, rounds in runs.items()},
        "scaling": [round(one[0] / two[0], 3) for one, two in zip(runs[1], runs[2], strict=True)],
        "bare_scaling": bare_scaling,
    }


def measure_copy(folder: Path, shape: Zyx = COPIED, block: Zyx = COPY_BLOCK) -> dict[str, Any]:
    """Compare the identity network on two workers with zarr alone copying the same shards."""
    raw = _volume(folder / "copied.zarr", shape, block)
    chunk = (min(16, block[0]), min(128, block[1]), min(128, block[2]))
    targets = {
        name: create_volume(
            folder / name, shape=shape, shard=block, chunk=chunk, dtype="uint8", place=Place.of_nm(VOXEL_NM)
        )
        for name in ("through.zarr", "plain.zarr")
    }
    compute = partial(copy_block, source=str(raw), target=str(targets["through.zarr"].path), block=block, halo=NO_HALO)
    count = int(np.prod([-(-n // b) for n, b in zip(shape, block, strict=True)]))
    rates: dict[str, list[float]] = {"volseg": [], "zarr": []}
    with connect("local", 2) as cluster:
        for _ in range(ROUNDS + 1):
            seconds, _, voxels = run_timed(cluster, range(count), compute)
            rates["volseg"].append(round(voxels / seconds / 1e6, 1))
            rates["zarr"].append(round(voxels / plain_copy(raw, folder / "plain.zarr", block) / 1e6, 1))
    warm = {method: values[1:] for method, values in rates.items()}
    return {"mvoxel_s": warm, "share": [round(a / b, 3) for a, b in zip(warm["volseg"], warm["zarr"], strict=True)]}


def plain_copy(source: Path, target: Path, block: Zyx) -> float:
    """Copy a volume shard by shard with zarr; returns the seconds."""
    source_array, target_array = (zarr.open_array(path / "0", mode="r+") for path in (source, target))
    start = time.perf_counter()
    for z in range(0, source_array.shape[0], block[0]):
        for y in range(0, source_array.shape[1], block[1]):
            for x in range(0, source_array.shape[2], block[2]):
                box = tuple(slice(a, a + b) for a, b in zip((z, y, x), block, strict=True))
                target_array[box] = source_array[box]
    return time.perf_counter() - start


def _volume(path: Path, shape: Zyx, block: Zyx) -> Path:
    """Write a volume of blobs that repeats its first sections."""
    sections = blobs((min(shape[0], 4), *shape[1:]))
    voxels = np.concatenate([sections] * -(-shape[0] // len(sections)))[: shape[0]]
    chunk = (min(16, block[0]), min(128, block[1]), min(128, block[2]))
    create_volume(path, shape=shape, shard=block, chunk=chunk, dtype="uint8", place=Place.of_nm(VOXEL_NM)).write(
        Box.of_shape(shape), voxels
    )
    return path


def main() -> None:
    """Measure, record, print, and update the tables."""
    # Two cores, for two workers of one thread each.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = {
            "network": f"fusionnet width {WIDTH}, blocks of {BLOCK[1]} x {BLOCK[2]}, halo {HALO[1]}",
            "copied": f"{COPIED[0]} sections of {COPIED[1]} x {COPIED[2]}",
            "workers": measure_workers(folder),
            "copy": measure_copy(folder),
        }
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('limit', figures)}\n")
    write_tables()


if __name__ == "__main__":
    main()
