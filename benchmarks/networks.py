"""Measures each network on this machine: one forward pass over one tile, in float32 and bfloat16.

python -m benchmarks.networks [--table-only]

The figures go to benchmarks/results/networks.json, and from there, with those of benchmarks.literature, into the
tables of docs/networks.md; `--table-only` updates the tables without measuring.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from benchmarks.record import record
from benchmarks.tables import write_tables
from volseg.inference.optimize.optimize import DTYPES, optimize
from volseg.models import NETWORKS
from volseg.models.catalog import network_details
from volseg.models.describe import describe_network
from volseg.models.registry import build_network

if TYPE_CHECKING:
    from torch import nn

    from volseg.blocks import Footprint, Zyx

PRECISIONS: tuple[Literal["float32", "bfloat16"], ...] = ("float32", "bfloat16")
PASSES = 3
BUSY = 0.5
"""Load average above which the machine counts as busy."""
ANISOTROPIC = {"kernel": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]], "pool": [[1, 2, 2]] * 3 + [[2, 2, 2]]}


@dataclass(frozen=True)
class SpeedCase:
    """A network to measure.

    Attributes:
        network: name in the registry.
        arguments: of the network's class.
        variant: difference from the network as published.
        tile: maximum input, (z, y, x).
    """

    network: str
    arguments: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    tile: Zyx = (1, 512, 512)


SMALLER: dict[str, Zyx] = {"sliding_window": (1, 222, 222)}
"""Tiles of networks that are too slow for larger ones."""
CASES = (
    *(SpeedCase(name, tile=SMALLER.get(name, SpeedCase.tile)) for name in sorted(NETWORKS)),
    SpeedCase("fcn8s", {"padded": True}, "padded"),
    SpeedCase("fusionnet", {"width": 16, **ANISOTROPIC}, "3-D, width 16", (16, 256, 256)),
    SpeedCase("unet", {"padded": True, "batch_norm": True}, "padded, batch norm"),
    SpeedCase("unet", {"in_channels": 3}, "3 sections", (3, 512, 512)),
)


def largest_input(footprint: Footprint, tile: Zyx) -> list[int]:
    """Largest input (channels or z, y, x) that the network takes within a tile."""
    return [n + (limit - n) // s * s for n, limit, s in zip(footprint.smallest, tile, footprint.stride, strict=True)]


def kvoxel_s(network: nn.Module, sides: list[int], precision: Literal["float32", "bfloat16"]) -> float:
    """Rate of a forward pass in thousand output voxels per second: the median of three, after one of warm-up."""
    optimized = optimize(network, "cpu", precision)
    # A 2-D network takes the sections as its channels, a 3-D one has a single channel.
    inputs = torch.randn(1, *sides) if _is_flat(network) else torch.randn(1, 1, *sides)
    layout = torch.channels_last if inputs.ndim == 4 else torch.channels_last_3d
    inputs = inputs.to(DTYPES[precision]).contiguous(memory_format=layout)
    seconds = []
    with torch.inference_mode():
        voxels: int = optimized(inputs)[0, 0].numel()
        for _ in range(PASSES):
            start = time.perf_counter()
            optimized(inputs)
            seconds.append(time.perf_counter() - start)
    return voxels / statistics.median(seconds) / 1e3


def _is_flat(network: nn.Module) -> bool:
    return next(parameter for parameter in network.parameters()).ndim == 4


def measure_network(case: SpeedCase) -> dict[str, Any]:
    """Details and rates of one network."""
    details = network_details(case.network, case.arguments)
    del details["name"], details["summary"]
    sides = largest_input(describe_network(case.network, case.arguments).footprint, case.tile)
    torch.manual_seed(0)
    network = build_network(case.network, case.arguments).eval()
    rates = {precision: round(kvoxel_s(network, sides, precision), 2) for precision in PRECISIONS}
    sys.stdout.write(f"{case.network} {case.variant}: {rates} kvoxel/s\n")
    sys.stdout.flush()
    about = {"network": case.network, "variant": case.variant, "arguments": case.arguments}
    return {**about, **details, "input": sides, "kvoxel_s": rates}


def main() -> None:
    """Measure and record, unless only tables are requested; update the tables."""
    if sys.argv[1:] not in ([], ["--table-only"]):
        sys.exit("usage: python -m benchmarks.networks [--table-only]")
    if not sys.argv[1:]:
        figures: dict[str, Any] = {
            "busy": os.getloadavg()[0] > BUSY,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "passes": PASSES,
        }
        record("networks", {**figures, "networks": [measure_network(case) for case in CASES]})
    write_tables()


if __name__ == "__main__":
    main()
