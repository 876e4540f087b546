"""Measures what cropping to the core saves: the same network over the same tile, cropped and whole, in turns.

python -m benchmarks.cropping

One width of each network, since the ratios hardly depend on it.
The figures go to benchmarks/results/cropping.json, and from there to docs/benchmarks.md.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cases import CASES, case_model
from benchmarks.forward import core_ranges, median_seconds, optimized_network, zero_tile
from benchmarks.record import record
from benchmarks.tables import write_tables
from volseg.blocks import Tiling, Zyx
from volseg.inference.hardware import worker_info
from volseg.inference.optimize.crop_halo import crop_halo
from volseg.inference.optimize.fold_batch_norm import fold_batch_norm
from volseg.malloc import retain_heap
from volseg.models.model import load_model_file

if TYPE_CHECKING:
    from volseg.inference import Precision
    from volseg.models.model import Model

CORE: Zyx = (1, 1024, 1024)
HALOS = (32, 64, 96, 128, 192)
ROUNDS, MIN_SECONDS, THREADS = 3, 1.0, 2


def uncropped(tiling: Tiling) -> Tiling:
    """Tiling with tiles of the same shape, whose whole output is the core."""
    core, margin = tiling.input_shape, tiling.footprint.margin
    return Tiling(tiling.footprint, (core[0], core[1] - 2 * margin[1], core[2] - 2 * margin[2]), margin)


def operations(model: Model, tiling: Tiling) -> int:
    """Multiplications and additions of a tile's convolutions in the cropped network; nothing is computed."""
    graph = fold_batch_norm(model.network)
    cut, _ = crop_halo(graph, tiling.input_shape[3 - tiling.footprint.dimensions :], core_ranges(tiling))
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        cut.to("meta")(zero_tile(tiling, "float32").to("meta"))
    return int(counter.get_total_flops())


def measure_halo(model: Model, precision: Precision, halo: int) -> dict[str, Any]:
    """Operations and seconds per tile with a halo, cropped and whole."""
    cropped = Tiling(model.card.footprint, CORE, (0, halo, halo))
    tilings = {"whole": uncropped(cropped), "cut": cropped}
    assert tilings["whole"].input_shape == cropped.input_shape
    networks = {name: optimized_network(model, precision, tiling) for name, tiling in tilings.items()}
    tile = zero_tile(cropped, precision)
    seconds: dict[str, list[float]] = {name: [] for name in tilings}
    for _ in range(ROUNDS):
        for name, network in networks.items():
            seconds[name].append(median_seconds(network, tile, THREADS, MIN_SECONDS))
    return {
        "halo": halo,
        "computed": round(cropped.overhead, 3),
        "operations_share": round(operations(model, cropped) / operations(model, tilings["whole"]), 4),
        "seconds": {name: round(median(rounds), 3) for name, rounds in seconds.items()},
        "seconds_share": [round(a / b, 3) for a, b in zip(seconds["cut"], seconds["whole"], strict=True)],
    }


def main() -> None:
    """Measure, record, print, and update the tables."""
    precision: Precision = "bfloat16" if worker_info("cpu").fast_bfloat16 else "float32"
    retain_heap()
    networks = []
    with tempfile.TemporaryDirectory() as name:
        for case in CASES[:2]:
            model = load_model_file(case_model(case, Path(name)))
            rows = [measure_halo(model, precision, halo) for halo in HALOS]
            networks.append({"network": case.network, "arguments": case.arguments, "rows": rows})
            sys.stdout.write(f"{case.name}: {rows}\n")
            sys.stdout.flush()
    figures = {"core": list(CORE), "precision": precision, "threads": THREADS, "torch": torch.__version__}
    record("cropping", {**figures, "networks": networks})
    write_tables()


if __name__ == "__main__":
    main()
