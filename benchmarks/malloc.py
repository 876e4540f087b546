"""Seconds and memory of a forward pass on a CPU, with and without a retained heap.

python -m benchmarks.malloc

Each setting of malloc runs in new processes, in turns; the passes run in the forward thread, as in a worker.
The figures go to benchmarks/results/malloc.json.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import volseg.inference.optimize.optimize
from benchmarks.record import record
from volseg.blocks import BlockGrid, Box, Tiling
from volseg.inference import Engine, Load, open_predictor, peak_memory
from volseg.inference.memory.activations import activation_bytes, meta_network
from volseg.inference.memory.plan import plan_memory
from volseg.malloc import retain_heap
from volseg.models import packaged_models, read_card
from volseg.models.model import load_shared_model
from volseg.ops import Grey

MODEL, CORE, HALO = "fusionnet-snemi3d", (1, 1024, 1024), (0, 96, 96)
ROUNDS, PASSES, THREADS = 3, 4, 1
ONE_HEAP = {"MALLOC_ARENA_MAX": "1"}
SETTINGS: dict[str, tuple[str, dict[str, str]]] = {
    "default": ("default", {}),
    "one heap": ("default", ONE_HEAP),
    "one heap, retained": ("retain", ONE_HEAP),
    "one heap, retained, first pass apart": ("retain and mmap", ONE_HEAP),
    "retained, first pass apart": ("retain and mmap", {}),
}
"""Name: what the process does, and its environment. A worker of volseg is the last but one."""


def passes(setting: str) -> dict[str, Any]:
    """Seconds and page faults of each pass but the first, and the peak of this process, in bytes.

    With one thread, CPU seconds do not depend on what else a shared machine does.
    """
    if setting != "default":
        retain_heap()
    if setting == "retain":
        volseg.inference.optimize.optimize.mmap_large_blocks = nullcontext
    path = packaged_models()[MODEL]
    header = read_card(path)
    tiling, box = Tiling(header.card.footprint, CORE, HALO), Box.of_shape(CORE)
    network = load_shared_model(path).network
    plan = plan_memory(network, BlockGrid.over(CORE, CORE, CORE), tiling, Load(1, "float32", 1, 1, "cpu"))
    live = activation_bytes(meta_network(network, "cpu", "float32"), tiling, 1, 4)
    predict = open_predictor(str(path), header.digest, tiling, Engine("cpu", "float32", 1, THREADS), as_bytes=True)
    noise = np.random.default_rng(0).integers(0, 256, tiling.read_box(box).shape, np.uint8)
    grey = Grey.of(noise, ((128.0, 60.0),))
    rows = []
    for _ in range(PASSES):
        before = resource.getrusage(resource.RUSAGE_SELF)
        (estimate,) = predict(grey, box)
        after = resource.getrusage(resource.RUSAGE_SELF)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        rows.append((estimate.forward_seconds, user + system, system, after.ru_minflt - before.ru_minflt))
    names = ("seconds", "cpu_seconds", "system_seconds", "page_faults")
    values = {name: median(column) for name, column in zip(names, zip(*rows[1:], strict=True), strict=True)}
    return values | {"peak": peak_memory("cpu")[0], "planned_peak": plan.host_peak, "live_activations": live}


def measure_settings() -> dict[str, list[dict[str, Any]]]:
    """Run the passes of each setting in turns, once per round."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in SETTINGS}
    for _ in range(ROUNDS):
        for name, (setting, environment) in SETTINGS.items():
            inherited = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
            command = [sys.executable, "-m", "benchmarks.malloc", setting]
            process = subprocess.run(
                command, env=inherited | environment, capture_output=True, text=True, check=True, cwd=Path.cwd()
            )
            results[name].append(json.loads(process.stdout))
    return results


def main() -> None:
    """Measure and record; with an argument, run the passes of one setting in this process."""
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(passes(sys.argv[1])))
        return
    rounds = measure_settings()
    rows = {
        name: {
            **{key: round(median(result[key] for result in results), 3) for key in results[0]},
            # Each against the default of its own round: the speed of a shared machine changes.
            **{
                f"{key}_ratio": [round(a[key] / b[key], 3) for a, b in zip(results, rounds["default"], strict=True)]
                for key in ("seconds", "cpu_seconds", "peak")
            },
        }
        for name, results in rounds.items()
    }
    figures = {"model": MODEL, "core": CORE, "halo": HALO, "threads": THREADS, "settings": rows}
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n{record('malloc', figures)}\n")


if __name__ == "__main__":
    main()
