"""Compares `--halo auto` with `--halo exact` on a whole volume: time, and differences byte by byte.

python -m benchmarks.halo NAME VOLUME MODEL

Two runs of each, in turns. The measured halo is compared with the exact one in float32 as well: bfloat16 rounds
differently in tiles of other shapes, which is not an error of the halo. NAME is part of the result's name.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import volseg
from benchmarks.record import record
from volseg.blocks import Box
from volseg.cluster import NullProgress
from volseg.storage import open_volume, read_record

ROUNDS = 2


class StartTime(NullProgress):
    """Records when the first block is sent."""

    def __init__(self) -> None:
        self.at = 0.0

    def begin(self, total: int) -> None:
        self.at = time.perf_counter()


def run(volume: str, model: str, target: Path, halo: Any, precision: Any = "auto") -> tuple[float, float]:
    """Predict a volume; returns seconds before the first block, and from there to the last."""
    progress, start = StartTime(), time.perf_counter()
    summary = volseg.predict(
        volume, str(target), model=model, halo=halo, precision=precision, workers=2, progress=progress
    )
    assert not summary.failed
    return progress.at - start, summary.seconds


def read_all(target: Path) -> np.ndarray:
    volume = open_volume(str(target))
    return volume.read(Box.of_shape(volume.shape)).astype(np.int16)


def compare(one: Path, other: Path) -> dict[str, float]:
    """Differences of two volumes, in grey levels."""
    difference = np.abs(read_all(one) - read_all(other))
    return {
        "max_difference": int(difference.max()),
        "within_one_grey_level": round(float((difference <= 1).mean()), 6),
        "equal": round(float((difference == 0).mean()), 6),
    }


def main() -> None:
    name, volume, model = sys.argv[1:]
    load = os.getloadavg()[0]
    before: dict[str, list[float]] = {"exact": [], "auto": []}
    during: dict[str, list[float]] = {"exact": [], "auto": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            for halo in ("exact", "auto"):
                os.environ["XDG_CACHE_HOME"] = f"{folder}/cache-{halo}-{number}"  # each run measures the halo
                started, seconds = run(volume, model, Path(folder) / f"{halo}-{number}.zarr", halo)
                before[halo].append(started)
                during[halo].append(seconds)
                print(f"{halo}: {started:.1f} s before the first block, {seconds:.1f} s of blocks", flush=True)  # noqa: T201
        entry = read_record(Path(folder) / "auto-0.zarr").models[0]
        precision = read_record(Path(folder) / "auto-0.zarr").settings.precision
        shape = open_volume(str(Path(folder) / "auto-0.zarr")).shape
        difference = compare(Path(folder) / "auto-0.zarr", Path(folder) / "exact-0.zarr")
        for kind, halo in (("chosen", entry.halo), ("whole", "exact")):
            run(volume, model, Path(folder) / f"{kind}.zarr", halo, "float32")
        in_float32 = compare(Path(folder) / "chosen.zarr", Path(folder) / "whole.zarr")
    medians = {halo: statistics.median(times) for halo, times in during.items()}
    figures = {
        "model": entry.name,
        "shape": list(shape),
        "precision": precision,
        "load_before": round(load, 1),
        "exact_halo": list(entry.footprint.exact_halo()),
        "chosen_halo": list(entry.halo),
        "curve": [point.model_dump() for point in entry.halo_curve],
        "seconds_exact": [round(s, 1) for s in during["exact"]],
        "seconds_auto": [round(s, 1) for s in during["auto"]],
        "seconds_measuring": round(statistics.median(before["auto"]) - statistics.median(before["exact"]), 1),
        "time_ratio": round(medians["exact"] / medians["auto"], 2),
        "whole_volume": difference,
        "whole_volume_in_float32": in_float32,
    }
    record(f"halo-{name}", figures)
    print({key: value for key, value in figures.items() if key != "curve"})  # noqa: T201 - a benchmark's screen


if __name__ == "__main__":
    main()
