"""How near volseg comes to what the hardware can do: the bare forward pass, a bare copy, twice the workers.

python -m benchmarks.limit

Blocks are timed where they run, on a local cluster of one worker and one of two, in turns; each worker has one thread.
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

from benchmarks.passes import bare_block
from benchmarks.record import record
from benchmarks.tables import write_tables
from volseg.blocks import Box, Zyx
from volseg.cluster import Executor, NullProgress, connect, run_blocks
from volseg.cluster.dask_executor import DaskExecutor
from volseg.config import PredictConfig, validate
from volseg.prediction.prepare import prepare
from volseg.prediction.run import execute
from volseg.prediction.worker import RunRef, compute_block
from volseg.storage import read_record
from volseg.storage.target import create_volume
from volseg.testing.doubles import copy_block
from volseg.testing.factories import VOXEL_NM, blobs, make_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from volseg.pipeline import BlockReport

ROUNDS = 3
WIDTH, BLOCK, HALO, BLOCKS = 16, (1, 512, 512), (0, 64, 64), 32
NONE: Zyx = (0, 0, 0)
COPIED, COPY_BLOCK = (192, 1024, 1024), (16, 512, 512)


def address_of(cluster: Executor) -> str:
    """Where others may join a cluster that was started."""
    assert isinstance(cluster, DaskExecutor)
    return str(cluster.client.scheduler_info(n_workers=0)["address"])


def run_timed(cluster: Executor, numbers: range, compute: Callable[[int], BlockReport]) -> tuple[float, float, int]:
    """Wall seconds of some blocks, seconds in the network, voxels written."""
    reports: list[BlockReport] = []
    began = time.perf_counter()
    outcome = run_blocks(cluster, numbers, compute, lambda report, *_: reports.append(report), NullProgress())
    seconds = time.perf_counter() - began
    if outcome.failed:
        raise RuntimeError(f"blocks failed: {outcome.failed}")
    return seconds, sum(report.predict_seconds for report in reports), sum(report.voxels for report in reports)


def workers_figures(folder: Path, blocks: int = BLOCKS, block: Zyx = BLOCK, width: int = WIDTH) -> dict[str, Any]:
    """One worker against two, a thread each, on the same run; and how busy the network keeps them."""
    raw = _volume(folder / "raw.zarr", (blocks, *block[1:]), block)
    model = str(make_model(folder / "network.safetensors", arguments={"width": width}))
    target = folder / "membrane.zarr"
    with connect("local", 1) as one, connect("local", 2) as two:
        values = {
            "source": str(raw), "target": str(target), "model": model, "block": block, "halo": HALO,
            "cluster": address_of(two),
        }  # fmt: skip
        execute(*prepare(validate(PredictConfig, values, "predict")), NullProgress())
        frozen = read_record(target)
        compute = partial(compute_block, reference=RunRef(str(target), frozen.digest, str(raw), (model,)))
        runs: dict[int, list[tuple[float, float, int]]] = {1: [], 2: []}
        bare = partial(bare_block, target=target)
        for cluster in (one, two):
            for work in (compute, bare):
                run_timed(cluster, range(min(blocks, 4)), work)  # warms up
        bare_scaling: list[float] = []
        for _ in range(ROUNDS):
            for workers, cluster in ((1, one), (2, two)):
                runs[workers].append(run_timed(cluster, range(blocks), compute))
            alone, together = (run_timed(cluster, range(blocks), bare)[0] for cluster in (one, two))
            bare_scaling.append(round(alone / together, 3))
    return {
        "threads_each": frozen.settings.threads,
        "precision": frozen.settings.precision,
        "kvoxel_s": {str(n): [round(v / s / 1e3, 1) for s, _, v in made] for n, made in runs.items()},
        "busy": {str(n): [round(inside / s / n, 3) for s, inside, _ in made] for n, made in runs.items()},
        "scaling": [round(one[0] / two[0], 3) for one, two in zip(runs[1], runs[2], strict=True)],
        "bare_scaling": bare_scaling,
    }


def copy_figures(folder: Path, shape: Zyx = COPIED, block: Zyx = COPY_BLOCK) -> dict[str, Any]:
    """The identity network from Zarr to Zarr on two workers, against zarr alone copying the same shards."""
    raw = _volume(folder / "copied.zarr", shape, block)
    chunk = (min(16, block[0]), min(128, block[1]), min(128, block[2]))
    targets = {
        name: create_volume(folder / name, shape=shape, shard=block, chunk=chunk, dtype="uint8", voxel_nm=VOXEL_NM)
        for name in ("through.zarr", "plain.zarr")
    }
    compute = partial(copy_block, source=str(raw), target=str(targets["through.zarr"].path), block=block, halo=NONE)
    count = int(np.prod([-(-n // b) for n, b in zip(shape, block, strict=True)]))
    rates: dict[str, list[float]] = {"volseg": [], "zarr": []}
    with connect("local", 2) as cluster:
        for _ in range(ROUNDS + 1):
            seconds, _, voxels = run_timed(cluster, range(count), compute)
            rates["volseg"].append(round(voxels / seconds / 1e6, 1))
            rates["zarr"].append(round(voxels / plain_copy(raw, folder / "plain.zarr", block) / 1e6, 1))
    warm = {name: each[1:] for name, each in rates.items()}
    return {"mvoxel_s": warm, "share": [round(a / b, 3) for a, b in zip(warm["volseg"], warm["zarr"], strict=True)]}


def plain_copy(source: Path, target: Path, block: Zyx) -> float:
    """Seconds that zarr takes to copy a volume shard by shard."""
    read, written = (zarr.open_array(path / "0", mode="r+") for path in (source, target))
    began = time.perf_counter()
    for z in range(0, read.shape[0], block[0]):
        for y in range(0, read.shape[1], block[1]):
            for x in range(0, read.shape[2], block[2]):
                box = tuple(slice(a, a + b) for a, b in zip((z, y, x), block, strict=True))
                written[box] = read[box]
    return time.perf_counter() - began


def _volume(path: Path, shape: Zyx, block: Zyx) -> Path:
    """A volume of blobs, the first sections of which come again and again."""
    few = blobs((min(shape[0], 4), *shape[1:]))
    voxels = np.concatenate([few] * -(-shape[0] // len(few)))[: shape[0]]
    chunk = (min(16, block[0]), min(128, block[1]), min(128, block[2]))
    create_volume(path, shape=shape, shard=block, chunk=chunk, dtype="uint8", voxel_nm=VOXEL_NM).write(
        Box.of_shape(shape), voxels
    )
    return path


def main() -> None:
    """Measure, record, tell; make the page anew."""
    # Two workers of one thread each, whatever the machine has.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = {
            "network": f"fusionnet width {WIDTH}, blocks of {BLOCK[1]} x {BLOCK[2]}, halo {HALO[1]}",
            "copied": f"{COPIED[0]} sections of {COPIED[1]} x {COPIED[2]}",
            "workers": workers_figures(folder),
            "copy": copy_figures(folder),
        }
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('limit', figures)}\n")
    write_tables()


if __name__ == "__main__":
    main()
