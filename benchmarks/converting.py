"""Measures `volseg convert` beside tensorstore's copy of the same volume, on as many cores; files are synced by both.

python -m benchmarks.converting [WORKERS]

Both read a Zarr 3 of one chunk a file and write 16 x 1024 x 1024 shards with the same chunks and codecs. volseg also
syncs them and compares digests of what it reads back. The start of its workers counts in `with_start` only. Coarser
levels, which tensorstore's copy has none of, are timed apart.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import tensorstore

import volseg
from benchmarks.record import record
from volseg.storage.create import create_volume
from volseg.storage.object_target import open_target
from volseg.storage.place import Place
from volseg.testing.factories import blobs

SHAPE, SHARD, CHUNK = (128, 2048, 2048), (16, 1024, 1024), (16, 128, 128)
ROUNDS = 5


def make(path: Path) -> None:
    """Write smooth tissue with noise, a file for each chunk."""
    create_volume(path, shape=SHAPE, shard=None, chunk=CHUNK, dtype="uint8", place=Place.of_nm((30.0, 6.0, 6.0)))
    array, smooth = open_target(path)._array, np.tile(blobs((1, 256, 256))[0], (8, 8)).astype(np.float32)
    for z in range(0, SHAPE[0], CHUNK[0]):
        noise = np.random.default_rng(z).normal(0, 4, (CHUNK[0], *SHAPE[1:])).astype(np.float32)
        array[z : z + CHUNK[0]] = np.clip(smooth + noise, 0, 255).astype(np.uint8)


def copied_by_tensorstore(source: Path, target: Path, workers: int) -> float:
    """Seconds of tensorstore's own copy."""
    limit = {"limit": workers}
    context = tensorstore.Context({"data_copy_concurrency": limit, "file_io_concurrency": limit})
    read = tensorstore.open({"driver": "zarr3", "kvstore": f"file://{source}/0/"}, context=context).result()
    codecs = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": 3}},
        {"name": "crc32c"},
    ]
    sharding = {"name": "sharding_indexed", "configuration": {"chunk_shape": CHUNK, "codecs": codecs}}
    metadata = {
        "shape": SHAPE,
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": SHARD}},
        "codecs": [sharding],
    }
    spec = {"driver": "zarr3", "kvstore": f"file://{target}/", "metadata": metadata}
    started = time.perf_counter()
    write = tensorstore.open(spec, create=True, context=context).result()
    write.write(read).result()
    return time.perf_counter() - started


def converted(source: Path, target: Path, workers: int, levels: int | None) -> tuple[float, float]:
    """Seconds of the blocks, and with the start and the end of the workers."""
    started = time.perf_counter()
    options = {"chunk": CHUNK, "shard": SHARD, "levels": levels}
    done = volseg.convert(str(source), target, cluster="local", workers=workers, **options)  # type: ignore[arg-type]
    if not done.complete:
        raise AssertionError(f"blocks failed: {done.failed}")
    return done.seconds, time.perf_counter() - started


def main() -> None:
    """Measure by turns, record, print."""
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    ours, leveled, whole, theirs = [], [], [], []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        make(folder / "raw.zarr")
        for turn in range(ROUNDS + 1):
            seconds, with_start = converted(folder / "raw.zarr", folder / "ours.zarr", workers, 0)
            with_levels, _ = converted(folder / "raw.zarr", folder / "levels.zarr", workers, None)
            other = copied_by_tensorstore(folder / "raw.zarr", folder / "theirs", workers)
            if turn:  # the first one fills the caches
                ours.append(seconds), whole.append(with_start), theirs.append(other), leveled.append(with_levels)
            for path in ("ours.zarr", "levels.zarr", "theirs"):
                shutil.rmtree(folder / path)
    size = int(np.prod(SHAPE))
    figures = {
        "workers": workers,
        "voxels_mib": round(size / 2**20),
        "gb_s": round(size / median(ours) / 1e9, 3),
        "tensorstore_gb_s": round(size / median(theirs) / 1e9, 3),
        "with_start_seconds": round(median(whole), 2),
        "ratio": round(median(b / a for a, b in zip(ours, theirs, strict=True)), 3),
        "ratio_with_levels": round(median(b / a for a, b in zip(leveled, theirs, strict=True)), 3),
        "limit": 0.7,
    }
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('converting', figures)}\n")


if __name__ == "__main__":
    main()
