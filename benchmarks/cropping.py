"""What is saved by computing only what the core needs: the same network over the same tile, cut and whole, by turns.

python -m benchmarks.cropping

One width of each network will do: the shares hardly depend on it.
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

from benchmarks.cases import CASES, model_of
from benchmarks.passes import kept_by, network_for, tile_of, timed
from benchmarks.record import record
from benchmarks.tables import write_tables
from volseg.blocks import Tiling, Zyx
from volseg.inference.hardware import worker_info
from volseg.inference.memory.malloc import retain_heap
from volseg.inference.optimize.crop_halo import crop_halo
from volseg.inference.optimize.fold_batch_norm import fold_batch_norm
from volseg.models.model import load_model_file

if TYPE_CHECKING:
    from volseg.inference import Precision
    from volseg.models.model import Model

CORE: Zyx = (1, 1024, 1024)
HALOS = (32, 64, 96, 128, 192)
ROUNDS, LONG, THREADS = 3, 1.0, 2


def whole(tiling: Tiling) -> Tiling:
    """The tiling whose tiles have the same shape and are kept whole."""
    core, margin = tiling.input_shape, tiling.footprint.margin
    return Tiling(tiling.footprint, (core[0], core[1] - 2 * margin[1], core[2] - 2 * margin[2]), margin)


def operations(model: Model, tiling: Tiling) -> int:
    """Multiplications and additions of a tile's convolutions, its network cut to what the core needs; none are done."""
    graph = fold_batch_norm(model.network)
    cut, _ = crop_halo(graph, tiling.input_shape[3 - tiling.footprint.dimensions :], kept_by(tiling))
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        cut.to("meta")(tile_of(tiling, "float32").to("meta"))
    return int(counter.get_total_flops())


def measured(model: Model, precision: Precision, halo: int) -> dict[str, Any]:
    """What a halo costs and what cropping gives back: operations, and seconds a tile."""
    cut = Tiling(model.card.footprint, CORE, (0, halo, halo))
    ways = {"whole": whole(cut), "cut": cut}
    assert ways["whole"].input_shape == cut.input_shape
    networks = {name: network_for(model, precision, tiling) for name, tiling in ways.items()}
    tile = tile_of(cut, precision)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, network in networks.items():
            seconds[name].append(timed(network, tile, THREADS, LONG))
    return {
        "halo": halo,
        "computed": round(cut.overhead, 3),
        "operations_share": round(operations(model, cut) / operations(model, ways["whole"]), 4),
        "seconds": {name: round(median(each), 3) for name, each in seconds.items()},
        "seconds_share": [round(a / b, 3) for a, b in zip(seconds["cut"], seconds["whole"], strict=True)],
    }


def main() -> None:
    """Measure, record, tell; make the page anew."""
    precision: Precision = "bfloat16" if worker_info("cpu").fast_bfloat16 else "float32"
    retain_heap()
    networks = []
    with tempfile.TemporaryDirectory() as name:
        for case in CASES[:2]:
            model = load_model_file(model_of(case, Path(name)))
            rows = [measured(model, precision, halo) for halo in HALOS]
            networks.append({"network": case.network, "arguments": case.arguments, "rows": rows})
            sys.stdout.write(f"{case.name}: {rows}\n")
            sys.stdout.flush()
    figures = {"core": list(CORE), "precision": precision, "threads": THREADS, "torch": torch.__version__}
    record("cropping", {**figures, "networks": networks})
    write_tables()


if __name__ == "__main__":
    main()
