"""Measures the forward pass in turns: the network as loaded, as volseg optimises it, and as OpenVINO does.

python -m benchmarks.engines

The figures go to benchmarks/results/engines.json, and from there to docs/benchmarks.md. OpenVINO gets the same graph:
norms folded, cropped to the core.
"""

from __future__ import annotations

import sys
import tempfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

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
    from collections.abc import Callable

    from torch import Tensor

    from volseg.inference import Precision
    from volseg.models.model import Model

CORE: Zyx = (1, 512, 512)
HALO: Zyx = (0, 112, 112)
ROUNDS, MIN_SECONDS, THREADS = 5, 2.0, 2
NAMES = {"float32": "f32", "bfloat16": "bf16"}


def openvino_for(model: Model, precision: Precision, tiling: Tiling) -> Callable[[Tensor], Tensor]:
    """Compile a model's network with OpenVINO for one tile shape; input and output are float32.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    openvino = import_module("openvino")
    shape = tiling.input_shape[3 - tiling.footprint.dimensions :]
    graph, _ = crop_halo(fold_batch_norm(model.network), shape, core_ranges(tiling))
    example = zero_tile(tiling, "float32")
    converted = openvino.convert_model(graph, example_input=example, input=list(example.shape))
    options = {"INFERENCE_NUM_THREADS": THREADS, "INFERENCE_PRECISION_HINT": NAMES[precision]}
    compiled = openvino.Core().compile_model(converted, "CPU", {**options, "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    return lambda tile: torch.from_numpy(request.infer({0: tile.numpy()})[0])


def measure_engines(model: Model, precisions: tuple[Precision, ...]) -> dict[str, Any]:
    """Seconds per tile of each engine in each round, and the largest difference of OpenVINO's logits on noise."""
    tiling = Tiling(model.card.footprint, CORE, HALO)
    engines: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {}
    noise = torch.randn(zero_tile(tiling, "float32").shape, generator=torch.Generator().manual_seed(0))
    engines["eager float32"] = model.network, noise
    max_difference: dict[str, float] = {}
    for precision in precisions:
        tile = noise.to(zero_tile(tiling, precision).dtype).contiguous(memory_format=torch.channels_last)
        engines[f"volseg {precision}"] = optimized_network(model, precision, tiling), tile
        try:
            other = openvino_for(model, precision, tiling)
        except ImportError as error:
            sys.stdout.write(f"OpenVINO is left out: {error}\n")
            continue
        engines[f"OpenVINO {precision}"] = other, noise
        with torch.inference_mode():
            output = engines[f"volseg {precision}"][0](tile).float()
            max_difference[precision] = round(float((output - other(noise)).abs().max()), 4)
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(ROUNDS):
        for name, (network, tile) in engines.items():
            seconds[name].append(round(median_seconds(network, tile, THREADS, MIN_SECONDS), 4))
    return {"max_difference": max_difference, "seconds": seconds}


def main() -> None:
    """Measure, record, print, and update the tables."""
    fast = worker_info("cpu").fast_bfloat16
    precisions: tuple[Precision, ...] = ("float32", "bfloat16") if fast else ("float32",)
    retain_heap()
    networks = []
    with tempfile.TemporaryDirectory() as name:
        for case in CASES:
            figures = measure_engines(load_model_file(case_model(case, Path(name))), precisions)
            networks.append({"network": case.network, "arguments": case.arguments, **figures})
            sys.stdout.write(f"{case.name}: {figures}\n")
            sys.stdout.flush()
    about: dict[str, Any] = {"core": list(CORE), "halo": list(HALO), "threads": THREADS, "torch": torch.__version__}
    if any("OpenVINO" in name for network in networks for name in network["seconds"]):
        about["openvino"] = version("openvino")
    record("engines", {**about, "networks": networks})
    write_tables()


if __name__ == "__main__":
    main()
