"""Measures the CPU time of writing a block, with its sync and digests, beside zarr's own encoder and blake2b.

python -m benchmarks.writing
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from hashlib import blake2b
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import zarr

from benchmarks.record import record
from volseg.blocks import Box
from volseg.ops import to_uint8
from volseg.storage.create import create_volume
from volseg.storage.durable import write_synced
from volseg.storage.object_target import open_target
from volseg.storage.place import Place
from volseg.storage.shards import encode_in_memory
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK, CHUNK = (16, 1024, 1024), (16, 128, 128)
ROUNDS = 15


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all threads."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Measure by turns, record, print."""
    smooth = np.tile(blobs((1, 256, 256))[0], (4, 4)).astype(np.float32) / 255
    noise = np.random.default_rng(0).normal(0, 0.004, BLOCK).astype(np.float32)
    voxels = to_uint8(np.clip(smooth + noise, 0, 1))
    box = Box.of_shape(BLOCK)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "target.zarr"
        create_volume(path, shape=BLOCK, shard=BLOCK, chunk=CHUNK, dtype="uint8", place=Place())
        target, array = open_target(path), zarr.open_array(path / "0", mode="r")

        def before() -> None:
            part = Path(folder) / "shard"
            write_synced(part, encode_in_memory(array, voxels))
            blake2b(voxels.tobytes(), digest_size=16).hexdigest()
            part.unlink()

        def now() -> None:
            target.write(box, voxels)

        before(), now()
        pairs = [(cpu_seconds(before), cpu_seconds(now)) for _ in range(ROUNDS)]
        stored = sum(file.stat().st_size for file in (path / "0" / "c").rglob("*") if file.is_file())
    figures = {
        "block": BLOCK,
        "stored_mib": round(stored / 2**20, 1),
        "zarr_and_blake2b_seconds": round(median(a for a, _ in pairs), 4),
        "seconds": round(median(b for _, b in pairs), 4),
        "ratio": round(median(b / a for a, b in pairs), 3),
        "limit": 0.6,
    }
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('writing', figures)}\n")


if __name__ == "__main__":
    main()
