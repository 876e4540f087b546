"""The normalisation constants of a run, computed on its workers from whole sections before the first block."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from volseg.ops.moments import pooled
from volseg.storage import SlabStatistics, moments_in_order, slab_statistics, slabs, table_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from volseg.blocks import Box
    from volseg.cluster import Executor, Progress
    from volseg.prediction.prepare import RunSpec
    from volseg.storage import KeptBlocks
    from volseg.storage.readers import Readable

_PROGRESS_SECONDS = 5.0


@dataclass(frozen=True)
class RunConstants:
    """The constants of each network's input, and what was taken as no tissue.

    Attributes:
        tables: of each network, float64: one row of mean and standard deviation, or one a section; NaN in sections that
            no block needs.
        empty_sections: number of sections without tissue.
        fills: values other than 0 that fill whole tiles.
    """

    tables: tuple[NDArray[np.float64], ...]
    empty_sections: int = 0
    fills: tuple[float, ...] = ()


def run_constants(spec: RunSpec, executor: Executor, progress: Progress, samples: int | None = None) -> RunConstants:
    """Read every section that a block needs once, in parallel, within the region and the mask.

    Networks that normalise by their training's constants need no pass, unless the source may hold NaN.

    Args:
        spec: the run.
        executor: whose workers read.
        progress: receives the time left and what was found.
        samples: number of sections to measure instead of all; the others take the constants of the nearest.

    Raises:
        SourceError: voxels cannot be read, or are NaN in the midst of tissue.
    """
    normalizations = [model.card.normalization for model in spec.models]
    modes = sorted({one.mode for one in normalizations if one.scope != "training"})
    if not modes and np.dtype(spec.volume.dtype).kind != "f":
        return RunConstants(tuple(table_of([one.training]) for one in normalizations))
    region = spec.plan.grid.region
    ranges = _section_ranges(spec, samples)
    results = _measure(spec, executor, progress, ranges, modes)
    numbers = [z for first, stop in ranges for z in range(first, stop)]
    constants: dict[str, NDArray[np.float64]] = {}
    for index, mode in enumerate(modes):
        moments = dict(zip(numbers, moments_in_order(results, index), strict=True))
        if any(one.mode == mode and one.scope == "volume" for one in normalizations):
            inside = [moments[z] for z in numbers if region.start[0] <= z < region.stop[0]]
            constants[mode] = table_of([pooled(inside).constants])
            continue
        constants[mode] = np.full((spec.volume.shape[0], 2), np.nan)
        wanted = numbers if samples is None else range(spec.volume.shape[0])
        for z in wanted:
            constants[mode][z] = moments[z if samples is None else min(numbers, key=lambda n: abs(n - z))].constants
    empty = sum(one.count == 0 for one in moments_in_order(results, 0)) if modes else 0
    fills = tuple(sorted({value for slab in results for value in slab.fills}))
    _state(progress, empty, len(numbers), fills)
    tables = (table_of([one.training]) if one.scope == "training" else constants[one.mode] for one in normalizations)
    return RunConstants(tuple(tables), empty, fills)


def _section_ranges(spec: RunSpec, samples: int | None) -> list[tuple[int, int]]:
    """Sections to read together: those of the region, and of its halo along z."""
    shape, region, halo = spec.volume.shape, spec.plan.grid.region, spec.plan.halo[0]
    first, stop = max(0, region.start[0] - halo), min(shape[0], region.stop[0] + halo)
    if samples is None or stop - first <= samples:
        return list(slabs(shape, spec.volume.chunk, first, stop))
    numbers = sorted({first + (2 * k + 1) * (stop - first) // (2 * samples) for k in range(samples)})
    return [(z, z + 1) for z in numbers]


def _measure(
    spec: RunSpec, executor: Executor, progress: Progress, ranges: list[tuple[int, int]], modes: list[str]
) -> list[SlabStatistics]:
    mask = spec.mask
    measure = partial(measure_slab, volume=spec.volume, modes=tuple(modes), region=spec.plan.grid.region)
    slabs_and_blocks = ((sections, mask.kept_blocks(*sections) if mask else None) for sections in ranges)
    total = sum(stop - first for first, stop in ranges)
    advance = log_section_progress(progress, total)
    lengths = {first: stop - first for first, stop in ranges}
    results: list[SlabStatistics] = []
    done = 0
    for slab in executor.map(measure, slabs_and_blocks):
        results.append(slab)
        done += lengths[slab.first]
        advance(done)
    return results


def measure_slab(
    item: tuple[tuple[int, int], KeptBlocks | None], volume: Readable, modes: tuple[str, ...], region: Box
) -> SlabStatistics:
    """As `slab_statistics`, of (sections, mask); runs on a worker."""
    sections, mask = item
    return slab_statistics(volume, sections, modes, region, mask)


def _state(progress: Progress, empty: int, sections: int, fills: tuple[float, ...]) -> None:
    """Say what was taken as no tissue."""
    if empty:
        hold = "holds" if empty == 1 else "hold"
        progress.note(f"{empty} of {sections} sections {hold} no tissue; the map is 0 there")
    if fills:
        values = ", ".join(f"{value:g}" for value in fills)
        progress.note(f"grey values that fill whole tiles of 64 x 64 count as no tissue: {values}")


def log_section_progress(progress: Progress, sections: int) -> Callable[[int], None]:
    """A callback that logs the pass over the volume before the first block, every few seconds."""
    started = logged = time.monotonic()

    def on_section(done: int) -> None:
        nonlocal logged
        now = time.monotonic()
        if now - logged > _PROGRESS_SECONDS:
            logged = now
            rate = done / (now - started)
            left = (sections - done) / rate
            measured = f"grey values of {done} of {sections} sections measured"
            progress.note(f"{measured}, {rate:.1f} a second, {left:.0f} s left")

    return on_section
