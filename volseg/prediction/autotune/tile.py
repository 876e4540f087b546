"""The tile of each network, chosen on a worker: the fastest of those that fit its memory.

A large tile computes less halo, a small one suits the cache or the GPU better. So tiles are timed, in voxels per second
without halos. Times are cached for the next run on the same device.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import Box
from volseg.inference.hardware import device_name
from volseg.inference.memory.plan import MemoryPlan, fits_in_memory, plan_memory, refuse_too_large
from volseg.malloc import retain_heap
from volseg.ops import Grey
from volseg.storage import cached

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from volseg.blocks import BlockGrid, Tiling, Zyx
    from volseg.inference.settings import Engine, Load
    from volseg.models.model import Model

_MAX_OVERHEAD = 1.6
"""Relative to the smallest overhead: the best tile size was never so much faster than the worst."""
_MAX_CANDIDATES = 4
_BATCHES = {"cpu": (1,), "cuda": (1, 2, 4, 8)}
_MIN_PASSES = 80
"""A run of fewer passes is not worth measuring, which takes about eight."""
_MIN_COMPILED_SECONDS = 600
"""A run that takes one worker less time is not worth compiling for."""
_MAX_COMPILED_RATIO = 0.97
"""Time of a compiled pass relative to a plain one, at most."""
_TIMED_SECONDS = 1.0
"""Time of the passes of one tile, unless two take longer."""


@dataclass(frozen=True, slots=True)
class TileConfig:
    """The tile of one network of a run.

    Attributes:
        core: voxels (z, y, x), without the halo.
        batch: tiles per forward pass.
        memory: predicted peak.
        kvoxel_s: thousands of voxels per second of one worker, halos not counted; 0 if it was not measured.
        compiled: whether the network runs through torch.compile.
    """

    core: Zyx
    batch: int
    memory: MemoryPlan
    kvoxel_s: float = 0.0
    compiled: bool = False


def choose_tiles(
    model_files: Sequence[str],
    grid: BlockGrid,
    tilings: Sequence[Sequence[Tiling]],
    load: Load,
    free: tuple[int, int],
    engine: Engine | None = None,
) -> tuple[TileConfig, ...]:
    """Choose a tile for each network; all networks stay loaded, one of them runs at a time.

    Args:
        model_files: paths of the models.
        grid: the run's blocks.
        tilings: candidates for each model, in the order of their overhead.
        load: of the worker; its batch is multiplied with those that are tried.
        free: bytes that the worker may use, of main memory and of its device.
        engine: how the networks are run; None chooses the smallest overhead without measuring.

    Raises:
        MemoryPlanError: not even the smallest tile fits.
    """
    from volseg.models.model import load_shared_model  # noqa: PLC0415 - the driver imports this module without torch

    models = [load_shared_model(file) for file in model_files]
    weights = sum(parameter.numel() for model in models for parameter in model.network.parameters())
    if engine is not None and engine.device == "cpu":
        retain_heap()  # as in the run
    tiles = []
    for model, candidates in zip(models, tilings, strict=True):
        fitting = _that_fit(model, grid, candidates, load, free, weights)
        tiles.append(_fastest(model, grid, list(fitting if engine else islice(fitting, 1)), engine))
    return tuple(tiles)


def _that_fit(
    model: Model, grid: BlockGrid, tilings: Sequence[Tiling], load: Load, free: tuple[int, int], weights: int
) -> Iterator[tuple[Tiling, TileConfig]]:
    """Tiles and batches that fit the memory and may be the fastest, the largest tile first.

    Raises:
        MemoryPlanError: none fits.
    """
    min_overhead: float | None = None
    smallest: MemoryPlan | None = None
    for tiling in tilings:
        if min_overhead is not None and tiling.overhead > _MAX_OVERHEAD * min_overhead:
            return
        for batch in (n for n in _BATCHES[load.device] if n == 1 or n <= grid.block[0]):
            plan = plan_memory(model.network, grid, tiling, replace(load, batch=batch * load.batch), weights)
            smallest = plan if batch == 1 else smallest
            if not fits_in_memory(plan, *free):
                break
            min_overhead = min_overhead or tiling.overhead
            yield tiling, TileConfig(tiling.core, batch, plan)
    if min_overhead is None:
        refuse_too_large(smallest, *free)


def _fastest(
    model: Model, grid: BlockGrid, candidates: Sequence[tuple[Tiling, TileConfig]], engine: Engine | None
) -> TileConfig:
    """The candidate with the most voxels per second; the first if there is one only, or the run is short."""
    block, (first_tiling, first) = grid.largest_box, candidates[0]
    if engine is None or len(candidates) == 1 or grid.count * first_tiling.count(block) < _MIN_PASSES:
        return first
    timed = []
    for tiling, tile in islice(candidates, _MAX_CANDIDATES * len(_BATCHES[engine.device])):
        batched = replace(engine, batch=tile.batch, orientations="one")
        seconds = cached("tiles", _key(model, tiling, batched), partial(seconds_per_pass, model, tiling, batched))
        passes = ceil(tiling.count(block) / tile.batch)
        timed.append((replace(tile, kvoxel_s=_rate(block, passes, seconds)), tiling, passes, seconds))
    best, tiling, passes, plain = max(timed, key=lambda candidate: candidate[0].kvoxel_s)
    # How many workers share the run is unknown here: each counts as if it did all of it.
    if engine.device != "cuda" or grid.count * passes * plain < _MIN_COMPILED_SECONDS:
        return best
    compiling, seconds = _compiled_times(model, tiling, replace(engine, batch=best.batch))
    if not is_compiling_worth_it(plain, seconds, compiling, grid.count * passes):
        return best
    return replace(best, compiled=True, kvoxel_s=_rate(block, passes, seconds))


def _compiled_times(model: Model, tiling: Tiling, engine: Engine) -> tuple[float, float]:
    """Seconds of a compiled network's first pass, which compiles it, and of a later one."""
    engine = replace(engine, orientations="one", compiled=True)
    measure = partial(time_passes, model, tiling, engine)
    times = cached("compiled", _key(model, tiling, engine), measure, lambda value: isinstance(value, list))
    return times[0], statistics.median(times[1:])


def is_compiling_worth_it(plain: float, compiled: float, compiling: float, passes: float) -> bool:
    """Whether a run ends earlier with a compiled network.

    Args:
        plain: seconds per pass.
        compiled: seconds per pass of the compiled network.
        compiling: seconds of every worker to compile it.
        passes: of each worker.

    >>> is_compiling_worth_it(0.10, 0.07, 40, 100_000), is_compiling_worth_it(0.10, 0.07, 40, 1_000)
    (True, False)
    >>> is_compiling_worth_it(0.10, 0.099, 40, 100_000)
    False
    """
    return compiled < _MAX_COMPILED_RATIO * plain and compiling + passes * compiled < passes * plain


def _rate(block: Box, passes: int, seconds: float) -> float:
    """Thousands of voxels per second, of a block that takes some passes."""
    return round(block.voxels / (passes * seconds) / 1e3, 1)


def _key(model: Model, tiling: Tiling, engine: Engine) -> str:
    """All that the time of a pass depends on."""
    parts = (
        model.digest,
        tiling.input_shape,
        tiling.crop,
        engine.batch,
        engine.precision,
        engine.threads,
        device_name(engine),
    )
    return "|".join(map(str, parts))


def seconds_per_pass(model: Model, tiling: Tiling, engine: Engine) -> float:
    """Median time of a forward pass, without the first, which selects kernels and allocates memory."""
    return statistics.median(time_passes(model, tiling, engine)[1:])


def time_passes(model: Model, tiling: Tiling, engine: Engine) -> list[float]:
    """Times of a few forward passes of a batch of tiles of noise in this process, in seconds, transfers included."""
    # Both load torch, which the driver does without.
    from volseg.inference.optimize.optimize import optimized  # noqa: PLC0415
    from volseg.inference.tiled_predictor import TiledPredictor  # noqa: PLC0415

    network = optimized(model.network, engine.device, engine.precision)
    predict = TiledPredictor(network, model.probabilities, tiling, engine)
    z, y, x = tiling.core
    box = Box((0, 0, 0), (z * engine.batch, y, x))
    noise = np.random.default_rng(0).integers(0, 256, tiling.read_box(box).shape, np.uint8)
    grey = Grey.of(noise, ((128.0, 64.0),))
    times: list[float] = []
    while len(times) < 2 or (sum(times[1:]) < _TIMED_SECONDS and len(times) < 6):
        started = time.perf_counter()
        next(predict(grey, box))
        times.append(time.perf_counter() - started)
    return times
