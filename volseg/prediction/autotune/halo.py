"""`--halo auto`: the smallest halo for these weights on this volume, measured on the workers.

samples of the region -> each network without and with its exact halo, on a worker -> errors by depth
-> the smallest halo within the tolerance, for the run's tile. Measurements are cached for the next run of the same
networks on the same volume.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import BlockGrid, Box, Footprint, Tiling, format_zyx
from volseg.blocks.tiling import even_tile_core
from volseg.errors import ClusterError, MemoryPlanError
from volseg.inference import open_predictors
from volseg.inference.memory.plan import largest_that_fits, plan_memory
from volseg.ops import Grey, to_uint8
from volseg.prediction.autotune.halo_curve import (
    SAMPLES,
    DepthErrors,
    HaloError,
    candidate_halos,
    cheapest_halo,
    corner,
    errors_by_depth,
    halo_errors,
    sample_boxes,
)
from volseg.storage import cached
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from volseg.blocks import Zyx
    from volseg.cluster import Executor, Progress
    from volseg.config.tolerance import Tolerance
    from volseg.prediction.autotune.probe import ProbeSpec
    from volseg.storage import ModelEntry

_TABLE_ROWS = 8
_MAX_SECONDS, _MAX_FRACTION = 8.0, 0.02
"""Limit of the time for samples: seconds, or this fraction of the run's time if that is more."""
_FORMAT = 6
"""Of the cached measurements; changes with the way of measuring."""


@dataclass(frozen=True)
class HaloChoice:
    """The halo of one network of a run.

    Attributes:
        halo: voxels (z, y, x).
        curve: the errors of all candidates; empty if nothing was measured.
        reason: a line for people.
    """

    halo: Zyx
    curve: tuple[HaloError, ...]
    reason: str


def measure_sample(box: Box, probe: ProbeSpec) -> DepthErrors | None:
    """Measure a network on one sample, in the calling process; None if the sample has no contrast.

    Raises:
        MemoryPlanError: the sample does not fit into this worker's memory.
    """
    from volseg.models.model import load_shared_model  # noqa: PLC0415 - the driver imports this module without torch

    footprint, volume = probe.footprint, probe.source.open()
    network = load_shared_model(probe.model_file).network
    # Each block in flight may be a sample with a network of its own.
    weights = probe.load.slots * sum(parameter.numel() for parameter in network.parameters())
    load, grid = replace(probe.load, batch=1), BlockGrid(box.shape, box.shape, Box.of_shape(box.shape))

    def largest(tilings: Iterator[Tiling]) -> Tiling:
        plans = ((tiling, plan_memory(network, grid, tiling, load, weights)) for tiling in tilings)
        return largest_that_fits(plans, *probe.free)[0]

    # The sample without a halo is one tile; with the exact halo, tiles leave no seam.
    boxes = [box, corner(box, footprint)]
    whole = Tiling(footprint, box.shape, footprint.margin)
    tilings = [largest(iter([whole])), largest(_tilings_of(boxes[1], footprint))]
    read_box = tilings[0].read_box(boxes[0]).union(tilings[1].read_box(boxes[1]))
    raw = volume.read(read_box)
    # A non-finite voxel fails its block later, and is named there.
    if raw.min() == raw.max() or not np.isfinite(raw).all():
        return None
    predictors = open_predictors(probe.model_file, probe.digest, tilings, probe.engine, probe.classes)
    predictions = []
    for part, tiling, predict in zip(boxes, tilings, predictors, strict=True):
        part_box = tiling.read_box(part)
        voxels = raw[part_box.relative_to(read_box.start).slices]
        estimate = next(predict(Grey.of(voxels, probe.statistics, part_box.start[0]), part))
        predictions.append(to_uint8(estimate.probability))
    return errors_by_depth(predictions[0], predictions[1], boxes[1].relative_to(box.start), footprint)


def _tilings_of(box: Box, footprint: Footprint) -> Iterator[Tiling]:
    """Tilings of a part of a sample with the exact halo: one tile, then more and more."""
    for parts in (1, 2, 4):
        across = (1 if footprint.dimensions == 2 else parts, parts, parts)
        yield Tiling(footprint, even_tile_core(box.shape, across, footprint.stride), footprint.exact_halo())


def measure_halo(
    probe: ProbeSpec, grid: BlockGrid, core: Zyx, identity: str, executor: Executor, progress: Progress
) -> list[DepthErrors] | str:
    """Measure one network on samples of a region, or return the reason why the halo is to be exact.

    Args:
        probe: the network and its input.
        grid: the run's blocks.
        core: of the tile that the run prefers.
        identity: of the volume.
        executor: whose workers measure.
        progress: receives the progress.
    """
    footprint = probe.footprint
    candidates, boxes = candidate_halos(footprint), sample_boxes(grid, footprint)
    if len(candidates) == 1:
        return "the only one for this network"
    min_cost, max_cost = (Tiling(footprint, core, halo).overhead for halo in (candidates[0], candidates[-1]))
    samples_cost, region = _measured_voxels(boxes, footprint), grid.region.voxels
    if samples_cost >= region * (max_cost - min_cost):
        return "exact: the region is so small that measuring would cost more than it saves"
    affordable = within_budget(boxes, region * max_cost * len(boxes) / samples_cost)
    try:
        samples = cached(
            "halo", _key(probe, grid, identity), partial(_measure, probe, affordable, executor, progress), _is_samples
        )
    except _UndecidedError as reason:
        return f"exact: {reason}"
    return [DepthErrors(*(np.array(table, np.int64) for table in sample)) for sample in samples]


def choose_halo(samples: list[DepthErrors] | str, tolerance: Tolerance, footprint: Footprint, core: Zyx) -> HaloChoice:
    """The smallest halo within a tolerance for tiles with this core, or the exact one with the reason."""
    if isinstance(samples, str):
        return HaloChoice(footprint.exact_halo(), (), samples)
    points = halo_errors(samples, footprint, core)
    best = cheapest_halo(points, tolerance, footprint, core)
    reason = "none smaller is within" if best.halo == footprint.exact_halo() else "the smallest within"
    return HaloChoice(best.halo, points, f"{reason} {tolerance} ({counted(len(samples), 'sample')})")


class _UndecidedError(Exception):
    """The samples do not decide; the message is the reason."""


def within_budget(boxes: Iterable[Box], run_samples: float) -> Iterator[Box]:
    """The boxes of samples, as long as measuring takes little time compared with the run.

    Args:
        boxes: the first is always taken.
        run_samples: number of samples that take as long as the run.
    """
    started = time.monotonic()
    for number, box in enumerate(boxes):
        seconds = (time.monotonic() - started) / max(number, 1)
        if (number + 1) * seconds > max(_MAX_SECONDS, _MAX_FRACTION * run_samples * seconds):
            return
        yield box


def _measure(probe: ProbeSpec, boxes: Iterable[Box], executor: Executor, progress: Progress) -> list[Any]:
    """The errors of each sample, in plain values."""
    samples: list[Any] = []
    started = time.monotonic()
    try:
        for number, errors in enumerate(executor.map(partial(measure_sample, probe=probe), boxes), start=1):
            left = (time.monotonic() - started) / number * (SAMPLES - number)
            progress.note(f"halo: sample {number} of up to {SAMPLES} measured, at most {left:.0f} s left")
            if errors is not None:
                samples.append([errors.voxels.tolist(), errors.within.tolist(), errors.max_error.tolist()])
    except MemoryPlanError as error:
        needs = str(error).partition(";")[0]
        raise _UndecidedError(
            f"a sample, twice the halo wide, does not fit into a worker's memory ({needs})"
        ) from error
    except ClusterError as error:
        raise _UndecidedError(f"samples could not be measured ({error})") from error
    if not samples:
        raise _UndecidedError("the samples hold a single grey value, or voxels that are NaN or infinite")
    return samples


def _is_samples(value: Any) -> bool:
    """Whether a cached value is a result of `_measure`."""
    return isinstance(value, list) and bool(value) and all(isinstance(s, list) and len(s) == 3 for s in value)


def _key(probe: ProbeSpec, grid: BlockGrid, identity: str) -> str:
    """All that the errors depend on."""
    engine = probe.engine
    parts = (_FORMAT, SAMPLES, probe.digest, probe.footprint, identity, grid.region, probe.classes)
    return "|".join(map(str, (*parts, engine.device, engine.precision, probe.statistics_digest)))


def _measured_voxels(boxes: Sequence[Box], footprint: Footprint) -> int:
    """Voxels that measuring computes."""
    exact = (Tiling(footprint, corner(box, footprint).shape, footprint.exact_halo()).input_shape for box in boxes)
    return sum(Box.of_shape(shape).voxels for shape in exact) + sum(box.voxels for box in boxes)


def halo_lines(entry: ModelEntry) -> list[str]:
    """A short table for people: the rows around the choice, and some evenly spaced."""
    points = entry.halo_curve
    at = next(i for i, point in enumerate(points) if point.halo == entry.halo)
    near = {max(at - 1, 0), at, min(at + 1, len(points) - 1)}
    spaced = {round(i * (len(points) - 1) / (_TABLE_ROWS - 1)) for i in range(_TABLE_ROWS)}
    lines = ["        halo  maximum error  within one grey level  computed for each written"]
    for i in sorted(near | spaced):
        halo = format_zyx(points[i].halo)
        mark = "  <- chosen" if i == at else ""
        cost = Tiling(entry.footprint, entry.tile, points[i].halo).overhead
        lines.append(f"{halo:>12}  {points[i].max_error:>13g}  {points[i].fraction:>21.3%}  {cost:>25.2f}{mark}")
    return lines
