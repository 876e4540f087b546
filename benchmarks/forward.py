"""A forward pass as volseg runs it on a CPU, with its input in memory: no reading, no Dask, no writing."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, TypeAlias

import torch

from volseg.inference.executor import forward_executor
from volseg.inference.optimize.optimize import DTYPES, optimize, specialized
from volseg.malloc import retain_heap
from volseg.models.model import Model, load_model_file, load_shared_model
from volseg.pipeline import BlockReport
from volseg.storage import read_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from volseg.blocks import Tiling
    from volseg.inference import Precision

    Forward: TypeAlias = Callable[[Tensor], Tensor]

MIN_SECONDS = 4.0
"""Seconds over which forward passes are repeated."""


def zero_tile(tiling: Tiling, precision: Precision) -> Tensor:
    """Zeros of a tile's shape: (1, sections, y, x) for a 2-D network, (1, 1, z, y, x) for a 3-D one."""
    flat, shape = tiling.footprint.dimensions == 2, tiling.input_shape
    tile = torch.zeros((1, *shape) if flat else (1, 1, *shape), dtype=DTYPES[precision])
    return tile.contiguous(memory_format=torch.channels_last if flat else torch.channels_last_3d)


def core_ranges(tiling: Tiling) -> list[tuple[int, int]]:
    """First and last index of a tile's output that its core takes, along each of the network's axes."""
    crop = tiling.crop
    ranges = [(a, b - 1) for a, b in zip(crop.start, crop.stop, strict=True)]
    return ranges[1:] if tiling.footprint.dimensions == 2 else ranges


def optimized_network(model: Model, precision: Precision, tiling: Tiling) -> Forward:
    """A model's network, optimised for one tile shape."""
    axes = slice(1 if tiling.footprint.dimensions == 2 else 0, 3)
    network = optimize(model.network, "cpu", precision)
    return specialized(network, list(tiling.input_shape)[axes], core_ranges(tiling), {}).network


def median_seconds(
    network: Callable[[Tensor], Tensor], tile: Tensor, threads: int, min_seconds: float = MIN_SECONDS
) -> float:
    """The median of `pass_seconds`."""
    return median(pass_seconds(network, tile, threads, min_seconds))


def pass_seconds(
    network: Callable[[Tensor], Tensor], tile: Tensor, threads: int, min_seconds: float = MIN_SECONDS
) -> list[float]:
    """Seconds of each of the passes that fill a time, after two passes of warm-up; at least one."""
    torch.set_num_threads(threads)
    passes: list[float] = []
    with torch.inference_mode():
        for _ in range(2):
            network(tile)
        while sum(passes) < min_seconds:
            start = time.perf_counter()
            network(tile)
            passes.append(time.perf_counter() - start)
    return passes


def mean_pass_seconds(model_file: Path, precision: Precision, tiling: Tiling, threads: int) -> float:
    """Mean seconds of a forward pass over a tile, in a process of its own with a retained heap.

    The mean rather than the median, since the time of a run includes the slow moments of a shared machine too.
    """
    retain_heap()
    return fmean(pass_seconds(*_network_and_tile(model_file, precision, tiling), threads))


@cache
def _network_and_tile(model_file: Path, precision: Precision, tiling: Tiling) -> tuple[Forward, Tensor]:
    return optimized_network(load_shared_model(model_file), precision, tiling), zero_tile(tiling, precision)


def forward_block(number: int, target: Path) -> BlockReport:
    """Run a forward pass of a run's network over noise of a tile's shape, and drop the output."""
    network, tile, threads = _network_of_run(target)

    def forward() -> float:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            start = time.perf_counter()
            network(tile)
            return time.perf_counter() - start

    seconds = forward_executor.submit(forward).result()
    return BlockReport(number, 1, "", seconds, seconds)


@cache
def _network_of_run(target: Path) -> tuple[Forward, Tensor, int]:
    record = read_record(target)
    entry, precision = record.models[0], record.settings.precision
    tile = zero_tile(entry.tiling, precision)
    noise = torch.randn(tile.shape, generator=torch.Generator().manual_seed(0))
    network = optimized_network(load_model_file(Path(entry.location)), precision, entry.tiling)
    return network, tile + noise, record.settings.threads
