"""Time of the pass over whole sections before a run, beside reading the same voxels once.

python -m benchmarks.statistics_pass

The passes alternate; the figures go to benchmarks/results/statistics_pass.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from volseg.blocks import Box
from volseg.ops import Normalization
from volseg.storage import open_volume, slab_statistics, slabs
from volseg.storage.create import create_volume
from volseg.storage.object_target import open_target
from volseg.storage.place import Place
from volseg.testing.factories import blobs

SHAPE, CHUNK, SHARD = (100, 4096, 4096), (1, 512, 512), (10, 4096, 4096)
ROUNDS = 3
MODES = ("section",)


def make_source(path: Path) -> None:
    """Write a volume whose sections compress as tissue does."""
    create_volume(path, shape=SHAPE, shard=SHARD, chunk=CHUNK, dtype="uint8", place=Place.of_nm((40.0, 4.0, 4.0)))
    target = open_target(path)
    section = np.tile(blobs((1, 1024, 1024))[0], (4, 4))
    noise = np.random.default_rng(0).integers(0, 8, section.shape).astype(np.uint8)
    for z in range(0, SHAPE[0], SHARD[0]):
        slab = np.stack([np.roll(section // 2 + noise, 37 * (z + k), axis=1) for k in range(SHARD[0])])
        target.write(Box((z, 0, 0), (z + SHARD[0], *SHAPE[1:])), slab)


def seconds_of(work: Any) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure, record, print."""
    with tempfile.TemporaryDirectory() as name:
        make_source(Path(name) / "raw.zarr")
        volume = open_volume(str(Path(name) / "raw.zarr"))
        box = Box.of_shape(SHAPE)

        def read() -> None:
            for first, stop in slabs(SHAPE, CHUNK, 0, SHAPE[0]):
                volume.read(Box((first, 0, 0), (stop, *SHAPE[1:])))

        def measure() -> None:
            for slab in slabs(SHAPE, CHUNK, 0, SHAPE[0]):
                slab_statistics(volume, slab, MODES, box)

        reading, measuring = zip(*((seconds_of(read), seconds_of(measure)) for _ in range(ROUNDS)), strict=True)
        tissue = [m for slab in slabs(SHAPE, CHUNK, 0, 4) for m in slab_statistics(volume, slab, MODES, box).moments[0]]
        whole = Normalization("volume", (0.0, 1.0)).constants_of(tissue)
    figures = {
        "shape": SHAPE,
        "chunk": CHUNK,
        "read_seconds": [round(s, 2) for s in reading],
        "statistics_seconds": [round(s, 2) for s in measuring],
        "ratio": [round(b / a, 3) for a, b in zip(reading, measuring, strict=True)],
        "mvoxel_s": round(np.prod(SHAPE) / min(measuring) / 1e6, 1),
        "constants_of_four_sections": [round(value, 6) for value in whole[0]],
    }
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('statistics_pass', figures)}\n")


if __name__ == "__main__":
    main()
