"""What the coarser levels of a map cost: a prediction with them and one without, by turns, from end to end.

python -m benchmarks.levels --rounds 3
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.record import record
from volseg.testing.factories import blobs, make_volume

SHAPE, BLOCK = (8, 2048, 2048), "4,512,512"
MODEL = "fusionnet-isbi2012"


def predict(raw: Path, folder: Path, levels: int) -> tuple[float, float]:
    """Seconds of a prediction with so many coarser levels, on two local workers, and CPU seconds of all processes."""
    command = [
        sys.executable, "-m", "volseg", "predict", str(raw), str(folder / "map.zarr"), "--model", MODEL, "--overwrite",
        "--block", BLOCK, "--halo", "0,32,32", "--tile", "1,512,512", "--levels", str(levels), "--ignore-voxel-size",
        "--json",
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout)["seconds"], cpu


def main() -> None:
    """Measure by turns, record, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        raw = make_volume(folder / "raw.zarr", SHAPE, voxels=blobs(SHAPE), chunk=(4, 256, 256))
        rounds = []
        for number in range(chosen.rounds):
            order = (0, 4) if number % 2 else (4, 0)
            taken = {levels: predict(raw, folder, levels) for levels in order}
            rounds.append((taken[0], taken[4]))
    figures = {
        "model": MODEL,
        "shape": SHAPE,
        "block": BLOCK,
        "rounds": chosen.rounds,
        "seconds_without": round(median(a[0] for a, _ in rounds), 2),
        "seconds_with": round(median(b[0] for _, b in rounds), 2),
        "cost": round(median(b[0] / a[0] for a, b in rounds) - 1, 4),
        "cpu_without": round(median(a[1] for a, _ in rounds), 2),
        "cpu_with": round(median(b[1] for _, b in rounds), 2),
        "cpu_cost": round(median(b[1] / a[1] for a, b in rounds) - 1, 4),
        "limit": 0.08,
    }
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('levels', figures)}\n")


if __name__ == "__main__":
    main()
