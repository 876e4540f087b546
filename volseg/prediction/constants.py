"""The normalisation constants of a run, computed on its workers from whole sections before the first block."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks import ceil_to
from volseg.errors import ResumeError, TargetError
from volseg.ops.moments import pooled
from volseg.prediction.absence import CheckedSource, ChunkRule
from volseg.storage import (
    SlabStatistics,
    moments_in_order,
    open_target,
    read_table,
    slab_statistics,
    slabs,
    table_digest,
    table_of,
)
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.cluster import Executor, Progress
    from volseg.pipeline import Plan
    from volseg.prediction.prepare import RunSpec
    from volseg.storage import KeptBlocks, RunRecord, SourceEntry
    from volseg.storage.readers import Readable
    from volseg.storage.record_entries import SourceMarks

_PROGRESS_SECONDS = 5.0


@dataclass(frozen=True)
class RunConstants:
    """The constants of each network's input, and what was taken as no tissue.

    Attributes:
        tables: of each network, float64: one row of mean and standard deviation, or one a section; NaN in sections that
            no block needs.
        empty_sections: number of sections without tissue.
        not_finite_sections: number of sections that hold NaN or infinity, around the tissue.
        fills: values other than 0 that fill whole tiles.
    """

    tables: tuple[NDArray[np.float64], ...]
    empty_sections: int = 0
    not_finite_sections: int = 0
    fills: tuple[float, ...] = ()


def run_constants(
    spec: RunSpec,
    executor: Executor,
    progress: Progress,
    samples: int | None = None,
    rule: ChunkRule | None = None,
) -> RunConstants:
    """Read every section that a block needs once, in parallel, within the region and the mask.

    Networks that normalise by their training's constants need no pass, unless the source may hold NaN.

    Args:
        spec: the run.
        executor: whose workers read.
        progress: receives the time left and what was found.
        samples: number of sections to measure instead of all; the others take the constants of the nearest.
        rule: which chunks the source may lack; None for any.

    Raises:
        SourceError: voxels cannot be read, or are NaN in the midst of tissue; a chunk is missing that must not be.
    """
    normalizations = [model.card.normalization for model in spec.models]
    modes = sorted({one.mode for one in normalizations if one.scope != "training"})
    if not needs_pass(spec):
        return RunConstants(tuple(table_of([one.training]) for one in normalizations))
    region = spec.plan.network_grid.region
    ranges = _section_ranges(spec, samples)
    results = _measure(spec, executor, progress, ranges, modes, rule or ChunkRule())
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
    empty = sum(one.voxels == 0 for one in moments_in_order(results, 0)) if modes else 0
    fills = tuple(sorted({value for slab in results for value in slab.fills}))
    not_finite = sum(len(slab.not_finite) for slab in results)
    _state(progress, empty, not_finite, len(numbers), fills)
    tables = (table_of([one.training]) if one.scope == "training" else constants[one.mode] for one in normalizations)
    return RunConstants(tuple(tables), empty, not_finite, fills)


def needs_pass(spec: RunSpec) -> bool:
    """Whether a network takes constants of the volume, or NaN must be looked for."""
    scopes = {model.card.normalization.scope for model in spec.models}
    return scopes != {"training"} or np.dtype(spec.volume.dtype).kind == "f"


def confirmed_constants(
    spec: RunSpec,
    recorded: RunRecord,
    marks: SourceMarks | None,
    executor: Executor,
    progress: Progress,
    rule: ChunkRule | None = None,
) -> RunConstants:
    """The frozen constants of a run to resume, if its source is still the one that it began with.

    If the marks of its files differ, as those of a copy do, or the constants are lost, all sections are measured again.

    Args:
        spec: the run.
        recorded: its record.
        marks: of the source's files as they are.
        executor: whose workers read.
        progress: receives a note before a pass.
        rule: as in `run_constants`.

    Raises:
        ResumeError: the source was edited, or may have been.
    """
    folder = open_target(spec.target).journal
    try:
        tables = tuple(read_table(folder, entry.statistics) for entry in recorded.models)
    except TargetError as error:
        tables = ()
        progress.note(f"{error}; they are computed again")
    if tables and recorded.source.marks == marks:
        return _with_source(tables, recorded.source)
    changed = f"{recorded.source.marks or 'none'} recorded, {marks or 'none'} found"
    if not needs_pass(spec) and recorded.source.marks != marks:
        raise ResumeError(
            f"the source of {spec.target} may have been edited ({changed}), and without statistics of its sections "
            "that cannot be told; restore its times of modification, or start again with --overwrite"
        )
    if recorded.source.marks != marks:
        progress.note(f"the modification marks of the source differ ({changed}): its sections are measured again")
    again = run_constants(spec, executor, progress, rule=rule)
    for number, (entry, table) in enumerate(zip(recorded.models, again.tables, strict=True)):
        if table_digest(table) != entry.statistics and not (tables and _agree(tables[number], table)):
            raise ResumeError(
                f"{spec.target} was started with another source ({recorded.source.location} recorded, "
                f"{spec.volume.location} requested, whose sections have other grey values); repeat the run's own "
                "command with --resume, or start again with --overwrite"
            )
    return _with_source(tables or again.tables, recorded.source)


def _with_source(tables: tuple[NDArray[np.float64], ...], source: SourceEntry) -> RunConstants:
    return RunConstants(tables, source.empty_sections, source.not_finite_sections, source.fills)


def _agree(recorded: NDArray[np.float64], measured: NDArray[np.float64]) -> bool:
    """Whether constants differ by no more than the order of float sums, which chunks decide."""
    return recorded.shape == measured.shape and np.allclose(recorded, measured, rtol=1e-12, atol=0, equal_nan=True)


def _section_ranges(spec: RunSpec, samples: int | None) -> list[tuple[int, int]]:
    """Sections to read together: all that a tile of a block may see."""
    shape, region = spec.volume.shape, spec.plan.network_grid.region
    before, after = (max(sides) for sides in zip(*_sections_around(spec.plan), strict=True))
    first, stop = max(0, region.start[0] - before), min(shape[0], region.stop[0] + after)
    if samples is None or stop - first <= samples:
        return list(slabs(shape, spec.volume.chunk, first, stop))
    numbers = sorted({first + (2 * k + 1) * (stop - first) // (2 * samples) for k in range(samples)})
    return [(z, z + 1) for z in numbers]


def _sections_around(plan: Plan) -> Iterator[tuple[int, int]]:
    """Sections that the tiles of each network may see before and after the region: halo, alignment, the last tile."""
    depth_of_block = plan.tile[0] if plan.tile else plan.network_grid.block[0]
    for footprint, halo in zip(plan.footprints, plan.halos, strict=True):
        stride = footprint.stride[0]
        core = 1 if footprint.dimensions == 2 else ceil_to(depth_of_block, stride)
        depth = footprint.input_shape((core, *footprint.stride[1:]), halo)[0]
        yield halo[0] + stride - 1, depth - halo[0] - 1 + stride - 1


def _measure(
    spec: RunSpec,
    executor: Executor,
    progress: Progress,
    ranges: list[tuple[int, int]],
    modes: list[str],
    rule: ChunkRule,
) -> list[SlabStatistics]:
    progress.stage("measuring grey values")
    mask = spec.mask
    measure = partial(measure_slab, volume=spec.volume, modes=tuple(modes), region=spec.plan.network_grid.region)
    slabs_and_blocks = ((sections, mask.kept_blocks(*sections) if mask else None) for sections in ranges)
    total = sum(stop - first for first, stop in ranges)
    advance = log_section_progress(progress, total)
    lengths = {first: stop - first for first, stop in ranges}
    results: list[SlabStatistics] = []
    done = 0
    for slab, absent in executor.map(measure, slabs_and_blocks):
        rule.check(spec.volume, absent)
        results.append(slab)
        done += lengths[slab.first]
        advance(done)
    return results


def measure_slab(
    item: tuple[tuple[int, int], KeptBlocks | None], volume: Readable, modes: tuple[str, ...], region: Box
) -> tuple[SlabStatistics, set[Zyx]]:
    """As `slab_statistics`, of (sections, mask), and the chunks that the source lacks; runs on a worker."""
    sections, mask = item
    source = CheckedSource(volume, ChunkRule())
    measured = slab_statistics(source, sections, modes, region, mask)
    source.confirm()
    return measured, source.absent


def _state(progress: Progress, empty: int, not_finite: int, sections: int, fills: tuple[float, ...]) -> None:
    """Say what was taken as no tissue."""
    if empty:
        hold = "holds" if empty == 1 else "hold"
        progress.note(f"{empty} of {counted(sections, 'section')} {hold} no tissue; the map is 0 there")
    if not_finite:
        progress.note(f"{counted(not_finite, 'section')} of {sections} with NaN or infinity around the tissue: 0 there")
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
            measured = f"grey values of {done} of {counted(sections, 'section')} measured"
            progress.note(f"{measured}, {rate:.1f} a second, {left:.0f} s left")

    return on_section
