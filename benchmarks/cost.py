"""Compares what a calibration states with what runs of 300 blocks then take: `predict --dry-run --calibrate`.

python -m benchmarks.cost --rounds 5
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.record import record
from volseg.testing.factories import blobs, make_volume

SHAPE, BLOCK = (3, 2560, 2560), "1,256,256"
MODEL = "fusionnet-isbi2012"


def predict(raw: Path, folder: Path, *options: str) -> dict[str, Any]:
    """The JSON of a prediction, or of its dry run, on two local workers."""
    command = [
        sys.executable, "-m", "volseg", "predict", str(raw), str(folder / "map.zarr"), "--model", MODEL, "--overwrite",
        "--block", BLOCK, "--tile", BLOCK, "--halo", "0,32,32", "--precision", "float32", "--ignore-voxel-size",
        "--json", *options,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    fields: dict[str, Any] = json.loads(done.stdout)
    return fields


def main() -> None:
    """Calibrate and run by turns, record, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        raw = make_volume(folder / "raw.zarr", SHAPE, voxels=blobs(SHAPE), chunk=(1, 256, 256))
        prices = folder / "prices.toml"
        prices.write_text("[worker_hour]\ncpu = 1.0\n")
        rounds = []
        for _ in range(chosen.rounds):
            stated = predict(raw, folder, "--dry-run", "--calibrate")
            done = predict(raw, folder, "--prices", str(prices))
            held = sum(usage["held_seconds"] for usage in done["cost"]["kinds"].values()) / 3600
            rounds.append((stated, done, held))
    seconds = [(stated["seconds_interval"], done["seconds"]) for stated, done, _ in rounds]
    hours = [(stated["worker_hours"], held) for stated, _, held in rounds]
    figures = {
        "model": MODEL,
        "blocks": rounds[0][1]["done"],
        "rounds": chosen.rounds,
        "sampled": [stated["sampled"] for stated, _, _ in rounds],
        "seconds": [[*(round(bound, 1) for bound in stated), round(took, 1)] for stated, took in seconds],
        "worker_hours": [[*(round(bound, 4) for bound in stated), round(took, 4)] for stated, took in hours],
        "seconds_covered": sum(stated[0] <= took <= stated[2] for stated, took in seconds),
        "worker_hours_covered": sum(stated[0] <= took <= stated[2] for stated, took in hours),
    }
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('cost', figures)}\n")


if __name__ == "__main__":
    main()
