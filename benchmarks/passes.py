"""One forward pass as volseg makes it on a CPU, its voxels in memory: no reading, no Dask, no writing."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

import torch

from volseg.inference.executor import forward_executor
from volseg.inference.memory.malloc import retain_heap
from volseg.inference.optimize.optimize import DTYPES, optimize, specialized
from volseg.models.model import Model, load_model_file, shared_model
from volseg.pipeline import BlockReport
from volseg.storage import read_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from volseg.blocks import Tiling
    from volseg.inference import Precision

LONG = 4.0
"""Seconds over which forward passes are repeated."""


def tile_of(tiling: Tiling, precision: Precision) -> Tensor:
    """Zeros of a tile's shape, as a network takes them: (1, sections, y, x), or (1, 1, z, y, x) for one in 3-D."""
    flat, shape = tiling.footprint.dimensions == 2, tiling.input_shape
    tile = torch.zeros((1, *shape) if flat else (1, 1, *shape), dtype=DTYPES[precision])
    return tile.contiguous(memory_format=torch.channels_last if flat else torch.channels_last_3d)


def kept_by(tiling: Tiling) -> list[tuple[int, int]]:
    """First and last place of a tile's output that is kept, along each of the network's axes."""
    crop = tiling.crop
    kept = [(a, b - 1) for a, b in zip(crop.start, crop.stop, strict=True)]
    return kept[1:] if tiling.footprint.dimensions == 2 else kept


def network_for(model: Model, precision: Precision, tiling: Tiling) -> Callable[[Tensor], Tensor]:
    """A model's network made ready for one tile shape."""
    axes = slice(1 if tiling.footprint.dimensions == 2 else 0, 3)
    network = optimize(model.network, "cpu", precision)
    return specialized(network, list(tiling.input_shape)[axes], kept_by(tiling), {}).network


def timed(network: Callable[[Tensor], Tensor], tile: Tensor, threads: int, long: float = LONG) -> float:
    """The median seconds of `repeated`."""
    return median(repeated(network, tile, threads, long))


def repeated(network: Callable[[Tensor], Tensor], tile: Tensor, threads: int, long: float = LONG) -> list[float]:
    """Seconds of as many passes as fit a time, and of one at least; two before them warm up."""
    torch.set_num_threads(threads)
    passes: list[float] = []
    with torch.inference_mode():
        for _ in range(2):
            network(tile)
        while sum(passes) < long:
            began = time.perf_counter()
            network(tile)
            passes.append(time.perf_counter() - began)
    return passes


def seconds_of(model_file: Path, precision: Precision, tiling: Tiling, threads: int) -> float:
    """Mean seconds of a forward pass over a tile, in a process that does nothing else and keeps its pages.

    The mean, for that is what a run takes of its own, the slow moments of a shared machine among them.
    """
    retain_heap()
    return fmean(repeated(*_pass_of(model_file, precision, tiling), threads))


@cache
def _pass_of(model_file: Path, precision: Precision, tiling: Tiling) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    return network_for(shared_model(model_file), precision, tiling), tile_of(tiling, precision)


def bare_block(number: int, target: Path) -> BlockReport:
    """A forward pass of a run's network over one of its tiles, its voxels in memory and what comes of them left."""
    network, tile, threads = _of_run(target)

    def once() -> float:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            began = time.perf_counter()
            network(tile)
            return time.perf_counter() - began

    seconds = forward_executor.submit(once).result()
    return BlockReport(number, 1, "", seconds, seconds)


@cache
def _of_run(target: Path) -> tuple[Callable[[Tensor], Tensor], Tensor, int]:
    frozen = read_record(target)
    entry, precision = frozen.models[0], frozen.settings.precision
    tile = tile_of(entry.tiling, precision)
    noise = torch.randn(tile.shape, generator=torch.Generator().manual_seed(0))
    network = network_for(load_model_file(Path(entry.location)), precision, entry.tiling)
    return network, tile + noise, frozen.settings.threads
