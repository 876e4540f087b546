"""Compares this checkout with another one: seconds of a prediction from end to end, by turns, on the CPU.

python -m benchmarks.checkouts ../volseg-before --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.record import record
from volseg.testing.factories import blobs, make_volume

SHAPE, BLOCK = (25, 512, 512), "1,256,256"
"""A hundred blocks, of which one has all its activations read."""
MODEL = "fusionnet-isbi2012"
HERE = Path(__file__).parents[1]


def predict(checkout: Path, raw: Path, folder: Path) -> dict[str, float]:
    """Run a prediction with the code of a checkout; returns its seconds: in all, of the blocks, and of the CPU."""
    command = [
        sys.executable, "-m", "volseg", "predict", str(raw), str(folder / "map.zarr"), "--model", MODEL, "--overwrite",
        "--block", BLOCK, "--tile", BLOCK, "--halo", "0,32,32", "--precision", "float32", "--cluster", "serial",
        "--ignore-voxel-size", "--json",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(folder / "cache")}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
    total, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"total": total, "blocks": json.loads(done.stdout)["seconds"], "cpu": cpu}


def main() -> None:
    """Measure by turns, record, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    before = chosen.before.resolve()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=before, capture_output=True, text=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        raw = make_volume(folder / "raw.zarr", SHAPE, voxels=blobs(SHAPE), chunk=(1, 128, 128))
        rounds = []
        for number in range(chosen.rounds + 1):
            order = (before, HERE) if number % 2 else (HERE, before)
            seconds = {checkout: predict(checkout, raw, folder) for checkout in order}
            rounds.append((seconds[before], seconds[HERE]))
    rounds = rounds[1:]  # the first one warms the caches
    figures = {
        "before": commit.stdout.strip(),
        "model": MODEL,
        "shape": SHAPE,
        "rounds": chosen.rounds,
        "seconds_before": {key: round(median(a[key] for a, _ in rounds), 2) for key in rounds[0][0]},
        "seconds": {key: round(median(b[key] for _, b in rounds), 2) for key in rounds[0][0]},
        "speed": {key: round(median(a[key] / b[key] for a, b in rounds), 3) for key in rounds[0][0]},
    }
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('checkouts', figures)}\n")


if __name__ == "__main__":
    main()
