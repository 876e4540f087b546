"""The tiles of a run, chosen on a worker: those that its memory holds and that its device is fastest with.

A large tile computes less halo twice, a small one fits the cache or the GPU better: which wins is measured, in useful
voxels a second. What was measured is kept for the next run on the same device.
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
from volseg.inference.memory.plan import MemoryPlan, fits, plan_memory, refuse_unfitting
from volseg.ops import Grey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from volseg.blocks import BlockGrid, Tiling, Zyx
    from volseg.inference.settings import Engine, Load
    from volseg.models.model import Model

_HOPELESS = 1.6
"""How many times the least halo a tile may compute and still win: so much faster the best size was than the worst."""
_CANDIDATES = 4
_BATCHES = {"cpu": (1,), "cuda": (1, 2, 4, 8)}
_PASSES = 80
"""A run of fewer passes is over before measuring, which makes eight or so, would have paid."""
_LONG = 600
"""Seconds that one worker would take for a run; a shorter one is not worth compiling for."""
_GAIN = 0.97
"""A compiled pass that takes more than this share of the time is not worth the doubt."""
_SECONDS = 1.0
"""How long a tile is timed, if two passes do not take longer."""


@dataclass(frozen=True, slots=True)
class TileConfig:
    """The tile of one network of a run.

    Attributes:
        core: chosen.
        batch: tiles a forward pass.
        memory: the peak that was predicted with it.
        kvoxel_s: thousands of useful voxels a second that one worker made with it; 0 where nothing was measured.
        compiled: whether the network is to be compiled.
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
    """Choose a tile for each network.

    All networks stay loaded, one of them runs at a time.

    Args:
        model_files: the models.
        grid: the run's blocks.
        tilings: candidates for each model, the one with the least halo first.
        load: what a worker is asked to hold; its batch is multiplied with those that are tried.
        free: bytes free for a worker in main memory and on its device.
        engine: how networks are run; where it is None nothing is measured, and the least halo wins.

    Raises:
        MemoryPlanError: not even the smallest tile fits.
    """
    from volseg.models.model import shared_model  # noqa: PLC0415 - the driver imports this module without torch

    models = [shared_model(file) for file in model_files]
    weights = sum(parameter.numel() for model in models for parameter in model.network.parameters())
    chosen = []
    for model, candidates in zip(models, tilings, strict=True):
        choices = _fitting(model.network, grid, candidates, load, free, weights)
        chosen.append(_fastest(model, grid, list(choices if engine else islice(choices, 1)), engine))
    return tuple(chosen)


def _fitting(
    network: nn.Module, grid: BlockGrid, tilings: Sequence[Tiling], load: Load, free: tuple[int, int], weights: int
) -> Iterator[tuple[Tiling, TileConfig]]:
    """Tiles and batches that fit the memory and may win, the largest tile first.

    Raises:
        MemoryPlanError: none fits.
    """
    least: float | None = None
    plan: MemoryPlan | None = None
    for tiling in tilings:
        if least is not None and tiling.overhead > _HOPELESS * least:
            return
        for batch in (n for n in _BATCHES[load.device] if n == 1 or n <= grid.block[0]):
            more = plan_memory(network, grid, tiling, replace(load, batch=batch * load.batch), weights)
            plan = more if batch == 1 else plan
            if not fits(more, *free):
                break
            least = least or tiling.overhead
            yield tiling, TileConfig(tiling.core, batch, more)
    if least is None:
        refuse_unfitting(plan, *free)


def _fastest(
    model: Model, grid: BlockGrid, choices: Sequence[tuple[Tiling, TileConfig]], engine: Engine | None
) -> TileConfig:
    """The choice with the most useful voxels a second; the first where there is nothing to choose or no time."""
    from volseg.storage import cached  # noqa: PLC0415 - `volseg predict --help` imports this module without zarr

    whole = grid.largest
    first = choices[0][1]
    if engine is None or len(choices) == 1 or grid.count * choices[0][0].count(whole) < _PASSES:
        return first
    timed = []
    for tiling, choice in islice(choices, _CANDIDATES * len(_BATCHES[engine.device])):
        seconds = cached("tiles", _key(model, tiling, choice.batch, engine), _timing(model, tiling, choice, engine))
        passes = ceil(tiling.count(whole) / choice.batch)
        timed.append((replace(choice, kvoxel_s=_rate(whole, passes, seconds)), tiling, passes, seconds))
    best, tiling, passes, plain = max(timed, key=lambda each: each[0].kvoxel_s)
    # Workers share the run; that each has a GPU's worth of it is all that is known here.
    if engine.device != "cuda" or grid.count * passes * plain < _LONG:
        return best
    compiling, seconds = _compiled_times(model, tiling, replace(engine, batch=best.batch))
    if not pays(plain, seconds, compiling, grid.count * passes):
        return best
    return replace(best, compiled=True, kvoxel_s=_rate(whole, passes, seconds))


def _compiled_times(model: Model, tiling: Tiling, engine: Engine) -> tuple[float, float]:
    """Seconds of the first pass of a compiled network, which compiles it, and of those that follow."""
    from volseg.storage import cached  # noqa: PLC0415 - as above

    fast = replace(engine, orientations="one", compiled=True)
    key = _key(model, tiling, engine.batch, engine)
    times = cached("compiled", key, partial(passes_of, model, tiling, fast), lambda kept: isinstance(kept, list))
    return times[0], statistics.median(times[1:])


def pays(plain: float, compiled: float, compiling: float, passes: float) -> bool:
    """Whether a run is over sooner with a compiled network.

    Args:
        plain: seconds a pass.
        compiled: likewise, compiled.
        compiling: seconds that every worker compiles.
        passes: of each worker.

    >>> pays(0.10, 0.07, 40, 100_000), pays(0.10, 0.07, 40, 1_000), pays(0.10, 0.099, 40, 100_000)
    (True, False, False)
    """
    return compiled < _GAIN * plain and compiling + passes * compiled < passes * plain


def _rate(whole: Box, passes: int, seconds: float) -> float:
    """Thousands of voxels a second, of a block that takes some passes."""
    return round(whole.voxels / (passes * seconds) / 1e3, 1)


def _key(model: Model, tiling: Tiling, batch: int, engine: Engine) -> str:
    """What the time of a pass depends on."""
    parts = (
        model.digest,
        tiling.input_shape,
        tiling.crop,
        batch,
        engine.precision,
        engine.threads,
        device_name(engine),
    )
    return "|".join(map(str, parts))


def _timing(model: Model, tiling: Tiling, choice: TileConfig, engine: Engine) -> Callable[[], float]:
    return lambda: seconds_a_pass(model, tiling, replace(engine, batch=choice.batch, orientations="one"))


def seconds_a_pass(model: Model, tiling: Tiling, engine: Engine) -> float:
    """The median of `passes_of`, but for the first, which finds the fastest kernels and makes its maps anew."""
    return statistics.median(passes_of(model, tiling, engine)[1:])


def passes_of(model: Model, tiling: Tiling, engine: Engine) -> list[float]:
    """How long this process takes for one forward pass of a batch of tiles, transfers included, a few times.

    Args:
        model: the network.
        tiling: of which one batch is computed, of noise.
        engine: how it is run.
    """
    from volseg.inference.optimize.optimize import optimized  # noqa: PLC0415 - the driver imports this module without torch
    from volseg.inference.tiled_predictor import TiledPredictor  # noqa: PLC0415 - likewise

    network = optimized(model.network, engine.device, engine.precision)
    predict = TiledPredictor(network, model.probabilities, tiling, engine)
    z, y, x = tiling.core
    box = Box((0, 0, 0), (z * engine.batch, y, x))
    noise = np.random.default_rng(0).integers(0, 256, tiling.read_box(box).shape, np.uint8)
    grey = Grey.of(noise, ((128.0, 64.0),))
    times: list[float] = []
    while len(times) < 2 or (sum(times[1:]) < _SECONDS and len(times) < 6):
        begun = time.perf_counter()
        next(predict(grey, box))
        times.append(time.perf_counter() - begun)
    return times
